"""``vxl data``: make needle videos, run pruning recipes, cache encoder features, re-check shards."""

import argparse
from typing import Any

from vxl_lightning.cli import recipes

HELP = "make, prune, encode and verify datasets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    text = (
        "make videos from real footage: labelled needles, diverse clips for pretraining, or all with cached features; "
        "or a corpus with planted faults, on which a pruning recipe is judged"
    )
    synth = commands.add_parser("synth", help=text, description=text)
    synth.add_argument("what", choices=("needles", "clips", "all", "corpus"))
    synth.add_argument("out", help="folder for the shards of train, val and test, or for the corpus")
    synth.add_argument("settings", nargs="*", metavar="CONF|key=value", help="YAML files, and e.g. train=512 seed=1")
    synth.add_argument("--print-config", action="store_true", help="print the merged configuration, and stop")
    synth.add_argument("--dry-run", action="store_true", help="check the footage, say what would be made, and stop")
    text = "cache encoder features of video shards as feature shards"
    encode = commands.add_parser("encode", help=text, description=text)
    encode.add_argument("source", help="folder of video shards")
    encode.add_argument("out", help="folder for the feature shards")
    encode.add_argument("--encoder", required=True, metavar="NAME", help="an installed encoder ('vxl plugin list')")
    encode.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="what to change: fps=1 max_frames=256 device=cuda encoder.batch_frames=8",
    )
    encode.add_argument("--print-config", action="store_true", help="print the merged configuration, and stop")
    text = "re-hash and reopen every shard and decode a sample of each"
    verify = commands.add_parser("verify", help=text, description=text)
    verify.add_argument("folder", help="folder of shards")
    verify.add_argument("--media-root", metavar="FOLDER", help="folder of media that were left where they are")
    recipes.add_arguments(commands)


def run(args: argparse.Namespace) -> int:
    commands = {"synth": _synth, "encode": _encode, "verify": _verify, "prune": recipes.prune, "why": recipes.why}
    return commands[args.data_command](args)


def _synth(args: argparse.Namespace) -> int:
    from rich.progress import Progress

    from vxl_lightning import config
    from vxl_lightning.data.synth.build import SynthConfig, build, plan
    from vxl_lightning.data.synth.corpus.build import make_corpus, plan_corpus
    from vxl_lightning.data.synth.corpus.config import CorpusConfig
    from vxl_lightning.data.synth.needles import NeedleConfig, make_needles
    from vxl_lightning.data.synth.pretraining import ClipConfig, make_pretraining

    files, overrides = ([x for x in args.settings if ("=" in x) == wanted] for wanted in (False, True))
    schemas = {"needles": NeedleConfig, "clips": ClipConfig, "all": SynthConfig, "corpus": CorpusConfig}
    schema: type[Any] = schemas[args.what]
    settings: Any = config.load(schema, files, overrides)
    if args.print_config:
        print(config.to_yaml(settings), end="")
        return 0
    if args.dry_run:
        planned = plan_corpus if isinstance(settings, CorpusConfig) else plan
        for folder, what in planned(settings, args.out).items():
            print(f"{folder}: {what}")
        return 0
    with Progress(transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        def drawing(done: int, total: int) -> None:
            report("drawing", done, total)

        if isinstance(settings, SynthConfig):
            made = {f"{k}/{s}": c for k, splits in build(settings, args.out, report).items() for s, c in splits.items()}
        elif isinstance(settings, CorpusConfig):
            made = {"records": make_corpus(settings, args.out, drawing)}
        elif isinstance(settings, NeedleConfig):
            made = make_needles(settings, args.out, drawing)
        else:
            assert isinstance(settings, ClipConfig)
            made = make_pretraining(settings, args.out, drawing)
    if not made:
        print("nothing was made: train, val and test are all 0")
    for split, counts in made.items():
        print(f"{args.out}: {split}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    return 0


def _encode(args: argparse.Namespace) -> int:
    from rich.progress import Progress

    from vxl_lightning import config
    from vxl_lightning.data.encode import EncodeConfig, encode_shards

    settings = config.load(EncodeConfig, [], [f"encoder={args.encoder}", *args.overrides])
    if args.print_config:
        print(config.to_yaml(settings), end="")
        return 0
    with Progress(transient=True) as bar:
        task = bar.add_task("encoding", total=None)
        made = encode_shards(
            args.source, args.out, settings, lambda done, total: bar.update(task, completed=done, total=total)
        )
    print(f"{args.out}: features of {made.num_samples} videos, in {len(made.shards)} shard(s)")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from vxl_lightning.data.verify import verify
    from vxl_lightning.errors import UserError

    results = list(verify(args.folder, args.media_root))
    problems = [p for _, p in results if p is not None]
    if problems:
        raise UserError(f"{len(problems)} of {len(results)} files are damaged: " + "; ".join(problems))
    shards = sum(name.endswith(".tar") for name, _ in results)
    tables = f" and {len(results) - shards} table(s)" if len(results) > shards else ""
    print(f"{args.folder}: {shards} shard(s){tables}, all as their manifest says")
    return 0

"""Does pruning pay? The demo's model trained on a planted corpus: all of it, half at random, half by the recipe.

    python benchmarks/pruned.py runs/noisy runs/pruned-training      # after make demo
    python benchmarks/pruned.py runs/noisy runs/pruned-training --steps 100 --name pruned_100_steps
    python benchmarks/pruned.py runs/corpus runs/pruned-training misaligned=24 --name pruned-clean

Everything else is the demo's: the same warm-up, the same reconstructive start, the same steps (unless ``--steps`` says
otherwise), the same test set. Half is half of the tokens of all samples that can be read.
The corpus is the planted one with many more samples whose text belongs to another video, as text crawled with videos
often does: `NOISE` of them, unless misaligned=N says otherwise.

The recipe is the default one with the necessity ladder, and drops what a video makes worse (misaligned, from 0 nats).
The ladder asks the demo's model, tuned `JUDGE` steps on the demo's own clips. Differences come with the paired test of
the ablation, over all seeds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from _corpus import ROOT, arguments, planted, recipe
from _record import record

from vxl_lightning.ablation.cells import Step, unique
from vxl_lightning.ablation.config import AblationConfig
from vxl_lightning.ablation.execution import Silent, in_parallel, serially
from vxl_lightning.ablation.plan import Places, make_plan
from vxl_lightning.ablation.runner import store_of, threads_of
from vxl_lightning.ablation.statistics import accuracies, answers_by_row, compare
from vxl_lightning.ablation.tables import read_predictions
from vxl_lightning.ablation.work import MODEL, PREDICTIONS, Context
from vxl_lightning.config import load
from vxl_lightning.curation.prune import prune
from vxl_lightning.data.encode import EncodeConfig, encode_shards
from vxl_lightning.data.manifest import NAME, Manifest

ROW = "dts + recot"
NOISE, JUDGE = 400, 150


def features(corpus: Path, out: Path, name: str, overrides: list[str], like: Manifest) -> tuple[Path, dict[str, Any]]:
    """Prune and encode; gives the folder of features and what the recipe counted."""
    pruned = prune(recipe(*arguments(corpus, name.split()[0], out / name / "shards", *overrides)))
    target = out / name / "features"
    assert like.encoding is not None
    if not (target / NAME).exists():
        encoding = like.encoding
        encode_shards(
            pruned,
            target,
            EncodeConfig(encoder=dict(encoding.encoder), fps=encoding.fps, max_frames=encoding.max_frames),
        )
    made = Manifest.load(pruned)[0].recipe or {}
    of_planted = kept(pruned / "decisions.parquet", corpus / "truth.jsonl")
    return target, {"counts": made["counts"], "tokens": made["tokens"], "kept": of_planted}


def judge(tune: Step, context: Context) -> Path:
    """The folder of the demo's model, tuned longer on the demo's clips."""
    stages = json.loads(json.dumps(tune.inputs["stages"]))
    stages["align"]["optim"]["steps"] = JUDGE
    longer = Step("tune", {**tune.inputs, "stages": stages}, tune.needs)
    serially(longer.upstream(), context, Silent())
    return context.store.path(longer) / MODEL


def kept(decisions: Path, truth: Path) -> dict[str, list[int]]:
    """Of everything that was planted: how many were kept, and how many there are."""
    planted_as = {(t["source"], t["record_number"]): t["planted"] for t in map(json.loads, truth.open())}
    counts: dict[str, list[int]] = {}
    for row in pq.read_table(decisions).to_pylist():
        count = counts.setdefault(planted_as[row["source"], row["record_number"]], [0, 0])
        count[0] += row["decision"] == "keep"
        count[1] += 1
    return {name: counts[name] for name in sorted(counts) if counts[name][0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="of alignment (default: the demo's)")
    parser.add_argument("--name", default="pruned", help="results/NAME.json")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the corpus")
    args = parser.parse_args()
    settings = [f"misaligned={NOISE}", *args.settings]
    corpus = planted(args.corpus, *settings)
    config = load(
        AblationConfig,
        [ROOT / "conf/demo/ablate.yaml"],
        [f"seeds={list(range(args.seeds))}", "cache=runs/demo/ablation/cache", f"tune.align.optim.steps={args.steps}"],
    )
    plan = make_plan(config)
    like, _ = Manifest.load(Path(config.data.train))
    row = next(r for r in plan.rows if r.name == ROW)
    model = judge(row.evaluate[0].needs["model"], Context(store_of(config), plan.places))
    ladder = [f"necessity.model={model}", "necessity.misaligned={mode: enforce, threshold: 0.0}", "select.budget=0.5"]
    sets = {"all": [], "random": ["select.budget=0.5"], "video_instruct": ladder}
    places, evaluations, made = dict(plan.places.data), {}, {}
    for name, overrides in sets.items():
        folder, made[name] = features(corpus, args.out, name, overrides, like)
        print(name, made[name], flush=True)
        digest = Manifest.load(folder)[1]
        places[digest] = str(folder)
        for seed, evaluate in row.evaluate.items():
            tune = evaluate.needs["model"]
            tune = Step("tune", {**tune.inputs, "data": digest}, tune.needs)
            evaluations[name, seed] = Step("evaluate", evaluate.inputs, {"model": tune})
    context = Context(store_of(config), Places(places, plan.places.language_model))
    steps = unique([s for evaluation in evaluations.values() for s in evaluation.upstream()])
    serially([s for s in steps if s.kind == "warmup"], context, Silent())
    in_parallel(
        [s for s in steps if s.kind != "warmup"], context, Silent(), "local", config.workers, threads_of(config)
    )
    predictions = [
        answer | {"variant": name, "retention": row.retention, "seed": seed}
        for (name, seed), step in evaluations.items()
        for answer in read_predictions(context.store.path(step) / PREDICTIONS)
    ]
    scores = [a for a in accuracies(predictions) if a.task.startswith("all")]
    for a in scores:
        print(f"{a.variant:16} {a.task:14} {a.mean:.3f} ± {a.se:.3f} (seeds ± {a.se_seeds:.3f})")
    tests = [
        {"a": "video_instruct", "b": other, "task": c.task, "n": c.n, "difference": round(c.difference, 4), "p": c.p}
        for other in ("all", "random")
        for c in compare(answers_by_row(predictions), ("video_instruct", row.retention), (other, row.retention))
        if c.task.startswith("all")
    ]
    print(json.dumps(tests, indent=1))
    rows = [
        {"recipe": a.variant, "task": a.task, "n": a.n, "mean": round(a.mean, 4), "se": round(a.se, 4)} for a in scores
    ]
    print(
        "recorded in",
        record(
            args.name,
            {
                "settings": settings,
                "seeds": args.seeds,
                "steps": args.steps,
                "sets": made,
                "results": rows,
                "tests": tests,
            },
        ),
    )


if __name__ == "__main__":
    main()

"""Does length hurt? A model trained for it, over seeds: needles from 32 to 8,192 frames, depth by length.

    python benchmarks/length.py runs/length              # data, training, choice of budget, grid
    python benchmarks/length.py runs/length --seeds 0 --per-cell 1 --lengths 32 512

Each seed is trained anew by two commands (conf/length/tokens.yaml, conf/length/answers.yaml). How many groups the
selector keeps is chosen on validation: other footage than the test's, colour-shape pairs that training shows. Then all
seeds look at the same planted haystacks, of footage and of pairs that training never shows, with the selector that was
trained; the first also with groups taken uniformly. What is finished is taken from the folder: killed, it goes on where
it was.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from _record import record

from vxl_lightning.evaluation.config import REFERENCE
from vxl_lightning.evaluation.needles import grid
from vxl_lightning.reporting import needles as report

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "length"
BUDGETS = (2, 4, 8)
SELECTOR = "late_interaction"
TRAINED, UNIFORM = "trained selector", "uniform"
VAL_LENGTH = 512
Records = list[dict[str, Any]]


def vxl(*arguments: str) -> None:
    """A command of the tool, in a process of its own."""
    print("$ vxl", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "vxl_lightning.cli.main", *arguments], check=True)


def train(out: Path, data: Path, seed: int, more: list[str]) -> Path:
    """Both steps of one seed; gives the folder of the model."""
    features = f"data.train={data / 'features/needles/train'}"
    before = ""
    for step in ("tokens", "answers"):
        folder = out / str(seed) / step
        if not (folder / "model").exists():
            resume = ["--resume"] if (folder / "checkpoints/last.ckpt").exists() else []
            begin = [f"model_from={before}"] if before else []
            vxl("train", str(CONF / f"{step}.yaml"), features, f"out={folder}", f"seed={seed}", *begin, *more, *resume)
        before = str(folder / "model")
    return Path(before)


def look(
    out: Path, models: list[Path], rows: dict[str, dict[str, Any]], *settings: str, once: str | None = None
) -> Records:
    """Needles before all rows of all models; the records of ``questions.parquet``, each with its ``seed``.

    Args:
        rows: name -> what is put into each model; nothing is the model as it is.
        once: the row that the first model alone is asked as.
    """
    owner: dict[str, tuple[str, int]] = {}
    variants: dict[str, Any] = {}
    for seed, model in enumerate(models):
        for name, given in rows.items():
            if seed and name == once:
                continue
            row = f"{name}, {seed}" if seed else name if given else REFERENCE
            owner[row] = (name, seed)
            if row != REFERENCE:
                variants[row] = given | ({"model": str(model)} if seed else {})
    more = [f"model={models[0]}", f"out={out}", f"variants={json.dumps(variants)}", *settings]
    vxl("eval", str(CONF / "needle.yaml"), *more)
    records = pq.read_table(out / "questions.parquet").to_pylist()
    return [r | {"row": owner[r["row"]][0], "seed": owner[r["row"]][1]} for r in records if r["row"] in owner]


def budget(out: Path, models: list[Path], lengths: list[int]) -> tuple[int, dict[int, Any]]:
    """Groups to keep: as many as answer most on validation over all seeds, the models' own among equals; and how each
    did."""
    rows = {str(n): {"selector": {"name": SELECTOR}, "select": n} for n in BUDGETS}
    held = [
        "footage=val",
        "pairs=seen",
        "seed=1",
        f"lengths=[{max(n for n in lengths if n <= VAL_LENGTH)}]",
        "per_cell=1",
    ]
    records = look(out, models, rows, *held)
    right = {n: [bool(r["exact"]) for r in records if r["row"] == str(n)] for n in BUDGETS}
    found = {n: {"exact": sum(of) / len(of), "n": len(of)} for n, of in right.items()}
    return max(BUDGETS, key=lambda n: (found[n]["exact"], n == kept(models[0]), -n)), found


def cell(found: Records, row: str, task: str, score: str, length: int) -> dict[str, Any]:
    (one,) = [
        g for g in found
        if (g["row"], g["task"], g["score"], g["length"], g["depth"]) == (row, task, score, length, None)
    ]  # fmt: skip
    return {"mean": one["mean"], "se": one["se"], "n": one["n"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512, 2048, 8192])
    parser.add_argument("--per-cell", type=int, default=4)
    parser.add_argument("--groups", type=int, help="groups that the selector keeps, whatever validation would choose")
    parser.add_argument("--data", type=Path, help="features and videos made before; OUT/data otherwise")
    parser.add_argument("--name", default="length", help="name of the record under benchmarks/results")
    parser.add_argument("train", nargs="*", metavar="KEY=VALUE", help="settings of both trainings")
    args = parser.parse_args()
    data = args.data or args.out / "data"
    if not (data / "features/needles/train/dataset.json").exists():
        vxl("data", "synth", "all", str(data), str(CONF / "data.yaml"))
    models = [train(args.out, data, seed, args.train) for seed in args.seeds]
    best, tried = budget(args.out / "validation", models, args.lengths)
    chosen = args.groups or best
    rows = {
        TRAINED: {} if chosen == kept(models[0]) else {"selector": {"name": SELECTOR}, "select": chosen},
        UNIFORM: {"selector": {"name": "uniform"}, "select": chosen},
    }
    print(f"groups kept: {chosen}, of {tried}", flush=True)
    settings = f"lengths={args.lengths}", f"per_cell={args.per_cell}"
    # Which groups are taken uniformly does not depend on the seed, and most miss what is asked about.
    records = look(args.out / "needle", models, rows, *settings, once=UNIFORM)
    found = grid.grids(records)  # seeds looked at the same haystacks, by which errors are clustered
    write(
        args.out,
        args.name,
        records,
        found,
        {"groups": chosen, "best on validation": best, "validation": tried, "seeds": args.seeds},
    )


def kept(model: Path) -> int:
    """Groups that a model's own selector keeps."""
    return int(json.loads((model / "config.json").read_text())["config"]["prompt"]["select"])


def write(out: Path, name: str, records: Records, found: Records, about: dict[str, Any]) -> None:
    """Tables, the picture, and the record with the figures of each seed."""
    title = f"{len(about['seeds'])} seeds, held-out footage and colour-shape pairs, {about['groups']} groups kept"
    text = grid.page(title, records, found)
    (out / "length.md").write_text(text)
    print(text)
    report.picture(found, grid.RETRIEVAL, "exact", f"{len(about['seeds'])} seeds").save(out / "length.png")
    lengths = sorted({r["length"] for r in records})
    tasks = [grid.RETRIEVAL, *dict.fromkeys(r["task"] for r in records)]
    scores = [(t, "exact") for t in tasks] + [(t, "recalled") for t in tasks] + [("when", "iou")]
    rows = list(dict.fromkeys(r["row"] for r in records))

    def table(of: Records) -> dict[str, Any]:
        there = [row for row in rows if any(g["row"] == row for g in of)]
        return {
            row: {f"{t} {s}": {str(n): cell(of, row, t, s, n) for n in lengths} for t, s in scores} for row in there
        }

    seeds = {str(s): table(grid.grids([r for r in records if r["seed"] == i])) for i, s in enumerate(about["seeds"])}
    print(record(name, about | {"all": table(found), "by seed": seeds}))


if __name__ == "__main__":
    main()

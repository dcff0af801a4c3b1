"""The default recipe on the planted corpus: recall and precision of every rule, and that no sample is lost.

    python benchmarks/corpus.py runs/corpus runs/pruned [--model runs/demo/ablation/models/dts-+-recot-0.0625-seed-0]

The corpus is made unless it is there. With a model the whole necessity ladder runs, and what it says of questions that
one frame answers and of those that need the order is counted too; ``necessity.misaligned`` stays on ``score``.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from _corpus import arguments, planted, recipe, rounded
from _record import record

from vxl_lightning.curation.prune import prune
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.data.synth.corpus.truth import read_truth, score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="", help="folder of a video language model")
    parser.add_argument("--name", default="corpus", help="results/NAME.json")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the corpus, such as seed=1")
    args = parser.parse_args()
    corpus = planted(args.corpus, *args.settings)
    ladder = [f"necessity.model={args.model}"] if args.model else []
    out = prune(recipe(*arguments(corpus, "video_instruct", args.out, *ladder)))
    counts = (Manifest.load(out)[0].recipe or {})["counts"]
    assert counts["keep"] + counts["drop"] + counts["quarantine"] == counts["read"]
    rules = [
        {k: rounded(v) for k, v in (asdict(s) | {"recall": s.recall, "precision": s.precision}).items()}
        for s in score(out / "decisions.parquet", corpus / "truth.jsonl")
    ]
    print(f"{'rule':16} {'planted':>8} {'found':>6} {'taken':>6} {'right':>6} {'recall':>7} {'precision':>9}")
    for r in rules:
        recall, precision = (f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("recall", "precision"))
        print(
            f"{r['rule']:16} {r['planted']:8} {r['found']:6} {r['taken']:6} {r['right']:6} {recall:>7} {precision:>9}"
        )
    print(
        f"{counts['read']} read = {counts['keep']} kept + {counts['drop']} dropped + {counts['quarantine']} quarantined"
    )
    copies = [r for r in read_truth(corpus / "media_truth.jsonl") if r["planted"].startswith("exact_video")]
    stored = {r["media"] for r in pq.read_table(out / "duplicates.parquet").to_pylist() if r["rule"] == "exact_video"}
    found = sum(r["media"] in stored for r in copies)
    flagged = {r["rule"]: r["failed"] for r in pq.read_table(out / "rules.parquet").to_pylist()}
    odd = {name: flagged[name] for name in ("variable_rate", "odd_pixels")}
    print(f"byte-for-byte copies stored once: {found} of {len(copies)}; flagged as odd: {odd}")
    result = {"rules": rules, "counts": counts, "exact_video": {"planted": len(copies), "found": found}, "odd": odd}
    print("recorded in", record(args.name, {"settings": args.settings, "model": bool(args.model), **result}))


if __name__ == "__main__":
    main()

"""What one haystack costs: seconds of each stage and peak memory, by length, each length in a process of its own.

    python benchmarks/needles.py MODEL                       # MODEL: a folder that vxl train or an ablation wrote
    python benchmarks/needles.py MODEL --lengths 2048 8192 32768

A haystack is decoded, planted, encoded, compressed and the model as it is asked about it: one cell of
`vxl eval conf/length/needle.yaml`. The limits are a peak below 4 GiB, no more memory at 8,192 frames than at 2,048 but
for the tokens, and no more time than linear.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from _record import measure, own_peak_mib, record

LIMIT_MIB = 4096.0
CONF = Path(__file__).parent.parent / "conf" / "length" / "needle.yaml"


def one(model: str, length: int, longest: int, cache: str) -> dict[str, Any]:
    """One cell in this process."""
    from vxl_lightning.config import load
    from vxl_lightning.evaluation.config import REFERENCE
    from vxl_lightning.evaluation.models import fitted
    from vxl_lightning.evaluation.needles import haystack, runner
    from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig

    with tempfile.TemporaryDirectory() as out:
        settings = [f"model={model}", f"lengths=[{length}]", "depths=[0.5]", "per_cell=1", f"out={out}"]
        config = load(NeedleEvaluationConfig, [CONF], settings)
        own = fitted(Path(config.model), config.rows, precision=config.precision)
        hay = haystack.made(Path(cache), config.footage, longest, config.rate(own.fps), config.seed)
        loaded = own_peak_mib()
        result = runner.run(load(NeedleEvaluationConfig, [CONF], [*settings, f"haystack={hay.path}"]), own)
    (costs,) = (c for c in result.costs if c["row"] == REFERENCE)
    seconds = {stage.removesuffix("_ms"): ms / 1e3 for stage, ms in costs.items() if stage.endswith("_ms")}
    return {"seconds": seconds, "all": sum(seconds.values()), "peak_mib": own_peak_mib(), "loaded_mib": loaded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="runs/haystacks", help="folder of haystacks that are made")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.model, args.one, max(args.lengths), args.cache)))
        return

    def alone(length: int) -> dict[str, Any]:
        lengths = map(str, args.lengths)
        return measure(__file__, args.model, "--one", str(length), "--cache", args.cache, "--lengths", *lengths)

    alone(1)  # makes the haystack, so that its making counts in no length
    found: dict[int, dict[str, Any]] = {}
    for length in sorted(args.lengths):
        found[length] = alone(length)
        stages = "  ".join(f"{stage} {s:.1f}" for stage, s in found[length]["seconds"].items())
        print(
            f"{length:>6,} frames  {found[length]['all']:6.1f} s  ({stages})  peak {found[length]['peak_mib']:,.0f} MiB"
        )
        sys.stdout.flush()
    a, b = sorted(found)[-2:]
    exponent = math.log(found[b]["all"] / found[a]["all"]) / math.log(b / a)
    grown = found[b]["peak_mib"] / found[a]["peak_mib"]
    print(f"from {a:,} to {b:,} frames: time grows by the power {exponent:.2f}, peak memory {grown:.3f} times")
    below = all(f["peak_mib"] < LIMIT_MIB for f in found.values())
    print(f"peak below {LIMIT_MIB:,.0f} MiB: {'yes' if below else 'NO'}")
    lengths = {str(n): f for n, f in found.items()}
    print(record("needles", {"lengths": lengths, "exponent": exponent, "memory_ratio": grown, "limit_mib": LIMIT_MIB}))


if __name__ == "__main__":
    main()

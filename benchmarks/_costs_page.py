"""The page docs/costs.md, written from what `compressors.py` recorded.

python benchmarks/_costs_page.py
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

OPENING = """# What compressors cost

Written by `benchmarks/_costs_page.py` from `benchmarks/results/compressors.json` (commit `{commit}`, {date}, one
thread of {cores} CPU cores, fp32): `python benchmarks/compressors.py --originals DIR`. A sixteenth of the cells is
kept, or the nearest fraction that a method can. **ms** is the median of {repeats} calls of `forward`, checks and
packing included; **copies** how many plain copies of the same features take as long; **MiB** the peak above what
was held before; **growth** the exponent of the time over the number of frames (1 is linear). **Against its authors'
code**: their time over ours, called in turn on the same input: above 1 ours is faster. A dash: a measurement that
would have taken longer than {limit:.0f} s, or no public code that can be called alone.

"""

CLOSING = """
- The smallest ratio to an original is {least:.2f}, the median {median:.2f}; `q_former` and `dts` are bound by the
  same matrix products as theirs.
- All grow linearly with the frames but for noise and memory that is touched for the first time, with two exceptions.
  `fastvid`'s published definition takes in a whole segment for every anchor: `max_segment` (128) bounds it, so that it
  is linear beyond. `dts` was measured to 256 frames alone, with an exponent above 1; longer ones are over the limit.
- Milliseconds are those of a small shared machine: compare within the table.
"""


def page(recorded: dict[str, Any]) -> str:
    """The whole of docs/costs.md.

    Args:
        recorded: ``results/compressors.json``.
    """
    methods = recorded["methods"]
    sizes = [(r["frames"], r["grid"]) for r in next(iter(methods.values()))["sizes"]]
    settings = recorded["settings"]
    text = OPENING.format(
        commit=recorded["commit"][:12], date=recorded["date"][:10], cores=recorded["device"]["cores"],
        repeats=settings["repeats"], limit=settings["limit_s"],
    )  # fmt: skip
    head = ["method", *(f"{frames:,} x {grid}: ms" for frames, grid in sizes)]
    last = max(i for i, (_, grid) in enumerate(sizes) if grid == sizes[0][1])
    head += [f"copies at {sizes[last][0]:,}", f"MiB at {sizes[last][0]:,}", "growth", "against its authors' code"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    ratios = []
    for name, found in methods.items():
        rows = {(r["frames"], r["grid"]): r for r in found["sizes"]}
        cells = [_number(rows[size], "ms") for size in sizes]
        long = rows[sizes[last]]
        held = long["peak_mib"] - long["before_mib"] if "ms" in long else None
        growth = found["growth"].get(sizes[0][1])
        beside = [r["ratio"] for r in found.get("originals", []) if "ratio" in r]
        ratios += beside
        cells += [_number(long, "copies"), "–" if held is None else f"{held:,.0f}"]
        cells += ["–" if growth is None else f"{growth['exponent']:.2f}{_range(growth, sizes[last][0])}"]
        cells += [", ".join(f"{r:.2f}" for r in beside) or "–"]
        lines.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
    ratios.sort()
    return text + "\n".join(lines) + "\n" + CLOSING.format(least=ratios[0], median=ratios[len(ratios) // 2])


def _number(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:,.1f}" if key in row else "–"


def _range(growth: dict[str, Any], most: int) -> str:
    return "" if growth["to"] == most else f" (to {growth['to']})"


if __name__ == "__main__":
    found = json.loads((ROOT / "benchmarks" / "results" / "compressors.json").read_text())
    (ROOT / "docs" / "costs.md").write_text(page(found))

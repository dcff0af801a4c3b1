"""The page docs/systems_compared.md, written from what an ablation of conf/ablate_systems.yaml recorded.

python benchmarks/_systems_page.py
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ANSWERS, READS = "all", "all read-outs"
SURE = 0.001
"""p below which a difference from both baselines is marked; with 74 rows some small p come by chance."""

OPENING = """# Every token-stage system, side by side

Written by `benchmarks/_systems_page.py` from `benchmarks/results/systems.json` (commit `{commit}`, {cores} CPU
cores, {date}): `vxl ablate conf/ablate_systems.yaml` after `make demo`. {n} questions about {videos} held-out
videos with needles in real footage, one seed; embedded model, every row tuned for the same steps from one shared
warm-up. What the task is and what it does not show: [reading an ablation](read_an_ablation.md).

Of 512 cells a video, 32, 64 or 128 tokens reach the language model. **All answers** are the language model's,
**read-outs** what the compressed tokens name by themselves; standard errors are {least:.3f} to {most:.3f} (answers)
and {least_read:.3f} to {most_read:.3f} (read-outs). A star: better than `random` *and* `pool` at the same budget, p
< {sure} each (whole videos exchanged, not corrected for the number of rows). Chance is {chance:.3f} and
{chance_read:.3f}; uncompressed, {whole:.3f} and {whole_read:.3f}.

![Accuracy against tokens of every system](systems.png)

"""

CLOSING = """
## What to make of it

- The task rewards **keeping a small thing that is unlike what surrounds it**: a coloured shape on one frame of four
  seconds. Methods that look for components, changes or outliers (LLaVA-Scissor, EVS, DTD at two budgets, HoliTom,
  PruneVid, StreamingTOM, the tree) gain by that, at no training cost. It says nothing about captions or about long
  questions, where merging and slow-fast sampling were made to shine.
- **LLaVA-Scissor leads at 32 tokens.** Its components are exactly such needles, and few tokens probably leave little
  murmur for the language model to mistake for words; with more tokens its lead goes.
- **More tokens are not better** for most rows: the shared warm-up tells four tokens a group of four frames, so rows
  at 64 and 128 tokens are further from it. Compare within a column before comparing along a row; the read-outs,
  which need no language model, mostly rise.
- Trained compressors (`dts`, resamplers) had 50 steps here, with `dts + recot` 150 more of masked reconstruction.
  Of them `q_former` and `dts + recot` do best; `token_learner` and, at 64 and 128 tokens, `perceiver` have not
  learnt in that time.
- `uniform`, `slow_fast`, `moviechat`, `bipartite`, `clip_merge` and `vtm` average or drop a needle with what lies
  beside it at the smallest budget, as they would: none of them is made for this.
- A difference of less than about .06 in answers is within the noise of one seed.
"""


def page(recorded: dict[str, Any]) -> str:
    """The whole of docs/systems_compared.md.

    Args:
        recorded: ``results/systems.json``.
    """
    cells = {(r["variant"], r["lm_tokens"], r["task"]): r for r in recorded["results"] if r["task"] in (ANSWERS, READS)}
    plain = next(r for r in cells.values() if r["role"] == "uncompressed" and r["task"] == ANSWERS)
    read = next(r for r in cells.values() if r["role"] == "uncompressed" and r["task"] == READS)
    budgets = sorted({r["lm_tokens"] for r in cells.values() if r["role"] != "uncompressed"})
    names = list(dict.fromkeys(name for name, _, task in cells if name != plain["variant"]))

    def best(name: str) -> float:
        return max(r["mean"] for (one, _, task), r in cells.items() if one == name and task == ANSWERS)

    names.sort(key=best, reverse=True)
    errors = {task: [r["se"] for r in cells.values() if r["task"] == task] for task in (ANSWERS, READS)}
    text = OPENING.format(
        commit=recorded["commit"][:12], cores=recorded["device"]["cores"], date=recorded["date"][:10],
        n=plain["n"], videos=plain["videos"], sure=SURE, chance=plain["chance"], chance_read=read["chance"],
        whole=plain["mean"], whole_read=read["mean"], least=min(errors[ANSWERS]), most=max(errors[ANSWERS]),
        least_read=min(errors[READS]), most_read=max(errors[READS]),
    )  # fmt: skip
    took = {(t["variant"], t["retention"]): t for t in recorded["timings"]}
    head = ["system", *(f"{n} tokens: answers" for n in budgets), *(f"{n}: read-outs" for n in budgets), "compress, ms"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in names:
        shown = [_shown(cells.get((name, n, task))) for task in (ANSWERS, READS) for n in budgets]
        own = [took[name, r["retention"]]["compressor_ms"] for (one, _, _), r in cells.items() if one == name]
        lines.append("| " + " | ".join([f"`{name}`", *shown, f"{min(own):.1f}"]) + " |")
    return text + "\n".join(lines) + "\n" + CLOSING


def _shown(record: dict[str, Any] | None) -> str:
    if record is None:
        return "–"
    tests = (record["p_random"], record["p_pool"])
    gains = (record["minus_random"], record["minus_pool"])
    sure = all(p is not None and p < SURE for p in tests) and all(g is not None and g > 0 for g in gains)
    return f"{record['mean']:.3f}".lstrip("0") + (" \\*" if sure else "")


if __name__ == "__main__":
    found = json.loads((ROOT / "benchmarks" / "results" / "systems.json").read_text())
    (ROOT / "docs" / "systems_compared.md").write_text(page(found))

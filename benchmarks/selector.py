"""The query-aware selector from 64 to 2,048 groups, and against the full masked computation.

    python benchmarks/selector.py                  # all runs, writes results/selector.json
    python benchmarks/selector.py --groups 2048    # one run in this process

A group is 144 visual and 10 time tokens of hidden size 256; the question has 20 tokens. What is timed is the whole
`forward`: checks, scores, and the choice of an eighth of the tokens.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from _record import measure, peak_mib, record
from torch import Tensor

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.query_aware import QueryAwareSelector

GROUPS = (64, 256, 1024, 2048)
VISUAL, TIME, HIDDEN, QUESTION = 144, 10, 256, 20


def selector() -> QueryAwareSelector:
    torch.manual_seed(0)
    return QueryAwareSelector(QueryAwareSelector.Config(), dim=HIDDEN)


def inputs(groups: int) -> tuple[Candidates, Tensor]:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(groups, VISUAL, HIDDEN, generator=draw)
    time_text = torch.randn(groups, TIME, HIDDEN, generator=draw)
    return Candidates(features, torch.arange(float(groups)), time_text), torch.randn(QUESTION, HIDDEN, generator=draw)


def full_masked(module: QueryAwareSelector, c: Candidates, query: Tensor) -> Tensor:
    """Every visual token against every time token of the video, masked outside its group, question token by token."""
    assert c.time_features is not None
    (g, k, d), m, heads = c.features.shape, c.time_features.shape[1], module.config.heads
    split = (heads, d // heads)
    q = module.visual(c.features.reshape(g * k, d)).unflatten(-1, split).transpose(0, 1)
    key = module.time(c.time_features.reshape(g * m, d)).unflatten(-1, split).transpose(0, 1)
    value = module.value(c.time_features.reshape(g * m, d)).unflatten(-1, split).transpose(0, 1)
    own = torch.arange(g).repeat_interleave(k)[:, None] == torch.arange(g).repeat_interleave(m)
    attention = (q @ key.mT * (d // heads) ** -0.5).masked_fill(~own, float("-inf")).softmax(-1)
    gathered = module.out((attention @ value).transpose(0, 1).flatten(1))
    scores = (gathered @ F.gelu(module.text(query)).T).mean(1)
    return (scores - scores.min()) / (scores.max() - scores.min())


@torch.inference_mode()
def run(groups: int, repeats: int) -> dict[str, Any]:
    module, (candidates, query) = selector(), inputs(groups)
    budget = groups * VISUAL // 8
    module(candidates, query, budget)
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        module(candidates, query, budget)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    held = sum(t.numel() * 4 for t in (candidates.features, candidates.time_features) if t is not None) / 2**20
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": peak_mib(), "inputs_mib": held}


@torch.inference_mode()
def agree(groups: int = 16) -> dict[str, float]:
    module, (candidates, query) = selector(), inputs(groups)
    gap = (module.score(candidates, query) - full_masked(module, candidates, query)).abs().max().item()
    assert gap < 1e-5, gap
    return {"groups": groups, "largest_difference": gap}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, help="one measurement in this process")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that CPU seconds mean something on a busy machine
    if args.groups:
        print(json.dumps(run(args.groups, args.repeats)))
        return
    rows = []
    for groups in GROUPS:
        r = measure(__file__, "--groups", str(groups), "--repeats", str(args.repeats))
        medians = {k: statistics.median(r[k]) for k in ("wall_s", "cpu_s")}
        row = {"groups": groups, "frames": 4 * groups, **medians, "ms_per_group": 1000 * medians["wall_s"] / groups}
        rows.append(row | {"peak_mib": r["peak_mib"], "inputs_mib": r["inputs_mib"], "runs": r})
        print({k: round(v, 4) for k, v in rows[-1].items() if k != "runs"}, flush=True)
    shape = {"visual_tokens": VISUAL, "time_tokens": TIME, "hidden": HIDDEN, "question_tokens": QUESTION}
    print(record("selector", {"shape": shape, "equality": agree(), "sizes": rows}))


if __name__ == "__main__":
    main()

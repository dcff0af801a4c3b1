"""Relevant items that differ from one another: a determinantal point process along the segments of a video."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import GROUPS_AT_ONCE, relevance, rounded

BANDWIDTHS = tuple(2.0**power for power in range(-3, 2))
"""Of the Gaussians whose mean is the kernel."""

LEAST_VARIANCE = 1e-9
"""What is left of an item that those before it explain entirely, so that its logarithm is finite."""

GAIN_STEP = 1e-9
"""Gains closer than this are equal: the earliest of them wins."""


class Greedy(NamedTuple):
    """What the greedy choice finds in one segment, for each of J states.

    Attributes:
        picks: ``[J, A]`` positions in the segment, in the order of choice.
        gains: ``[J, A + 1]`` what the first 0, 1, .., A picks add to the objective.
    """

    picks: Tensor
    gains: Tensor


class MarkovDeterminantal(Selector):
    """Maximises relevance and volume, segment by segment, and how many items each segment gets (arXiv 2501.02885).

    With the kernel k(x, y) = mean over alpha in 2^-3..2^1 of exp(-|x - y|^2 / 2 alpha) of unit vectors, the relevance
    r_i = k(item, question) and S_ij = k(item, item), a selection C of a segment is worth

        2 / lambda * sum over C of log r  +  log det S[C + c] - log det S[c]

    where c is the latest item chosen before the segment, and nothing where there is none. The items of ``segment``
    candidates are chosen greedily by this gain, with a Cholesky factor that grows by a row each time; dynamic
    programming over the segments finds how many items each gets: for every number of items so far the best selection
    is kept. Costs O(candidates * budget * segment^2) at most, linear in the length of the video; float64 throughout.

    Follows the published definition with its constants: lambda 0.2 and segments of 32, conditioned on one item. Differs
    in that a kernel of weight 1 stands for the sum of five, which adds the same to the worth of every item and changes
    no choice, and in that relevance is measured on the model's own tokens: |x - y|^2 = 2 - 2 cos, where cos is
    `relevance` for the question and, between items, the cosine of their mean vectors.
    """

    origin = "MDP3, arXiv 2501.02885, github sunh-23/MDP3 (not seen); clean-room, from the published definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        trade_off: float = 0.2
        """The paper's lambda: diversity against relevance; relevance counts 2 / trade_off times as much as the
        determinant."""
        segment: int = 32
        """Candidates of a segment; the paper's value for all benchmarks."""

        def __post_init__(self) -> None:
            if not 0 < self.trade_off < math.inf:
                raise ValueError(f"trade_off={self.trade_off} must be above 0 and finite; the paper's is 0.2")
            if self.segment < 1:
                raise ValueError(f"segment={self.segment} must be at least 1; the paper's is 32")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return _kernel(relevance(candidates.features, query))

    def choose_from(self, candidates: Candidates, scores: Tensor, budget: int) -> Tensor:
        items = _mean_vectors(candidates.features)
        worth = 2 / self.config.trade_off * rounded(scores).log()
        size = self.config.segment
        # Of every number of items so far: the best objective, and its latest item, or -1.
        value, latest = torch.zeros(1, dtype=torch.float64), torch.full((1,), -1)
        trace: list[tuple[Tensor, Tensor]] = []
        for begin in range(0, len(items), size):
            here = items[begin : begin + size]
            found = _greedy(
                _kernel(here @ here.T),
                _kernel_with(items, latest, here),
                worth[begin : begin + size],
                min(budget, len(here)),
            )
            value, latest, taken = _allocate(value, latest, found, begin, budget)
            trace.append((found.picks.to(torch.int32), taken))
        chosen = _backtrack(trace, budget, size)
        return chosen.sort().values.to(scores.device)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"segment": 4}, {"trade_off": 5.0, "segment": 5}]


def _kernel(cosine: Tensor) -> Tensor:
    """The kernel of unit vectors with these cosines."""
    distance = (2 - 2 * cosine).clamp(min=0)
    return torch.stack([torch.exp(-distance / (2 * alpha)) for alpha in BANDWIDTHS]).mean(0)


def _mean_vectors(features: Tensor) -> Tensor:
    """``[G, D]`` float64 on the CPU: the direction of each item's mean vector."""
    with torch.no_grad():
        means = torch.cat([some.float().mean(1) for some in features.split(GROUPS_AT_ONCE)])
        return F.normalize(means.cpu().double(), dim=-1)


def _kernel_with(items: Tensor, latest: Tensor, here: Tensor) -> Tensor:
    """``[J, m]``: the kernel of the item ``latest`` of each state with those ``here``; 0 where it is -1."""
    some, which = latest.unique(return_inverse=True)
    return torch.where(some[:, None] >= 0, _kernel(items[some] @ here.T), 0.0)[which]


def _greedy(kernel: Tensor, condition: Tensor, worth: Tensor, count: int) -> Greedy:
    """Choose ``count`` items of a segment one by one, in each state after another item.

    Args:
        kernel: ``[m, m]`` of the items here.
        condition: ``[J, m]`` of the item to condition on with those here, 0 where there is none.
        worth: ``[m]`` what an item adds by its relevance.
        count: items to choose, at most m.
    """
    states, m = condition.shape
    every = torch.arange(states)
    # Of the Cholesky factor; the first is the condition's, whose own entry is 1.
    rows = torch.zeros(states, count + 1, m, dtype=torch.float64)
    rows[:, 0] = condition
    variance = kernel.diagonal() - rows[:, 0].square()
    free = torch.ones(states, m, dtype=torch.bool)
    picks = torch.zeros(states, count, dtype=torch.long)
    gains = torch.zeros(states, count + 1, dtype=torch.float64)
    for step in range(count):
        gain = variance.clamp(min=LEAST_VARIANCE).log() + worth
        comparable = (gain / GAIN_STEP).round().masked_fill(~free, float("-inf"))
        pick = comparable.argmax(1)
        picks[:, step] = pick
        gains[:, step + 1] = gains[:, step] + gain[every, pick]
        free[every, pick] = False
        known = rows[:, : step + 1]
        explained = (known[every, :, pick][:, None] @ known)[:, 0]
        scale = variance[every, pick].clamp(min=LEAST_VARIANCE).sqrt()
        rows[:, step + 1] = (kernel[pick] - explained) / scale[:, None]
        variance = variance - rows[:, step + 1].square()
    return Greedy(picks, gains)


def _allocate(value: Tensor, latest: Tensor, found: Greedy, begin: int, budget: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every number of items after this segment: its best value, its latest item, and how many are from here."""
    count = found.picks.shape[1]
    total = torch.arange(min(budget, len(value) - 1 + count) + 1)
    here = torch.arange(count + 1)
    earlier = total - here[:, None]
    possible = (earlier >= 0) & (earlier < len(value))
    state = earlier.clamp(0, len(value) - 1)
    values = torch.where(possible, value[state] + found.gains[state, here[:, None]], float("-inf"))
    # The first of equal values: the fewest here, so that earlier segments have more.
    taken = (values / GAIN_STEP).round().argmax(0)
    came_from = total - taken
    newest = torch.cat([latest[:, None], begin + found.picks.cummax(1).values], 1)
    return values[taken, total], newest[came_from, taken], taken


def _backtrack(trace: list[tuple[Tensor, Tensor]], budget: int, size: int) -> Tensor:
    chosen = []
    left = budget
    for segment in range(len(trace) - 1, -1, -1):
        picks, taken = trace[segment]
        here = int(taken[left])
        left -= here
        chosen.append(segment * size + picks[left, :here].long())
    return torch.cat(chosen)

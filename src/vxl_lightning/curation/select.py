"""What fits a budget of tokens: a pure function of columns, settings and seed.

Ours; the parts are the field's: strata and floors as in GDO (arXiv 2603.12478), score for cost as in any knapsack, and
``random`` at the same budget always beside it, because several published selections do not beat it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vxl_lightning.curation.recipe import SelectSettings
from vxl_lightning.curation.verdicts import Flags

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DURATIONS = (30.0, 60.0, 180.0, 600.0, 3600.0)
DURATION_NAMES = ("under 30 s", "30 to 60 s", "1 to 3 min", "3 to 10 min", "10 to 60 min", "over 1 h")


@dataclass(frozen=True)
class Columns:
    """What selection knows of every sample, each ``[N]``.

    Attributes:
        kept: samples that passed every rule.
        forced: samples that an override keeps, whatever they cost.
        media: index of the video.
        tokens: cost in grid tokens.
        duration: seconds.
        stratum: index of the stratum.
        value: how much a sample is worth, at least 0.
        questions: question-answer pairs.
    """

    kept: Flags
    forced: Flags
    media: Ints
    tokens: Ints
    duration: Floats
    stratum: Ints
    value: Floats
    questions: Ints


@dataclass(frozen=True)
class Selected:
    """The choice: ``kept [N]``, and the samples that the cap on questions alone took out ``capped [N]``."""

    kept: Flags
    capped: Flags


def duration_bucket(seconds: Floats) -> Ints:
    """Index into `DURATION_NAMES`; unknown durations count as shortest."""
    return np.searchsorted(DURATIONS, np.nan_to_num(seconds), side="right").astype(np.int64)


def token_cost(duration: Floats, settings: SelectSettings) -> Ints:
    """Grid tokens of videos of some seconds; 0 where the duration is unknown."""
    frames = np.clip(np.ceil(np.nan_to_num(duration) * settings.fps - 1e-3), 1, settings.max_frames)
    return np.where(np.isnan(duration), 0, frames * settings.tokens_per_frame).astype(np.int64)


def select(columns: Columns, settings: SelectSettings, total_tokens: int, seed: int) -> Selected:
    """Choose samples within the budget.

    The budget counts every sample's video once a sample, because that is what training on it costs. Floors are filled
    first; then strata share what is left in proportion to the square root of their tokens, so that rare ones are not
    lost among common ones, and inside a stratum the best value for a token goes first.

    Args:
        columns: of all samples.
        settings: strategy, budget, floors, cap.
        total_tokens: of all samples that were read and could be used; a fractional budget is of these.
        seed: breaks ties, and is the order of ``random``.
    """
    count = len(columns.kept)
    luck = np.random.default_rng(seed).permutation(count)
    if settings.strategy == "all":
        return Selected(columns.kept.copy(), np.zeros(count, dtype=bool))
    budget = settings.budget * total_tokens if settings.budget <= 1 else settings.budget
    worth = columns.value / np.maximum(columns.tokens, 1)
    if settings.strategy == "random":
        worth = np.ones(count)
    order = np.lexsort((luck, -worth))
    order = order[columns.kept[order]]
    capped = _over_cap(order, columns, settings.questions_per_video if settings.strategy == "stratified" else 0)
    order = order[~capped[order]]
    chosen = columns.forced & columns.kept
    left = budget - float(columns.tokens[chosen].sum())
    if settings.strategy == "random":
        _fill(order[~chosen[order]], columns.tokens, left, chosen)
        return Selected(chosen, capped)
    for seconds, floor in ((600.0, settings.minutes_10), (180.0, settings.minutes_3)):
        long = columns.duration > seconds
        have = float(columns.tokens[chosen & long].sum())
        pool = order[(long & ~chosen)[order]]
        left -= _spread(pool, columns, min(floor * budget - have, left), chosen)
    _spread(order[~chosen[order]], columns, left, chosen)
    return Selected(chosen, capped)


def _over_cap(order: Ints, columns: Columns, cap: int) -> Flags:
    """Samples whose video has enough questions from better ones."""
    over = np.zeros(len(columns.kept), dtype=bool)
    if cap == 0 or len(order) == 0:
        return over
    # Those that an override keeps come first, then the best.
    ranked = order[np.argsort(~columns.forced[order], kind="stable")]
    by_video = ranked[np.argsort(columns.media[ranked], kind="stable")]
    # One video after the other, best first: what does not fit is passed over, and a smaller one behind it may.
    video, asked = -1, 0
    for row, here, count in zip(
        by_video.tolist(), columns.media[by_video].tolist(), columns.questions[by_video].tolist(), strict=True
    ):
        if here != video:
            video, asked = here, 0
        # The first sample of a video stays, however many questions it has.
        if asked and asked + count > cap and not columns.forced[row]:
            over[row] = True
        else:
            asked += count
    return over


def _spread(pool: Ints, columns: Columns, budget: float, chosen: Flags) -> float:
    """Take from a pool, best first, within the budget shared over its strata; gives the tokens taken."""
    if budget <= 0 or len(pool) == 0:
        return 0.0
    cost = columns.tokens
    strata = columns.stratum[pool]
    names, which = np.unique(strata, return_inverse=True)
    available = np.bincount(which, cost[pool].astype(np.float64), len(names)).astype(np.float64)
    shares = _shares(available, budget)
    taken = 0.0
    for stratum, share in enumerate(shares):
        taken += _fill(pool[which == stratum], cost, float(share), chosen)
    # What whole samples left of the shares goes to the best of the rest.
    return taken + _fill(pool[~chosen[pool]], cost, budget - taken, chosen)


def _shares(available: Floats, budget: float) -> Floats:
    """The budget in proportion to square roots, none given more than it has: what is over goes to the others."""
    shares = np.zeros(len(available))
    open_ = available > 0
    while open_.any():
        weights = np.where(open_, np.sqrt(available), 0)
        offer = (budget - shares[~open_].sum()) * weights / weights.sum()
        full = open_ & (offer >= available)
        if not full.any():
            shares[open_] = offer[open_]
            break
        shares[full] = available[full]
        open_ &= ~full
    return shares


def _fill(order: Ints, cost: Ints, budget: float, chosen: Flags) -> float:
    """Take in order what fits, the smaller ones behind a sample that does not fit included; gives the tokens taken."""
    if budget <= 0 or len(order) == 0:
        return 0.0
    costs = cost[order]
    running = np.cumsum(costs)
    whole = int(np.searchsorted(running, budget, side="right"))
    chosen[order[:whole]] = True
    taken = float(running[whole - 1]) if whole else 0.0
    for row, one in zip(order[whole:].tolist(), costs[whole:].tolist(), strict=True):
        if one <= budget - taken:
            chosen[row] = True
            taken += one
    return taken

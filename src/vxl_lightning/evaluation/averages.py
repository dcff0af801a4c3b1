"""Averages of judgements, with standard errors clustered by video: questions of one video are not independent."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vxl_lightning.ablation.statistics import clustered_mean
from vxl_lightning.evaluation.base import Figure, Judged

__all__ = ["macro", "micro", "shares", "together"]


def score(judged: Judged) -> float:
    """What is averaged where nothing else is said."""
    return judged.judgement.score


def micro(
    name: str,
    judged: Sequence[Judged],
    *,
    value: Callable[[Judged], float] = score,
    unit: str = "accuracy",
    headline: bool = False,
) -> Figure:
    """The mean over all questions; NaN where there are none."""
    if not judged:
        return Figure(name, float("nan"), float("nan"), 0, unit, headline)
    values = np.array([value(j) for j in judged])
    mean, se = clustered_mean(values, [j.question.video for j in judged])
    return Figure(name, mean, se, len(judged), unit, headline, shares(judged, values / len(values)))


def macro(
    name: str,
    judged: Sequence[Judged],
    by: str,
    *,
    value: Callable[[Judged], float] = score,
    unit: str = "accuracy",
    headline: bool = False,
) -> Figure:
    """The mean of the means of the groups of the category ``by``, each group counting the same; ``n`` counts questions.

    Its standard error is that of a weighted mean, with the same clusters of videos across groups.
    """
    if not judged:
        return Figure(name, float("nan"), float("nan"), 0, unit, headline)
    values = np.array([value(j) for j in judged])
    groups, which = np.unique([j.question.categories[by] for j in judged], return_inverse=True)
    sizes = np.bincount(which)
    means = np.bincount(which, weights=values) / sizes
    # A question weighs 1 / (groups x size of its group); clustered_mean divides by the number of questions again.
    residuals = (values - means[which]) * len(values) / (len(groups) * sizes[which])
    _, se = clustered_mean(residuals, [j.question.video for j in judged])
    weighted = values / (len(groups) * sizes[which])
    return Figure(name, float(means.mean()), se, len(values), unit, headline, shares(judged, weighted))


def shares(judged: Sequence[Judged], weighted: NDArray[np.float64]) -> dict[str, float]:
    """Question's id -> the sum of its terms of a mean; a question may have several."""
    found: dict[str, float] = {}
    for j, term in zip(judged, weighted.tolist(), strict=True):
        found[j.question.id] = found.get(j.question.id, 0.0) + term
    return found


def together(judged: Sequence[Judged]) -> list[Judged]:
    """One for each bundle, as its first question with its worst judgement; questions that stand alone stay as they
    are."""
    bundles: dict[str, Judged] = {}
    for j in judged:
        key = j.question.bundle or f"\x00{j.question.id}"  # no bundle has the name of a question that stands alone
        seen = bundles.get(key)
        if seen is None:
            bundles[key] = j
        elif j.judgement.score < seen.judgement.score:
            bundles[key] = replace(seen, reply=j.reply, judgement=j.judgement)
    return list(bundles.values())

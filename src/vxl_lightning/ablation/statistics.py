"""Accuracies with standard errors, chance levels and paired tests, all from one table of answers.

The table is question level: one row per (variant, retention, seed, question), with the columns of
`PREDICTION_COLUMNS`. The mathematics of the tests is scipy's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Row = tuple[str, float]
"""A row of the ablation's table: (variant, retention)."""

PREDICTION_COLUMNS = (
    "variant",
    "retention",
    "seed",
    "video",
    "question_id",
    "task",
    "question",
    "choices",
    "answer",
    "prediction",
    "correct",
)

ALL_TASKS = "all"
"""Name under which the accuracy over all questions that were answered is reported."""

READ = "read "
"""Beginning of the tasks that are read-outs (`models.read_out`), which nobody answered."""

PAIRED_TEST = "sign-flip permutation by video"
"""How rows are compared."""

ALL_READS = "all read-outs"
"""Name under which the accuracy over all read-outs is reported."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one row on one task.

    Attributes:
        n: questions, counted once however many seeds answered them.
        videos: videos these questions come from.
        mean: over questions and seeds.
        se: standard error over the sampled questions, clustered by video (questions of one video
            share its footage and its tokens, so they are not independent).
        seeds: seeds averaged.
        se_seeds: standard error of the mean over seeds; NaN with one seed.
    """

    variant: str
    retention: float
    task: str
    n: int
    videos: int
    mean: float
    se: float
    seeds: int
    se_seeds: float


@dataclass(frozen=True)
class Chance:
    """What can be had without watching: ``uniform`` guesses, ``majority`` always says the commonest answer."""

    task: str
    n: int
    uniform: float
    majority: float


@dataclass(frozen=True)
class Comparison:
    """A paired test of row ``a`` against row ``b`` on the same questions; ``difference`` is mean(a) - mean(b)."""

    a: Row
    b: Row
    task: str
    n: int
    difference: float
    p: float
    test: str

    def turned(self) -> "Comparison":
        """Row ``b`` against row ``a``."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference)


def clustered_mean(values: Array, clusters: Sequence[str]) -> tuple[float, float]:
    """Mean of ``values [n]`` and its cluster-robust standard error.

    The estimator of Liang and Zeger (1986) for a mean: residuals are summed within a cluster before
    they are squared, with the G/(G-1) correction for G clusters. With every value a cluster of its
    own it is the usual standard error.
    """
    mean = float(values.mean())
    names, which = np.unique(np.asarray(clusters), return_inverse=True)
    groups = len(names)
    if groups < 2:
        return mean, float("nan")
    sums = np.bincount(which, weights=values - mean, minlength=groups)
    return mean, float(np.sqrt(groups / (groups - 1) * np.square(sums).sum()) / len(values))


def sign_flip(differences: Array, clusters: Sequence[str], resamples: int = 9999) -> float:
    """Two-sided permutation p-value that paired ``differences [n]`` have mean zero.

    Under the null the two rows may be exchanged; they are exchanged for all questions of a video
    together. The resampling has a fixed seed, so the same answers give the same p.
    """
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(which, weights=differences)
    sums = sums[np.abs(sums) > 1e-12]  # exchanging equals changes nothing
    if len(sums) < 2:  # one exchange can only turn the difference round, which is no surprise
        return 1.0

    def statistic(x: Array, axis: int = -1) -> Any:
        # Rounded: sums in another order must tie with the observed one.
        return np.round(x.sum(axis=axis), 9)

    test = stats.permutation_test(
        (sums,), statistic, permutation_type="samples", n_resamples=resamples, vectorized=True, batch=500, axis=-1,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def answers_by_row(predictions: Iterable[dict[str, Any]]) -> dict[Row, list[dict[str, Any]]]:
    """The table, row by row."""
    rows: dict[Row, list[dict[str, Any]]] = {}
    for p in predictions:
        rows.setdefault((p["variant"], p["retention"]), []).append(p)
    return rows


def tasks_of(predictions: Iterable[dict[str, Any]]) -> list[str]:
    """The tasks in order of first appearance and `ALL_TASKS`, then the read-outs and `ALL_READS` if there are any."""
    found = dict.fromkeys(p["task"] for p in predictions)
    reads = [task for task in found if task.startswith(READ)]
    return [*(t for t in found if t not in reads), ALL_TASKS, *reads, *([ALL_READS] if reads else [])]


def _counts_for(task: str, of_question: str) -> bool:
    """Whether a question of one task counts for a task or a total."""
    read = of_question.startswith(READ)
    return task == of_question or (task == ALL_TASKS and not read) or (task == ALL_READS and read)


@dataclass(frozen=True)
class _Scores:
    """``value [n, S]``: right (1) or wrong (0) for every question and seed, questions in a fixed order."""

    questions: list[str]
    videos: list[str]
    value: Array


def _scores(predictions: list[dict[str, Any]], task: str) -> _Scores:
    chosen = [p for p in predictions if _counts_for(task, p["task"])]
    seeds = sorted({p["seed"] for p in chosen})
    video = {p["question_id"]: p["video"] for p in chosen}
    questions = sorted(video)
    row, column = {q: i for i, q in enumerate(questions)}, {s: i for i, s in enumerate(seeds)}
    value = np.full((len(questions), len(seeds)), np.nan)
    for p in chosen:
        value[row[p["question_id"]], column[p["seed"]]] = float(p["correct"])
    assert not np.isnan(value).any(), "every seed of a row answers every question"
    return _Scores(questions, [video[q] for q in questions], value)


def accuracies(predictions: Sequence[dict[str, Any]]) -> list[Accuracy]:
    """Accuracy of every row on every task and on all together."""
    result = []
    for (variant, retention), answers in answers_by_row(predictions).items():
        for task in tasks_of(answers):
            s = _scores(answers, task)
            mean, se = clustered_mean(s.value.mean(1), s.videos)
            n_seeds = s.value.shape[1]
            se_seeds = float(stats.sem(s.value.mean(0))) if n_seeds > 1 else float("nan")
            result.append(
                Accuracy(variant, retention, task, len(s.questions), len(set(s.videos)), mean, se, n_seeds, se_seeds)
            )
    return result


def chances(predictions: Sequence[dict[str, Any]]) -> list[Chance]:
    """Chance levels of each task, from the questions' own choices and true answers."""
    questions = {p["question_id"]: p for p in predictions}
    result: list[Chance] = []
    for task in tasks_of(predictions):
        chosen = [p for p in questions.values() if _counts_for(task, p["task"])]
        uniform = float(np.mean([1 / len(p["choices"]) for p in chosen]))
        if task in (ALL_TASKS, ALL_READS):  # one guess for all tasks would be meaningless: the per-task ones, pooled
            majority = sum(c.majority * c.n for c in result if _counts_for(task, c.task)) / len(chosen)
        else:
            _, counts = np.unique([p["answer"] for p in chosen], return_counts=True)
            majority = float(counts.max() / len(chosen))
        result.append(Chance(task, len(chosen), uniform, majority))
    return result


def compare(rows: Mapping[Row, list[dict[str, Any]]], a: Row, b: Row) -> list[Comparison]:
    """Paired tests of row ``a`` against row ``b``, per task and over all.

    Per-question means over the seeds, with `sign_flip`: questions of one video share its footage and its tokens, so
    whole videos are exchanged. No correction for the number of comparisons is made; a reader who scans many
    should make one.

    Args:
        rows: `answers_by_row`.
    """
    result = []
    for task in tasks_of(rows[a]):
        x, y = _scores(rows[a], task), _scores(rows[b], task)
        assert x.questions == y.questions, "rows of one ablation answer the same questions"
        mean_x, mean_y = x.value.mean(1), y.value.mean(1)
        p = sign_flip(mean_x - mean_y, x.videos)
        result.append(Comparison(a, b, task, len(x.questions), float((mean_x - mean_y).mean()), p, PAIRED_TEST))
    return result

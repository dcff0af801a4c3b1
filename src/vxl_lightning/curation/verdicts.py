"""What every rule says of every sample, in the order of the rules: the first that a sample fails decides.

A rule sees the samples that are still there. With mode ``score`` it is counted and reported, and drops nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vxl_lightning.curation.recipe import Limit, Mode, Rule

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
KEEP, DROP, QUARANTINE = 0, 1, 2
RULES = pa.schema(
    [
        ("rule", pa.string()),
        ("stage", pa.string()),
        ("mode", pa.string()),
        ("threshold", pa.float64()),
        ("quantile", pa.float64()),
        ("higher_is_worse", pa.bool_()),
        ("reached", pa.int64()),
        ("failed", pa.int64()),
    ]
)
SCORES = pa.schema([("row", pa.int64()), ("rule", pa.string()), ("score", pa.float64())])


@dataclass(frozen=True, slots=True)
class Fault:
    """More about a sample that fails a rule, where there is more to say."""

    detail: str | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True)
class Applied:
    """A rule that was applied.

    Attributes:
        rule: its name.
        stage: which stage it belongs to.
        mode: whether it dropped what failed.
        reached: samples that were still there.
        failed: those of them that failed.
        score: ``[N]`` what it compared, NaN for samples that have none; None for a rule that finds a fault or does not.
        threshold: where it began to fail samples.
        quantile: the fraction that the threshold came from, where it did.
        higher_is_worse: on which side of the threshold samples fail.
    """

    rule: str
    stage: str
    mode: Mode
    reached: int
    failed: int
    score: Floats | None = None
    threshold: float | None = None
    quantile: float | None = None
    higher_is_worse: bool = True


class Verdicts:
    """The state of ``count`` samples, all kept to begin with.

    Args:
        count: samples.
        protected: samples that rules may not drop (an override); what cannot be read is quarantined all the same.

    Attributes:
        state: ``[N]`` `KEEP`, `DROP` or `QUARANTINE`.
        rule: ``[N]`` index into ``applied`` of the rule that decided, -1 for samples that are kept.
        saved: ``[N]`` samples that a rule would have dropped.
        faults: more about samples that failed the rule that decided.
        applied: the rules, in order.
    """

    def __init__(self, count: int, protected: Flags) -> None:
        self.state = np.full(count, KEEP, dtype=np.int8)
        self.rule = np.full(count, -1, dtype=np.int16)
        self.protected = protected
        self.saved = np.zeros(count, dtype=bool)
        self.faults: dict[int, Fault] = {}
        self.applied: list[Applied] = []

    @property
    def kept(self) -> Flags:
        """``[N]`` samples that no rule has taken out so far."""
        kept: Flags = self.state == KEEP
        return kept

    def quarantine(self, rule: str, stage: str, faults: Mapping[int, Fault]) -> None:
        """Set samples aside that cannot be used, by row."""
        failed = np.zeros(len(self.state), dtype=bool)
        failed[list(faults)] = True
        self._apply(rule, stage, "enforce", failed, faults, QUARANTINE)

    def find(
        self, rule: str, stage: str, setting: Rule, failed: Flags, faults: Mapping[int, Fault] | None = None
    ) -> None:
        """A rule that finds a fault or does not."""
        if setting.mode != "off":
            self._apply(rule, stage, setting.mode, failed, faults or {}, DROP)

    def limit(
        self,
        rule: str,
        stage: str,
        setting: Limit,
        score: Floats,
        higher_is_worse: bool,
        inclusive: bool = False,
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        """A rule that compares a score; NaN is a sample that has none and passes.

        Args:
            inclusive: the threshold itself fails too.
        """
        if setting.mode == "off":
            return
        score = np.where(self.kept, score, np.nan)
        threshold = setting.threshold
        if threshold is None:
            assert setting.quantile is not None
            # A value that occurs; ties with it pass.
            ranked = np.sort(score[~np.isnan(score)])
            quantile = 1 - setting.quantile if higher_is_worse else setting.quantile
            threshold = float(ranked[round(quantile * (len(ranked) - 1))]) if len(ranked) else float("nan")
        with np.errstate(invalid="ignore"):
            failed = score > threshold if higher_is_worse else score < threshold
            failed |= inclusive & (score == threshold)
        self._apply(
            rule, stage, setting.mode, failed, faults or {}, DROP, score, threshold, setting.quantile, higher_is_worse
        )

    def _apply(
        self, rule: str, stage: str, mode: Mode, failed: Flags, faults: Mapping[int, Fault], state: int,
        score: Floats | None = None, threshold: float | None = None, quantile: float | None = None,
        higher_is_worse: bool = True,
    ) -> None:  # fmt: skip
        kept = self.kept
        failing = kept & failed
        counts = int(kept.sum()), int(failing.sum())
        self.applied.append(Applied(rule, stage, mode, *counts, score, threshold, quantile, higher_is_worse))
        if mode != "enforce":
            return
        if state == DROP:
            self.saved |= failing & self.protected
            failing &= ~self.protected
        self.state[failing] = state
        self.rule[failing] = len(self.applied) - 1
        self.faults |= {row: fault for row, fault in faults.items() if failing[row]}

    def rules_table(self) -> pa.Table:
        """The rules in order, with the thresholds they came to."""
        return pa.Table.from_pylist([{name: getattr(a, name) for name in RULES.names} for a in self.applied], RULES)

    def scores_table(self) -> pa.Table:
        """Every score that a rule compared, whether it was enforced or not."""
        parts = []
        for applied in self.applied:
            if applied.score is not None:
                rows = np.flatnonzero(~np.isnan(applied.score))
                names = pa.array([applied.rule] * len(rows), pa.string())
                parts.append(pa.table([pa.array(rows), names, pa.array(applied.score[rows])], schema=SCORES))
        return pa.concat_tables(parts) if parts else SCORES.empty_table()

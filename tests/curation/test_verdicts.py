import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.curation.recipe import Limit, Rule
from vxl_lightning.curation.verdicts import DROP, KEEP, QUARANTINE, Fault, Verdicts


def flags(*rows: int, count: int = 5) -> np.ndarray:
    out = np.zeros(count, dtype=bool)
    out[list(rows)] = True
    return out


def test_the_first_rule_decides() -> None:
    verdicts = Verdicts(5, flags())
    verdicts.quarantine("broken", "probe", {0: Fault("torn")})
    verdicts.find("one", "a", Rule(), flags(0, 1))
    verdicts.find("two", "a", Rule(), flags(1, 2))
    assert verdicts.state.tolist() == [QUARANTINE, DROP, DROP, KEEP, KEEP]
    assert [verdicts.applied[r].rule if r >= 0 else None for r in verdicts.rule] == ["broken", "one", "two", None, None]
    assert [(a.reached, a.failed) for a in verdicts.applied] == [(5, 1), (4, 1), (3, 1)]


def test_score_drops_nothing_and_off_says_nothing() -> None:
    verdicts = Verdicts(5, flags())
    verdicts.find("counted", "a", Rule(mode="score"), flags(0, 1))
    verdicts.find("silent", "a", Rule(mode="off"), flags(2))
    assert verdicts.kept.all() and [(a.rule, a.failed) for a in verdicts.applied] == [("counted", 2)]


def test_an_override_outranks_rules_but_not_what_cannot_be_read() -> None:
    verdicts = Verdicts(5, flags(0, 1))
    verdicts.quarantine("broken", "probe", {0: Fault("torn")})
    verdicts.find("one", "a", Rule(), flags(0, 1, 2))
    assert verdicts.state.tolist() == [QUARANTINE, KEEP, DROP, KEEP, KEEP]
    assert verdicts.saved.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(("higher", "dropped"), [(True, [3, 4]), (False, [0, 1])])
def test_thresholds(higher: bool, dropped: list[int]) -> None:
    verdicts = Verdicts(5, flags())
    verdicts.limit("score", "a", Limit(threshold=2.0), np.arange(5.0), higher)
    assert np.flatnonzero(verdicts.state == DROP).tolist() == dropped


def test_a_threshold_may_fail_itself() -> None:
    verdicts = Verdicts(5, flags())
    verdicts.limit("score", "a", Limit(threshold=2.0), np.arange(5.0), True, inclusive=True)
    assert np.flatnonzero(verdicts.state == DROP).tolist() == [2, 3, 4]


def test_a_sample_without_a_score_passes() -> None:
    verdicts = Verdicts(2, flags(count=2))
    verdicts.limit("score", "a", Limit(threshold=2.0), np.array([np.nan, 3.0]), True)
    assert verdicts.state.tolist() == [KEEP, DROP]
    assert verdicts.scores_table().to_pylist() == [{"row": 1, "rule": "score", "score": 3.0}]


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=40),
    st.floats(0, 1),
    st.booleans(),
)
def test_a_quantile_fails_at_most_its_share_and_states_its_threshold(
    scores: list[float], quantile: float, higher: bool
) -> None:
    verdicts = Verdicts(len(scores), flags(count=len(scores)))
    verdicts.limit("score", "a", Limit(quantile=quantile), np.array(scores), higher)
    (rule,) = verdicts.rules_table().to_pylist()
    assert rule["threshold"] in scores and rule["failed"] <= quantile * len(scores) + 1
    worse = [s > rule["threshold"] if higher else s < rule["threshold"] for s in scores]
    assert (verdicts.state == DROP).tolist() == worse


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "sometimes"}, {"threshold": 1.0, "quantile": 0.5}, {}, {"quantile": 2.0}, {"threshold": float("nan")}],
)
def test_limits_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Limit(**wrong)  # type: ignore[arg-type]

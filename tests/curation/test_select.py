import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vxl_lightning.curation.recipe import SelectSettings
from vxl_lightning.curation.select import Columns, duration_bucket, select, token_cost


def columns(count: int, seed: int = 0, **changes: np.ndarray) -> Columns:
    random = np.random.default_rng(seed)
    media = random.integers(0, max(count // 3, 1), count)
    duration = random.choice([10.0, 100.0, 400.0, 1000.0], max(count // 3, 1))[media]
    values: dict[str, np.ndarray] = {
        "kept": random.random(count) < 0.8,
        "forced": np.zeros(count, dtype=bool),
        "media": media,
        "tokens": token_cost(duration, SelectSettings()),
        "duration": duration,
        "stratum": random.integers(0, 4, count),
        "value": random.random(count),
        "questions": random.integers(1, 3, count),
    }
    return Columns(**values | changes)


def test_buckets_and_costs() -> None:
    seconds = np.array([np.nan, 0.0, 29.9, 30.0, 200.0, 4000.0])
    assert duration_bucket(seconds).tolist() == [0, 0, 0, 1, 3, 5]
    asked = SelectSettings(fps=1, max_frames=512, tokens_per_frame=64)
    assert token_cost(np.array([np.nan, 0.5, 8.0, 8.2, 1e6]), asked).tolist() == [0, 64, 512, 576, 512 * 64]


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.floats(0.001, 1),
    st.sampled_from(["stratified", "random", "all"]),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_the_budget_the_cap_and_what_was_dropped_are_respected(
    count: int, budget: float, strategy: str, seed: int, cap: int
) -> None:
    given_, asked = columns(count, seed), SelectSettings(strategy=strategy, budget=budget, questions_per_video=cap)  # type: ignore[arg-type]
    total = int(given_.tokens.sum())
    found = select(given_, asked, total, seed)
    assert not (found.kept & ~given_.kept).any() and not (found.kept & found.capped).any()
    if strategy == "all":
        assert (found.kept == given_.kept).all()
    else:
        assert given_.tokens[found.kept].sum() <= budget * total
        left = given_.kept & ~found.kept & ~found.capped
        room = budget * total - given_.tokens[found.kept].sum()
        assert not left.any() or given_.tokens[left].min() > room, "nothing that fits is left behind"
    if strategy == "stratified" and cap:
        for video in np.unique(given_.media[found.kept]):
            mine = found.kept & (given_.media == video)
            assert given_.questions[mine].sum() <= cap or mine.sum() == 1
    again = select(given_, asked, total, seed)
    assert (again.kept == found.kept).all()


def test_floors_are_filled_as_far_as_there_is_anything() -> None:
    count = 400
    duration = np.repeat([10.0, 1000.0], count // 2)
    given_ = columns(
        count, kept=np.ones(count, dtype=bool), media=np.arange(count), duration=duration,
        tokens=np.full(count, 100), value=np.where(duration > 600, 0.01, 1.0), stratum=np.zeros(count, dtype=int),
    )  # fmt: skip
    without = select(given_, SelectSettings(budget=0.25), count * 100, 0).kept
    assert not (without & (duration > 600)).any(), "the best values are all short"
    held = select(given_, SelectSettings(budget=0.25, minutes_10=0.4), count * 100, 0).kept
    assert (held & (duration > 600)).sum() == 40 and held.sum() == 100


def test_rare_strata_are_not_lost() -> None:
    count = 1000
    stratum = np.zeros(count, dtype=int)
    stratum[:10] = 1
    given_ = columns(
        count, kept=np.ones(count, dtype=bool), media=np.arange(count), tokens=np.full(count, 10), stratum=stratum,
        value=np.where(stratum == 1, 0.1, 1.0),
    )  # fmt: skip
    kept = select(given_, SelectSettings(budget=0.1), count * 10, 0).kept
    assert 5 <= kept[:10].sum() <= 10 and kept.sum() == 100


def test_inside_a_stratum_the_best_for_a_token_goes_first() -> None:
    given_ = columns(
        4, kept=np.ones(4, dtype=bool), media=np.arange(4), tokens=np.array([10, 10, 40, 10]),
        stratum=np.zeros(4, dtype=int), value=np.array([1.0, 3.0, 8.0, 2.0]),
    )  # fmt: skip
    assert np.flatnonzero(select(given_, SelectSettings(budget=20), 70, 0).kept).tolist() == [1, 3]


def test_the_cap_passes_over_what_does_not_fit() -> None:
    given_ = columns(
        3, kept=np.ones(3, dtype=bool), media=np.zeros(3, dtype=int), tokens=np.full(3, 10),
        stratum=np.zeros(3, dtype=int), value=np.array([3.0, 2.0, 1.0]), questions=np.array([1, 20, 1]),
    )  # fmt: skip
    assert select(given_, SelectSettings(budget=1.0), 30, 0).kept.tolist() == [True, False, True]


def test_an_override_is_kept_beyond_the_cap_and_first_in_the_budget() -> None:
    forced = np.array([False, False, True])
    given_ = columns(
        3, kept=np.ones(3, dtype=bool), forced=forced, media=np.zeros(3, dtype=int), tokens=np.full(3, 10),
        value=np.array([3.0, 2.0, 0.0]), questions=np.ones(3, dtype=int), stratum=np.zeros(3, dtype=int),
    )  # fmt: skip
    found = select(given_, SelectSettings(budget=10, questions_per_video=1), 30, 0)
    assert found.kept.tolist() == [False, False, True]

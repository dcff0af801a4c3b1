"""Averages by hand-computed examples."""

import math

import numpy as np
import pytest

from vxl_lightning.evaluation.averages import macro, micro, together
from vxl_lightning.evaluation.base import Judged, Judgement, Question


def judged(score: float, video: str = "v", task: str = "t", bundle: str = "", name: str = "") -> Judged:
    question = Question(
        id=name or f"{video}{task}{score}", video=video, text="", answer="A", categories={"task": task}, bundle=bundle
    )
    return Judged(question, "A", Judgement(score, "A", {"iou": score / 2}))


def test_micro_counts_questions_and_macro_counts_groups() -> None:
    answers = [judged(1, "a", "x"), judged(0, "b", "x"), judged(1, "c", "x"), judged(1, "d", "y")]
    assert micro("m", answers).value == 0.75
    assert macro("m", answers, "task").value == pytest.approx((2 / 3 + 1) / 2)
    assert (macro("m", answers, "task").n, micro("m", answers).n) == (4, 4)


def test_one_group_has_the_standard_error_of_the_mean() -> None:
    answers = [judged(s, v) for s, v in ((1, "a"), (0, "a"), (1, "b"), (1, "c"))]
    assert macro("m", answers, "task").se == pytest.approx(micro("m", answers).se)


def test_the_standard_error_of_a_macro_average_sums_its_groups() -> None:
    """Each question a video of its own: residuals over twice their group's size, squared, times 6/5."""
    answers = [judged(s, f"x{i}", "x") for i, s in enumerate((1, 0))] + [
        judged(s, f"y{i}", "y") for i, s in enumerate((1, 1, 0, 0))
    ]
    weighted = np.array([0.5 / 4, -0.5 / 4, 0.5 / 8, 0.5 / 8, -0.5 / 8, -0.5 / 8])
    assert macro("m", answers, "task").se == pytest.approx(math.sqrt(6 / 5 * np.square(weighted).sum()))


def test_questions_of_one_video_are_one_cluster() -> None:
    alone = [judged(s, f"v{i}") for i, s in enumerate((1, 1, 0, 0))]
    doubled = [judged(s, f"v{i}") for i, s in enumerate((1, 1, 0, 0)) for _ in range(2)]
    assert micro("m", doubled).se == pytest.approx(micro("m", alone).se)


def test_other_values_can_be_averaged() -> None:
    assert micro("m", [judged(1), judged(0.5)], value=lambda j: j.judgement.parts["iou"], unit="iou").value == 0.375


def test_nothing_has_no_average() -> None:
    assert math.isnan(micro("m", []).value) and macro("m", [], "task").n == 0


def test_a_bundle_is_worth_its_worst_question() -> None:
    answers = [judged(1, bundle="x"), judged(1, name="x"), judged(0, bundle="x"), judged(1, bundle="y")]
    assert [j.judgement.score for j in together(answers)] == [0, 1, 1]

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vxl_lightning.ablation.statistics import (
    PAIRED_TEST,
    accuracies,
    answers_by_row,
    chances,
    clustered_mean,
    compare,
    sign_flip,
    tasks_of,
)


def answers(variant, correct, seed=0, task="what", per_video=2, retention=0.0625):
    return [
        {
            "variant": variant, "retention": retention, "seed": seed, "video": f"v{i // per_video}",
            "question_id": f"v{i // per_video}#{i % per_video}#{task}", "task": task, "question": "?",
            "choices": ["a", "b", "c", "d"], "answer": "a" if i % 4 else "b",
            "prediction": "a", "correct": bool(c),
        }
        for i, c in enumerate(correct)
    ]  # fmt: skip


@given(st.lists(st.integers(0, 1), min_size=2, max_size=40))
def test_every_value_its_own_cluster_is_the_usual_standard_error(values):
    x = np.array(values, dtype=float)
    mean, se = clustered_mean(x, [str(i) for i in range(len(x))])
    assert mean == pytest.approx(x.mean())
    assert se == pytest.approx(stats.sem(x))


def test_copies_of_a_question_within_a_video_add_no_information():
    x = np.array([1.0, 0, 0, 1, 1, 0])
    _, alone = clustered_mean(x, list("abcdef"))
    _, copied = clustered_mean(np.repeat(x, 5), [c for c in "abcdef" for _ in range(5)])
    assert copied == pytest.approx(alone)


def test_sign_flip_enumerates_small_cases_exactly():
    clusters = [str(i) for i in range(8)]
    assert sign_flip(np.full(8, 0.5), clusters) == pytest.approx(2 / 2**8)
    assert sign_flip(np.zeros(8), clusters) == 1.0
    # All in one video: exchanging it whole can never be surprising.
    assert sign_flip(np.full(8, 0.5), ["one"] * 8) == 1.0


def test_sign_flip_is_repeatable():
    d = np.random.default_rng(1).normal(0.2, 1, 60)
    clusters = [str(i // 3) for i in range(60)]
    assert sign_flip(d, clusters) == sign_flip(d, clusters)


def test_accuracy_per_task_and_over_seeds():
    table = answers("x", [1, 1, 0, 0]) + answers("x", [1, 0, 0, 0], seed=1)
    table += answers("x", [1, 1, 1, 1], task="when") + answers("x", [1, 1, 1, 1], seed=1, task="when")
    by_task = {a.task: a for a in accuracies(table)}
    assert list(by_task) == ["what", "when", "all"]
    assert by_task["what"].mean == pytest.approx(3 / 8)
    assert by_task["what"].n == 4 and by_task["what"].videos == 2 and by_task["what"].seeds == 2
    assert by_task["what"].se_seeds == pytest.approx(stats.sem([0.5, 0.25]))
    assert by_task["all"].n == 8
    assert math.isnan(accuracies(answers("y", [1, 0, 1]))[0].se_seeds)


def test_chance_is_uniform_over_choices_and_majority_of_answers():
    what = chances(answers("x", [1] * 8))[0]
    assert what.uniform == pytest.approx(0.25)
    assert what.majority == pytest.approx(6 / 8)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_rows_are_compared_by_whole_videos(seeds):
    a, b = [1] * 12 + [0] * 4, [0] * 10 + [1, 1] + [0] * 4
    table = [row for s in seeds for row in answers("a", a, seed=s) + answers("b", b, seed=s)]
    found = compare(answers_by_row(table), ("a", 0.0625), ("b", 0.0625))[0]
    # Ten questions differ, two a video: five videos can be exchanged.
    assert found.test == PAIRED_TEST and found.p == pytest.approx(2 / 2**5)
    assert found.difference == pytest.approx(10 / 16)
    assert compare(answers_by_row(table), ("b", 0.0625), ("a", 0.0625))[0] == found.turned()


def test_read_outs_are_totalled_apart_from_answers():
    def row(question: str, task: str, correct: bool) -> dict[str, object]:
        told = {"question": "?", "choices": ["a", "b"], "answer": "a", "prediction": "a" if correct else "b"}
        where = {"variant": "x", "retention": 0.5, "seed": 0, "video": "v", "question_id": question}
        return where | told | {"task": task, "correct": correct}

    found = [row("1", "what", True), row("2", "read colour", False), row("3", "read shape", False)]
    means = {a.task: (a.mean, a.n) for a in accuracies(found)}
    assert means == {
        "what": (1.0, 1), "all": (1.0, 1), "read colour": (0.0, 1), "read shape": (0.0, 1), "all read-outs": (0.0, 2)
    }  # fmt: skip
    assert list(means) == tasks_of(found)
    assert {c.task: c.n for c in chances(found)}["all read-outs"] == 2

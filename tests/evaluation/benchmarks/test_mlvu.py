"""MLVU: the authors' rule for letters, both averages, and the broken rows of its two sets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged
from vxl_lightning.evaluation.benchmarks.mlvu import MLVU
from vxl_lightning.evaluation.benchmarks.mlvu_dev import TASKS, MLVUDev
from vxl_lightning.evaluation.benchmarks.mlvu_test import MLVUTest
from vxl_lightning.testing import parametrize_laws

READ = {
    "B": "B", "(B)": "B", "B.": None, "B) Blue": "B", "(B) Blue": "B", "B. Blue.": None, "The answer is B": None,
    "The answer is (B).": "B", "Best Option: (B) Blue": "B", "Answer: B": None, "b": None, "(b)": None, "Blue": None,
    "Because of the rain": None, "A or B": None, "**B**": None, "E": "E", "答案是B。": None, "": None, "…": None,
    "\n B \n": None, "B</s>": None, "F)": "F", "G)": None, "I cannot tell.": None, "(A) (D)": "A",
    "The answer is A. No, the answer is D.": None, "none of these (C": None,
}  # fmt: skip
"""As the authors' check_ans accepts them, of six options."""

LMMS = {"B.": "B", "The answer is B": "B", "Best option: C": "C", "(A) (D)": "D", "E": "E", "b": None}


@parametrize_laws("benchmark", MLVUDev)
def test_mlvu_dev_keeps_the_laws(law: Callable[[], None]) -> None:
    law()


@parametrize_laws("benchmark", MLVUTest)
def test_mlvu_test_keeps_the_laws(law: Callable[[], None]) -> None:
    law()


def made(cls: type[MLVU], folder: Path, **params: Any) -> MLVU:
    cls.miniature(folder)
    return cls(cls.Config(**params), folder)


def change(path: Path, row: int, **fields: Any) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows[row] |= fields
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("reply", READ)
def test_replies_are_read_as_by_the_authors(tmp_path: Path, reply: str) -> None:
    benchmark = made(MLVUTest, tmp_path)
    question = benchmark.read().questions[1]
    assert question.answer == "B"
    judgement = benchmark.judge(question, reply)
    assert (judgement.parsed, judgement.score) == (READ[reply], float(READ[reply] == "B"))


@pytest.mark.parametrize("reply", LMMS)
def test_replies_are_read_as_by_lmms_eval_where_that_is_chosen(tmp_path: Path, reply: str) -> None:
    benchmark = made(MLVUTest, tmp_path, reading="lmms-eval")
    assert benchmark.judge(benchmark.read().questions[1], reply).parsed == LMMS[reply]


def test_another_reading_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reading: must be one of authors, lmms-eval, not 'mine'"):
        made(MLVUDev, tmp_path, reading="mine")


def test_a_letter_beyond_the_options_is_no_answer(tmp_path: Path) -> None:
    benchmark = made(MLVUDev, tmp_path)
    assert benchmark.judge(benchmark.read().questions[0], "E)").parsed is None


def test_both_averages_are_given_and_named(tmp_path: Path) -> None:
    """Two of plotQA, one right; one of needle, right: 3/4 by tasks, 2/3 by questions."""
    benchmark = made(MLVUDev, tmp_path)
    questions = benchmark.read().questions[:3]
    replies = [questions[0].answer, "", questions[2].answer]
    judged = [Judged(q, r, benchmark.judge(q, r)) for q, r in zip(questions, replies, strict=True)]
    assert [(f.name, f.value, f.headline) for f in benchmark.figures(judged)] == [
        ("M-Avg (macro: mean of tasks)", 0.75, True),
        ("M-Avg (micro: mean of questions)", pytest.approx(2 / 3), False),
    ]


def test_the_prompt_is_the_authors(tmp_path: Path) -> None:
    benchmark = made(MLVUDev, tmp_path)
    assert benchmark.prompt(benchmark.read().questions[0], []) == (
        "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
        "option that accurately addresses the question.\nQuestion: Which star is 0?\nOptions:\n(A) Red étoile\n"
        "(B) Blue étoile\n(C) 绿 étoile\n(D) Black étoile\nOnly give the best option.\nBest Option: ("
    )


def test_questions_have_their_tasks_and_folders(tmp_path: Path) -> None:
    found = made(MLVUDev, tmp_path).read().questions
    assert [q.id for q in found[2:4]] == ["2_needle-0", "2_needle-1"]
    assert found[2].video == "video/2_needle/invented_1.mp4"
    assert found[2].categories == {"task": "needle", "kind": "single-detail"}
    assert [q.categories["task"] for q in found[::2]] == list(TASKS.values())


def test_the_dataset_as_downloaded_is_read_too(tmp_path: Path) -> None:
    MLVUDev.miniature(tmp_path / "MLVU")
    video = tmp_path / "MLVU" / "video" / "1_plotQA" / "invented_0.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    found = MLVUDev(MLVUDev.Config(), tmp_path).read().questions
    assert (len(found), found[0].video) == (14, "MLVU/video/1_plotQA/invented_0.mp4")


def test_of_equal_options_the_last_is_right(tmp_path: Path) -> None:
    benchmark = made(MLVUDev, tmp_path)
    change(tmp_path / "json" / "1_plotQA.json", 0, candidates=["x", "", "x", ""], answer="x")
    assert benchmark.read().questions[0].answer == "C"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer": "Pink"}, "answer: 'Pink' is none of the options 'Red étoile'"),
        ({"answer": ""}, "answer: must not be empty"),
        ({"answer": 2}, "answer: must be a text, not 2"),
        ({"candidates": "Red"}, "candidates"),
        ({"candidates": ["Red", 1]}, "candidates[1]"),
        ({"question": ""}, "question: must not be empty"),
        ({"video": "/etc/x.mp4"}, "video"),
        ({"duration": "long"}, "duration: must be a number"),
    ],
)
def test_a_broken_row_is_a_problem(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    benchmark = made(MLVUDev, tmp_path)
    change(tmp_path / "json" / "4_count.json", 1, **fields)
    found = benchmark.read()
    assert len(found.questions) == 13
    assert [p.where for p in found.problems] == ["4_count.json[1]"]
    assert told in found.problems[0].reason


def test_generated_tasks_are_told_to_be_left_out(tmp_path: Path) -> None:
    benchmark = made(MLVUDev, tmp_path)
    (tmp_path / "json" / "9_summary.json").write_text('[{"video": "a.mp4"}, {"video": "b.mp4"}]')
    (tmp_path / "json" / "8_sub_scene.json").write_text("{")
    found = benchmark.read()
    assert [(p.where, p.questions) for p in found.problems] == [("8_sub_scene.json", 0), ("9_summary.json", 0)], (
        "nothing is lost by them"
    )
    assert all("not asked" in p.reason for p in found.problems) and "2 questions" in found.problems[1].reason


def test_missing_files_of_the_dev_set_are_all_named(tmp_path: Path) -> None:
    benchmark = made(MLVUDev, tmp_path)
    (tmp_path / "json" / "3_ego.json").unlink()
    (tmp_path / "json" / "5_order.json").unlink()
    with pytest.raises(UserError, match=r"json/3_ego\.json, json/5_order\.json are missing"):
        benchmark.read()


def test_broken_rows_of_the_test_set_are_problems(tmp_path: Path) -> None:
    benchmark = made(MLVUTest, tmp_path)
    path = tmp_path / "test-ground-truth" / "test_mcq_gt.json"
    change(path, 2, question_type="findNeedle")
    change(path, 3, question_id="X1_0")
    found = benchmark.read()
    assert [p.where for p in found.problems] == ["test_mcq_gt.json[2]", "test_mcq_gt.json[3]"]
    assert "question_type: must be one of topic_reasoning" in found.problems[0].reason
    assert "taken by test_mcq_gt.json[1]" in found.problems[1].reason


def test_the_submission_of_the_test_set_is_the_authors(tmp_path: Path) -> None:
    benchmark = made(MLVUTest, tmp_path)
    judged = [
        Judged(q, r, benchmark.judge(q, r)) for q, r in zip(benchmark.read().questions, ["B) x", ""], strict=False)
    ]
    assert json.loads(benchmark.submission(judged)["test_res.json"]) == [
        {"question_id": "X0_0", "question_type": "topic_reasoning", "option": "B"},
        {"question_id": "X1_0", "question_type": "anomaly_reco", "option": ""},
    ]

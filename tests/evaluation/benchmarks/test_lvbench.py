"""LVBench: the authors' rule for letters, questions of several capabilities, and broken files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged
from vxl_lightning.evaluation.benchmarks.lvbench import LVBench
from vxl_lightning.testing import parametrize_laws

READ = {
    "B": "B", "(B)": "B", "B.": "B", "B) Blue": "B", "(B) Blue": "B", "B. Blue.": "B", "The answer is B": None,
    "The answer is (B).": "B", "The best answer is: B": None, "Best option: C": "B", "Best Option: (B) Blue": "B",
    "Answer: B": "A", "b": None, "(b)": None, "Blue": "B", "Because of the rain": "B", "A or B": "A", "B, not A": "B",
    "**B**": None, "It is B because A man waits": None, "E": None, "The correct option is D": None, "答案是B。": None,
    "": None, "  ": None, "…": None, "\n B \n": "B", "B</s>": "B", "F)": None, "I cannot tell.": None, "(": None,
    "The answer is A. No, the answer is D.": None, "none of these (C": "C", "(A) (D)": "A", "( B ) x": "B",
}  # fmt: skip
"""As the authors' polish_answer reads them, where that is a letter A to D."""


@parametrize_laws("benchmark", LVBench)
def test_lvbench_keeps_the_laws(law: Callable[[], None]) -> None:
    law()


def made(folder: Path) -> LVBench:
    LVBench.miniature(folder)
    return LVBench(LVBench.Config(), folder)


def change(folder: Path, video: int, row: int | None = None, **fields: Any) -> None:
    path = folder / "video_info.meta.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (lines[video] if row is None else lines[video]["qa"][row]).update(fields)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("reply", READ)
def test_replies_are_read_as_by_the_authors(tmp_path: Path, reply: str) -> None:
    benchmark = made(tmp_path)
    judgement = benchmark.judge(replace(benchmark.read().questions[0], answer="B"), reply)
    assert (judgement.parsed, judgement.score) == (READ[reply], float(READ[reply] == "B"))


def test_a_question_has_its_text_and_options_apart_and_is_asked_as_published(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    question = benchmark.read().questions[0]
    assert question.text == "Which étoile is 0?"
    assert question.options == ("AA 颗 0", "BB 颗 0", "CC 颗 0", "DD 颗 0")
    assert benchmark.prompt(question, []) == (
        "Which étoile is 0?\n(A) AA 颗 0\n(B) BB 颗 0\n(C) CC 颗 0\n(D) DD 颗 0\n"
        "Answer the question with the option letter"
    )


def test_a_question_counts_for_each_of_its_capabilities(tmp_path: Path) -> None:
    """Video 0: question 0 is ER, 1 is EU and KIR, 2 is KIR; 1 is wrong."""
    benchmark = made(tmp_path)
    questions = benchmark.read().questions[:3]
    assert questions[1].categories["question_types"] == "event understanding + key information retrieval"
    replies = [questions[0].answer, "The answer is unclear", questions[2].answer]
    judged = [Judged(q, r, benchmark.judge(q, r)) for q, r in zip(questions, replies, strict=True)]
    assert {f.name: (f.value, f.n) for f in benchmark.figures(judged)} == {
        "Overall": (pytest.approx(2 / 3), 3),
        "ER (entity recognition)": (1, 1),
        "EU (event understanding)": (0, 1),
        "KIR (key information retrieval)": (0.5, 2),
    }
    files = benchmark.submission(judged)
    assert json.loads(files["result.json"]) == {"Overall": pytest.approx(2 / 3), "ER": 1, "EU": 0, "KIR": 0.5}
    assert json.loads(files["answers.json"]) == {"0": questions[0].answer, "1": "", "2": questions[2].answer}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer": "E"}, "answer: must be one of A, B, C, D, not 'E'"),
        ({"question": "Which?\n(A) a\n(B) b\n(D) d"}, "must have the options (A) to (D)"),
        ({"question": "Which?\n(A) a\n(B)\n(C) c\n(D) d"}, "option B is empty"),
        ({"question_type": []}, "question_type"),
        ({"question_type": ["guessing"]}, "question_type: must be of entity recognition"),
        ({"uid": None}, "uid"),
        ({"uid": "0"}, "the id '0' is taken by video_info.meta.jsonl[0].qa[0]"),
    ],
)
def test_a_broken_row_is_a_problem(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    benchmark = made(tmp_path)
    change(tmp_path, 1, 2, **fields)
    found = benchmark.read()
    assert len(found.questions) == 11
    assert [p.where for p in found.problems] == ["video_info.meta.jsonl[1].qa[2]"]
    assert told in found.problems[0].reason


@pytest.mark.parametrize(
    ("fields", "lost"), [({"key": 3}, 6), ({"type": ""}, 6), ({"qa": "none"}, 1), ({"key": "a/../../b"}, 6)]
)
def test_a_broken_video_is_a_problem(tmp_path: Path, fields: dict[str, Any], lost: int) -> None:
    benchmark = made(tmp_path)
    change(tmp_path, 1, **fields)
    found = benchmark.read()
    assert len(found.questions) == 6
    assert [(p.where, p.questions) for p in found.problems] == [("video_info.meta.jsonl[1]", lost)]


def test_a_line_that_is_cut_off_is_a_problem(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    path = tmp_path / "video_info.meta.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    found = benchmark.read()
    assert (len(found.questions), found.problems[0].where) == (6, "video_info.meta.jsonl[1]")
    assert "not JSON" in found.problems[0].reason


def test_annotations_and_videos_may_lie_elsewhere(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    with pytest.raises(UserError, match=r"put video_info\.meta\.jsonl; or data/video_info\.meta\.jsonl there"):
        LVBench(LVBench.Config(), tmp_path / "nowhere").read()
    (tmp_path / "data").mkdir()
    (tmp_path / "video_info.meta.jsonl").rename(tmp_path / "data" / "video_info.meta.jsonl")
    (tmp_path / "all_videos").mkdir()
    (tmp_path / "all_videos" / "invented_1.webm").touch()
    found = benchmark.read().questions
    assert (found[0].video, found[6].video) == ("videos/invented_0.mp4", "all_videos/invented_1.webm")

"""Video-MME: the authors' rule for letters, its two settings, and broken files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged
from vxl_lightning.evaluation.benchmarks.video_mme import VideoMME
from vxl_lightning.testing import parametrize_laws

READ = {
    "B": "B", "(B)": "B", "B.": "B", "B) Blue": "B", "(B) Blue": "B", "B. Blue.": "B", "The answer is B": "B",
    "The answer is (B).": "B", "The best answer is: B": "B", "Best option: C": "B", "Best Option: (B) Blue": "B",
    "Answer: B": "B", "b": None, "(b)": None, "Blue": "B", "Because of the rain": "B", "A or B": "A", "B, not A": "B",
    "**B**": "B", "It is B because A man waits": "B", "E": None, "The correct option is D": "D", "答案是B。": "B",
    "": None, "  ": None, "…": None, "\n B \n": "B", "B</s>": "B", "F)": None, "I cannot tell.": None,
    "The answer is A. No, the answer is D.": "A", "none of these (C": "C", "(A) (D)": "A", "Dvd": "D",
}  # fmt: skip
"""As the authors' eval_your_results.py reads them."""

PARQUET = "videomme/test-00000-of-00001.parquet"


@parametrize_laws("benchmark", VideoMME)
def test_video_mme_keeps_the_laws(law: Callable[[], None]) -> None:
    law()


def made(folder: Path, **params: Any) -> VideoMME:
    VideoMME.miniature(folder)
    return VideoMME(VideoMME.Config(**params), folder)


def change(folder: Path, row: int, **fields: Any) -> None:
    rows = pyarrow.parquet.read_table(folder / PARQUET).to_pylist()
    rows[row] |= fields
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / PARQUET)


@pytest.mark.parametrize("reply", READ)
def test_replies_are_read_as_by_the_authors(tmp_path: Path, reply: str) -> None:
    benchmark = made(tmp_path)
    question = replace(benchmark.read().questions[0], answer="B")
    judgement = benchmark.judge(question, reply)
    assert (judgement.parsed, judgement.score) == (READ[reply], float(READ[reply] == "B"))


def test_a_reply_without_a_letter_is_wrong_and_the_authors_figure_stands_beside(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    questions = benchmark.read().questions[:4]
    replies = [questions[0].answer, questions[1].answer, "A" if questions[2].answer != "A" else "B", "no idea"]
    figures = benchmark.figures([Judged(q, r, benchmark.judge(q, r)) for q, r in zip(questions, replies, strict=True)])
    assert [(f.value, f.n, f.headline) for f in figures] == [(0.5, 4, True), (pytest.approx(2 / 3), 3, False)]
    assert len(benchmark.figures([Judged(questions[0], "", benchmark.judge(questions[0], ""))])) == 1


def test_the_prompt_is_the_authors(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    assert benchmark.prompt(benchmark.read().questions[0], []) == (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\nHow many étoiles does scene 0 show?\n"
        "A. 0 颗.\nB. 1 颗.\nC. 2 颗.\nD. 3 颗.\nThe best answer is:"
    )


def test_only_subtitles_of_the_frames_are_shown(tmp_path: Path) -> None:
    benchmark = made(tmp_path, subtitles=True)
    question = benchmark.read().questions[3]
    heading = "This video's subtitles are listed below:\n"
    assert benchmark.prompt(question, [0.5, 0.7]).startswith(f"{heading}Hello 1\nSelect the best")
    assert benchmark.prompt(question, [0.5, 5.0]).startswith(f"{heading}Hello 1\nBye\nSelect the best")
    assert benchmark.prompt(question, [2.0]).startswith("Select the best")
    assert benchmark.figures([Judged(question, "", benchmark.judge(question, ""))])[0].name == "Overall (w subs)"


def test_only_long_videos_must_have_subtitles(tmp_path: Path) -> None:
    benchmark = made(tmp_path, subtitles=True)
    for srt in (tmp_path / "subtitle").iterdir():
        srt.unlink()
    found = benchmark.read()
    assert {q.categories["duration"] for q in found.questions if q.subtitles} == {"long"}
    assert "subtitle/invented_2.srt" in {p.where for p in benchmark.missing(found.questions)}
    assert benchmark.prompt(found.questions[0], [0.0]).startswith("Select the best")


def test_subtitles_that_cannot_be_read_cost_their_questions(tmp_path: Path) -> None:
    benchmark = made(tmp_path, subtitles=True)
    (tmp_path / "subtitle" / "invented_1.srt").write_text("1\n00:00:0x,0 --> 00:00:01,000\nHi\n")
    found = benchmark.read()
    assert [(p.where, p.questions) for p in found.problems] == [("subtitle/invented_1.srt", 3)]
    assert "line 2" in found.problems[0].reason
    assert len(found.questions) == 6


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer": "E"}, "answer: must be one of A, B, C, D, not 'E'"),
        ({"answer": None}, "answer"),
        ({"duration": "endless"}, "duration"),
        ({"options": ["A. x", "B. y"]}, "options"),
        ({"options": ["A. x", "B. y", "C. z", ""]}, "options[3]"),
        ({"question": "  "}, "question: must not be empty"),
        ({"videoID": "../x"}, "videoID"),
        ({"question_id": "001-2"}, "the id '001-2' is taken by"),
    ],
)
def test_a_broken_row_is_a_problem(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    benchmark = made(tmp_path)
    change(tmp_path, 4, **fields)
    found = benchmark.read()
    assert len(found.questions) == 8
    assert [p.where for p in found.problems] == ["test-00000-of-00001.parquet[4]"]
    assert told in found.problems[0].reason


def test_missing_annotations_name_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"put videomme/test-00000-of-00001\.parquet"):
        VideoMME(VideoMME.Config(), tmp_path).read()


def test_a_video_may_have_another_suffix(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "invented_1.mkv").touch()
    found = benchmark.read().questions
    assert [q.video for q in found[::3]] == ["data/invented_0.mp4", "data/invented_1.mkv", "data/invented_2.mp4"]


def test_the_submission_is_the_authors_template(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    questions = benchmark.read().questions
    judged = [Judged(q, "Réponse: A", benchmark.judge(q, "Réponse: A")) for q in questions]
    (content,) = benchmark.submission(judged).values()
    videos = json.loads(content)
    assert [v["video_id"] for v in videos] == ["001", "002", "003"]
    assert list(videos[0]) == ["video_id", "duration", "domain", "sub_category", "questions"]
    assert videos[0]["questions"][1] == {
        "question_id": "001-2",
        "task_type": "OCR Problems",
        "question": "How many étoiles does scene 1 show?",
        "options": ["A. 1 颗.", "B. 2 颗.", "C. 3 颗.", "D. 4 颗."],
        "answer": "B",
        "response": "Réponse: A",
    }

"""LongVideoBench: letters, subtitles on frames, its two layouts and two sets, and broken files."""

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
from vxl_lightning.evaluation.benchmarks.long_video_bench import LongVideoBench, covering, read_subtitles
from vxl_lightning.evaluation.subtitles import Subtitle
from vxl_lightning.testing import parametrize_laws

READ = {
    "B": "B", "(B)": "B", "B.": "B", "B) Blue": "B", "(B) Blue": "B", "The answer is B": "B",
    "The answer is (B).": "B", "The best answer is: B": "B", "Best option: C": "C", "Best Option: (B) Blue": "B",
    "Answer: B": "A", "b": None, "Blue": "B", "Because of the rain": "B", "A or B": "A", "**B**": "B", "E": "E",
    "It is B because A man waits": "B", "The correct option is D": "D", "答案是B。": "B", "": None, "…": None,
    "F)": None, "I cannot tell.": None, "The answer is A. No, the answer is D.": "A", "none of these (C": "C",
}  # fmt: skip
"""As parse_multi_choice_response reads them, its random guesses taken as none."""


@parametrize_laws("benchmark", LongVideoBench)
def test_long_video_bench_keeps_the_laws(law: Callable[[], None]) -> None:
    law()


def made(folder: Path, **params: Any) -> LongVideoBench:
    LongVideoBench.miniature(folder)
    return LongVideoBench(LongVideoBench.Config(**params), folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "lvb_val.json").read_text(encoding="utf-8"))
    return found


def change(folder: Path, row: int, **fields: Any) -> None:
    rows = rows_of(folder)
    rows[row] |= fields
    (folder / "lvb_val.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("reply", READ)
def test_replies_are_read_as_officially(tmp_path: Path, reply: str) -> None:
    benchmark = made(tmp_path)
    judgement = benchmark.judge(replace(benchmark.read().questions[0], answer="B"), reply)
    assert (judgement.parsed, judgement.score) == (READ[reply], float(READ[reply] == "B"))


def test_the_prompt_is_the_authors(tmp_path: Path) -> None:
    benchmark = made(tmp_path, subtitles=True)
    asked = (
        "Question: When “hello” is said, which star is 0?\nA. Red étoile\nB. Blue étoile\n"
        "Answer with the option's letter from the given choices directly."
    )
    question = benchmark.read().questions[0]
    assert benchmark.prompt(question, [0.3, 2.0]) == f"Hello\n{asked}"
    assert benchmark.prompt(question, [2.0]) == asked
    assert benchmark.prompt(replace(question, subtitles=None), [0.3]) == asked


def test_subtitles_of_both_kinds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    stamps = [{"timestamp": [1, None], "text": "a"}, {"timestamp": [1.5, 2.5], "text": ""}]
    path.write_text(json.dumps([*stamps, {"start": "00:01:00.500", "end": "01:00:00", "line": "é"}]))
    expected = [Subtitle(1, 9.5, "a"), Subtitle(1.5, 2.5, ""), Subtitle(60.5, 3600, "é")]
    assert read_subtitles(path, 9.5) == expected


def test_a_short_subtitle_covers_a_second_and_ends_do_not_count() -> None:
    lines = [Subtitle(10.0, 10.2, "short"), Subtitle(12.0, 14.0, "long")]
    assert covering(lines, 10.0, [0.55]) == ["short"]
    assert covering(lines, 10.0, [0.6, 2.0, 4.0]) == []
    assert covering(lines, 10.0, [0.0, 3.0]) == ["short", "long"]


@pytest.mark.parametrize(
    "content",
    ["{", '[{"timestamp": [1], "text": "a"}]', '[{"start": "x", "end": "00:00:01", "line": "a"}]', '[{"line": "a"}]'],
)
def test_subtitles_that_cannot_be_read_cost_their_questions(tmp_path: Path, content: str) -> None:
    benchmark = made(tmp_path, subtitles=True)
    (tmp_path / "subtitles" / "invented_1_en.json").write_text(content)
    found = benchmark.read()
    assert [(p.where, p.questions) for p in found.problems] == [("subtitles/invented_1_en.json", 2)]
    assert "invented_1_en.json" in found.problems[0].reason
    assert len(found.questions) == 4


def test_missing_subtitles_are_told(tmp_path: Path) -> None:
    benchmark = made(tmp_path, subtitles=True)
    (tmp_path / "subtitles" / "invented_1_en.json").unlink()
    asked = benchmark.read().questions
    told = {p.where: p.questions for p in benchmark.missing(asked)}
    assert told["subtitles/invented_1_en.json"] == 0 and sum(told.values()) == 6, "with their videos"
    for q in asked:
        (tmp_path / q.video).parent.mkdir(exist_ok=True)
        (tmp_path / q.video).touch()
    assert [(p.where, p.questions) for p in benchmark.missing(asked)] == [("subtitles/invented_1_en.json", 2)]


def test_the_parquet_layout_has_the_same_questions(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    expected = benchmark.read().questions
    rows = rows_of(tmp_path)
    for row in rows:
        options = row.pop("candidates")
        row |= {f"option{i}": option for i, option in enumerate([*options, *["N/A"] * 5][:5])}
    (tmp_path / "lvb_val.json").unlink()
    parquet = tmp_path / "validation-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    assert benchmark.read().questions == expected
    rows[1]["option0"] = "N/A"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    assert [p.where for p in benchmark.read().problems] == ["validation-00000-of-00001.parquet[1]"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"correct_choice": 5}, "correct_choice: must be a whole number from 0 to"),
        ({"correct_choice": "A"}, "correct_choice"),
        ({"correct_choice": True}, "correct_choice"),
        ({"candidates": ["a"]}, "candidates"),
        ({"candidates": None}, "option0: missing"),
        ({"video_path": "../a.mp4"}, "video_path"),
        ({"duration_group": None}, "duration_group"),
        ({"id": "invented_0_0"}, "the id 'invented_0_0' is taken by lvb_val.json[0]"),
        ({"question": "\ud800"}, "question: has a character that is not unicode"),
    ],
)
def test_a_broken_row_is_a_problem(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    benchmark = made(tmp_path)
    change(tmp_path, 3, **fields)
    found = benchmark.read()
    assert len(found.questions) == 5
    assert [p.where for p in found.problems] == ["lvb_val.json[3]"]
    assert told in found.problems[0].reason


def test_the_average_counts_questions(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    questions = benchmark.read().questions[:4]
    judged = [Judged(q, r, benchmark.judge(q, r)) for q, r in zip(questions, ["A", "B", "?", "E"], strict=True)]
    (figure,) = benchmark.figures(judged)
    assert (figure.name, figure.value, figure.n) == ("Overall (validation)", 0.5, 4)
    assert questions[0].categories["duration"] == "15"


def test_the_test_set_is_asked_for_its_submission(tmp_path: Path) -> None:
    benchmark = made(tmp_path, split="test")
    questions = benchmark.read().questions[:2]
    judged = [Judged(q, r, benchmark.judge(q, r)) for q, r in zip(questions, ["(B) é", "no"], strict=True)]
    assert [j.judgement.score for j in judged] == [0, 0]
    (figure,) = benchmark.figures(judged)
    assert (figure.value, figure.unit) == (0.5, "share")
    (content,) = benchmark.submission(judged).values()
    assert json.loads(content) == {"invented_0_0": "(B) é", "invented_0_1": "no"}


def test_another_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split: must be one of validation, test, not 'dev'"):
        made(tmp_path, split="dev")

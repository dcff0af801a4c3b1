import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Figure, Judged, Question
from vxl_lightning.evaluation.benchmarks.temp_compass import TempCompass
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("benchmark", TempCompass)
def test_laws(law: Any) -> None:
    law()


@pytest.fixture
def bench(tmp_path: Path) -> TempCompass:
    TempCompass.miniature(tmp_path)
    return TempCompass(TempCompass.Config(), tmp_path)


def first(bench: TempCompass, format_: str) -> Question:
    return next(q for q in bench.read().questions if q.categories["format"] == format_)


def parsed(bench: TempCompass, format_: str, reply: str) -> tuple[str | None, float]:
    judgement = bench.judge(first(bench, format_), reply)
    return judgement.parsed, judgement.score


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("A", "A"), (" A\n", "A"), ("A. rising", "A"), ("A.", "A"), ("A) rising", "A"), ("A</s>", "A"), ("A.B", "A"),
        ("B", "B"), ("B. rising", "B"), ("D", "D"), ("D) none", "D"),
        ("(A)", None), ("rising", None), ("a", None), ("A rising", None), ("A:", None), ("The answer is A", None),
        ("E", None), ("", None), ("Ａ", None), ("A🙂", None),
    ],
)  # fmt: skip
def test_choices_are_read_as_by_the_official_rules(bench: TempCompass, reply: str, found: str | None) -> None:
    assert parsed(bench, "multi-choice", reply) == (found, float(found == "A"))


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("yes", "yes"), ("Yes.", "yes"), ("YES, it is", "yes"), ("yesterday", "yes"), ("</s> Yes", "yes"),
        ("no", "no"), ("No, yes", "no"), ("Not sure", "no"), ("None of them", "no"), ("Nothing", "no"),
        ("The answer is yes", None), ("It is.", None), ("'yes'", None), ("", None), ("oui", None), ("是", None),
    ],
)  # fmt: skip
def test_yes_and_no_are_beginnings(bench: TempCompass, reply: str, found: str | None) -> None:
    assert parsed(bench, "yes_no", reply) == (found, float(found == "yes"))


@pytest.mark.parametrize(
    ("reply", "found", "score"),
    [
        ("Caption A: A kite rises.", "Caption A: A kite rises.", 1), ("A kite rises.", "A kite rises.", 1),
        ("Caption A", "Caption A", 1), ("Caption A.", "Caption A", 1), ("A", "A", 1), ("A.", "A", 1), ("A..", "A", 1),
        ("A) A kite rises.", "A kite rises.", 1), ("(1) A kite rises.", "A kite rises.", 1),
        ("Caption B", "Caption B", 0), ("B", "B", 0), ("A kite falls.", "A kite falls.", 0), ("B</s>", "B", 0),
        ("A kite rises", None, 0), ("Caption A:", None, 0), ("caption a", None, 0), ("Sentence A", None, 0),
        ("The best is Caption A", None, 0), ("C", None, 0), ("1", None, 0), ("", None, 0), ("A kite rises。", None, 0),
    ],
)  # fmt: skip
def test_captions_are_matched_as_by_the_official_rules(
    bench: TempCompass, reply: str, found: str | None, score: float
) -> None:
    assert parsed(bench, "caption_matching", reply) == (found, score)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("A kite is Rising in the sky.", "rising"), ("The kite, falling.", "falling"),
        ("falling  sideways", "falling sideways"), ("falling, then falling sideways", None),
        ("rising and falling", None), ("arising", None), ("A kite.", None), ("", None),
    ],
)  # fmt: skip
def test_captions_are_read_where_they_repeat_one_piece_of_information(
    bench: TempCompass, reply: str, found: str | None
) -> None:
    assert parsed(bench, "captioning", reply) == (found, float(found == "rising"))


def test_prompts_are_the_published_ones(bench: TempCompass) -> None:
    prompts = {q.id: bench.prompt(q, ()) for q in bench.read().questions}
    assert prompts["multi-choice/1/direction/0"] == (
        "Where does the kite go?\nA. rising\nB. falling\nC. staying\nPlease directly give the best option:"
    )
    assert prompts["yes_no/1/direction/0"] == "Is the kite rising?\nPlease answer yes or no:"
    assert prompts["caption_matching/2/direction/0"].endswith("A kite falls.\nPlease directly give the best option:")
    assert prompts["captioning/2/direction/0"].endswith("\nGenerated Caption:")


def test_figures_by_hand(bench: TempCompass) -> None:
    replies = {
        "multi-choice/1/direction/0": "rising",
        "yes_no/1/direction/0": "no",
        "captioning/2/direction/0": "A kite",
    }
    questions = bench.read().questions
    judged = [Judged(q, r, bench.judge(q, r)) for q in questions for r in [replies.get(q.id, bench.truth(q))]]
    found: dict[str, Figure] = {f.name: f for f in bench.figures(judged)}
    assert {n: f.value for n, f in found.items() if "direction" not in n} == {
        "Multi-Choice QA": 0.5,
        "Multi-Choice QA: unmatched": 0.5,
        "Yes/No QA": 0.5,
        "Yes/No QA: unmatched": 0,
        "Caption Matching": 1,
        "Caption Matching: unmatched": 0,
        "Caption Generation (our words, not their judge)": 0.5,
        "Caption Generation (our words, not their judge): unmatched": 0.5,
        "mean of the three formats with rules (macro)": pytest.approx(2 / 3, abs=1e-15),
    }
    assert found["Yes/No QA: direction"].value == 0.5
    assert [n for n, f in found.items() if f.headline] == ["Multi-Choice QA", "Yes/No QA", "Caption Matching"]


def test_parquet_copies_hold_the_same_questions(bench: TempCompass, tmp_path: Path) -> None:
    expected = bench.read().questions
    for path in sorted((tmp_path / "questions").iterdir()):
        rows = [
            {"video_id": video, "dim": dimension} | item
            for video, dimensions in json.loads(path.read_text()).items()
            for dimension, items in dimensions.items()
            for item in items
        ]
        (tmp_path / path.stem).mkdir()
        target = tmp_path / path.stem / "test-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)
        path.unlink()
    assert bench.read().questions == expected


def test_aspects_are_a_grouping_only_where_they_are_published(bench: TempCompass, tmp_path: Path) -> None:
    assert {q.categories["aspect"] for q in bench.read().questions} == {"object motion"}
    (tmp_path / "meta_info.json").write_text("{}")
    assert {p.reason for p in bench.read().problems} == {
        f"meta_info.json has no type of eval_dim.direction for the video '{v}'" for v in "12"
    }
    (tmp_path / "meta_info.json").unlink()
    assert {tuple(q.categories) for q in bench.read().questions} == {("format", "dimension")}


@pytest.mark.parametrize(
    ("format_", "rows", "where", "reason"),
    [
        ("multi-choice", [{"question": "Which?\nA. x\nB. y", "answer": "C. z"}], "[0]", "one of the options"),
        ("multi-choice", [{"question": "Which?", "answer": "A"}], "[0]", "must have lines 'A. option'"),
        ("multi-choice", [{"question": "Which?\nA. x\nA. y", "answer": "A. x"}], "[0]", "must have lines 'A. option'"),
        ("multi-choice", [{"question": None, "answer": "A. x"}], "[0]", "question: must be a text"),
        ("multi-choice", [{"answer": "A. x"}], "[0]", "question: missing"),
        ("yes_no", [{"question": "Is it?", "answer": "maybe"}], "[0]", "must be one of yes, no"),
        ("yes_no", [{"question": "Is it \ud83d?", "answer": "yes"}], "[0]", "not unicode"),
        ("yes_no", ["Is it?"], "[0]", "must be an object"),
        ("yes_no", "Is it?", "", "must be an object"),
        ("caption_matching", [{"question": "Which?\nCaption A\nCaption B", "answer": "A"}], "[0]", "'Caption A: text'"),
        ("caption_matching", [{"question": "W\nCaption A: x\nCaption B: y", "answer": "x"}], "[0]", "the options"),
        ("captioning", [{"question": "Caption:", "answer": "A. x"}], "[0]", "two pieces of information"),
        ("captioning", [{"question": "Information A: {1}\nInformation B: {2}", "answer": "A"}], "[0]", "a mapping"),
    ],
)  # fmt: skip
def test_broken_rows_are_listed(bench: TempCompass, format_: str, rows: Any, where: str, reason: str) -> None:
    path = bench.folder / "questions" / f"{format_}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"2": {"direction": rows}}))
    found = bench.read()
    assert [p.where for p in found.problems] == [f"{format_}.json['2'].direction{where}"]
    assert reason in found.problems[0].reason
    assert len(found.questions) == 7


def test_an_unknown_dimension_is_listed(bench: TempCompass) -> None:
    path = bench.folder / "questions" / "yes_no.json"
    path.write_text(json.dumps({"1": {"colour": [{"question": "Is it?", "answer": "yes"}]}, "2": 3}))
    assert [p.reason.split(",")[0] for p in bench.read().problems] == [
        "dim: must be one of action", "must be an object with the field video_id",
    ]  # fmt: skip


def test_letters_of_another_question_do_not_mislead(bench: TempCompass) -> None:
    path = bench.folder / "questions" / "captioning.json"
    path.write_text(path.read_text().replace("A. rising", "C. rising").replace("B. falling", "B. fallingd"))
    assert [q.answer for q in bench.read().questions if q.id.startswith("captioning")] == ["rising", "falling"]


def test_missing_formats_are_named(bench: TempCompass) -> None:
    for name in ("yes_no.json", "captioning.json"):
        (bench.folder / "questions" / name).unlink()
    with pytest.raises(UserError, match=r"questions/yes_no\.json, questions/captioning\.json are missing"):
        bench.read()


def test_the_submission_is_what_the_official_scripts_read(bench: TempCompass) -> None:
    files = bench.submission([Judged(q, "Ja 🙂", bench.judge(q, "")) for q in bench.read().questions])
    assert set(files) == {"multi-choice.json", "yes_no.json", "caption_matching.json", "captioning.json"}
    row = {"question": "Is the kite rising?", "prediction": "Ja 🙂"}
    assert json.loads(files["yes_no.json"]) == {
        "1": {"direction": [row | {"answer": "yes"}]},
        "2": {"direction": [row | {"answer": "no"}]},
    }

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged
from vxl_lightning.evaluation.benchmarks.vnbench import VNBench
from vxl_lightning.testing import parametrize_laws

FILE = "VNBench-main-4try.json"


@parametrize_laws("benchmark", VNBench)
def test_laws(law: Any) -> None:
    law()


@pytest.fixture
def bench(tmp_path: Path) -> VNBench:
    VNBench.miniature(tmp_path)
    return VNBench(VNBench.Config(), tmp_path)


def judged(bench: VNBench, replies: dict[str, str]) -> list[Judged]:
    """Right replies, but for those given by the question's id."""
    questions = bench.read().questions
    return [Judged(q, r, bench.judge(q, r)) for q in questions for r in [replies.get(q.id, q.answer)]]


def figures(bench: VNBench, replies: dict[str, str]) -> dict[str, float]:
    return {f.name: f.value for f in bench.figures(judged(bench, replies))}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("C", "C"), ("C.", "C"), ("(C)", "C"), ("C) kale", "C"), (" C", "C"), ("\nC\n", "C"), ("**C**", "C"),
        ("The answer is C", "C"), ("It is C. B is wrong", "C"), ("选C。", "C"), ("C🙂", "C"),
        ("Answer: C", "A"), ("A or C", "A"), ("C or A", "A"), ("Because of C", "B"), ("DNA", "A"), ("DC", "C"),
        ("Cannot say", "C"), ("Best option: D", "B"), ("Caption D", "C"),
        ("", None), ("c", None), ("kale", None), (".C", None), (". C", None), ("…C.", "C"), ("E", None), ("Ç", None),
        ("答案", None), ("I. C", None),
    ],
)  # fmt: skip
def test_letters_are_read_as_by_the_official_scorer(bench: VNBench, reply: str, letter: str | None) -> None:
    question = next(q for q in bench.read().questions if q.answer == "C")
    assert bench.judge(question, reply).parsed == letter
    assert bench.judge(question, reply).score == (letter == "C")


def test_the_prompt_is_the_published_one(bench: VNBench) -> None:
    assert bench.prompt(bench.read().questions[5], ()) == (
        "How many secret words are there?\nA. 2\nB. 3\nC. 4\nD. 1\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_one_wrong_try_of_four_loses_the_needle(bench: VNBench) -> None:
    found = figures(bench, {"film2_ord_edit1_3": ""})
    assert found["ord_edit1 (4 tries)"] == found["ordering (mean of its types, 4 tries)"] == 0
    assert found["cnt_edit1 (4 tries)"] == 1
    assert found["Overall (mean of types, 4 tries)"] == pytest.approx(2 / 3, abs=1e-15)
    assert found["single tries (micro)"] == pytest.approx(11 / 12, abs=1e-15)


def test_types_count_the_same_however_many_needles_they_have(tmp_path: Path) -> None:
    VNBench.miniature(tmp_path)
    rows = json.loads((tmp_path / FILE).read_text())
    more = [row | {"video": row["video"].replace("film1", f"film{n}")} for n in (3, 4, 5) for row in rows[4:8]]
    (tmp_path / FILE).write_text(json.dumps(rows + more))
    found = figures(VNBench(VNBench.Config(), tmp_path), {"film1_cnt_edit1_0": "?", "film4_cnt_edit1_1": "D."})
    assert found["cnt_edit1 (4 tries)"] == 0.5
    assert found["Overall (mean of types, 4 tries)"] == pytest.approx((1 + 0.5 + 1) / 3, abs=1e-15)


def test_a_needle_of_which_not_all_tries_were_asked_is_wrong(bench: VNBench) -> None:
    found = {f.name: (f.value, f.n) for f in bench.figures(judged(bench, {})[:7])}
    assert found["Overall (mean of types, 4 tries)"] == (0.5, 2)


def test_names_of_the_insertions_are_those_of_the_paper(bench: VNBench) -> None:
    question = bench.read().questions[0]
    assert question.id == "film1_ret_insert1_0"
    assert question.categories == {"type": "ret_insert1", "task": "retrieval"}
    assert question.meta["type"] == "ret_insert2"


@pytest.mark.parametrize("place", ["VNBench_new", "VNBench", "videos", ""])
def test_videos_are_found_in_the_folders_that_circulate(bench: VNBench, place: str) -> None:
    path = bench.folder / place / "film2_ord_edit1.mp4"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert {p.where for p in bench.missing(bench.read().questions)} == {
        "VNBench_new/film1_ret_insert1.mp4", "VNBench_new/film1_cnt_edit1.mp4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gt": "turnip"}, "gt: must be one of the options, not 'turnip'"),
        ({"gt": None}, "gt: must be a text"),
        ({"options": ["leek", "kale", "yam"]}, "options: must be a list of 4 to 4 texts"),
        ({"options": ["leek", "kale", "yam", None]}, "options[3]: must be a text, not None"),
        ({"options": "leek"}, "options: must be a list"),
        ({"options": ["leek", "kale", "yam", True]}, "options[3]: must be a text, not True"),
        ({"type": "ret_edit9"}, "type: must be one of ret_edit1"),
        ({"try": 4}, "try: must be a whole number from 0 to 3, not 4"),
        ({"try": "0"}, "try: must be a whole number"),
        ({"try": 1}, "is taken by"),
        ({"question": " "}, "question: must not be empty"),
        ({"question": "half \ud83d"}, "not unicode"),
        ({"video": 7}, "video: must be a text, not 7"),
    ],
)
def test_a_broken_row_is_listed_with_the_tries_that_it_takes_along(
    bench: VNBench, change: dict[str, Any], reason: str
) -> None:
    rows = json.loads((bench.folder / FILE).read_text())
    rows[0] |= change
    (bench.folder / FILE).write_text(json.dumps(rows))
    found = bench.read()
    row, *bundle = found.problems
    assert reason in row.reason and row.where in (f"{FILE}[0]", f"{FILE}[1]")
    assert [(p.where, p.questions) for p in bundle] == [(f"{FILE}: film1_ret_insert1", 3)]
    assert "has 3 of 4 tries" in bundle[0].reason
    assert len(found.questions) == 8


def test_rows_that_are_no_objects_are_listed(bench: VNBench) -> None:
    rows: Sequence[Any] = json.loads((bench.folder / FILE).read_text())
    (bench.folder / FILE).write_text(json.dumps([*rows, None, "row", []]))
    found = bench.read()
    assert len(found.questions) == 12
    assert [p.where for p in found.problems] == [f"{FILE}[12]", f"{FILE}[13]", f"{FILE}[14]"]


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=FILE):
        VNBench(VNBench.Config(), tmp_path).read()


def test_the_submission_is_what_the_official_scorer_reads(bench: VNBench) -> None:
    files = bench.submission(judged(bench, {"film1_ret_insert1_0": "Ünsure 🙂\nA"}))
    assert list(files) == ["vnbench.jsonl"]
    lines = files["vnbench.jsonl"].decode().splitlines()
    assert len(lines) == 12
    first = json.loads(lines[0])
    assert first.pop("prompt").startswith("Which vegetable?\nA. leek\n")
    assert first == {
        "question_id": "film1_ret_insert1_0", "pred": "Ünsure 🙂\nA", "gt": "C", "type": "ret_insert2", "try": 0,
    }  # fmt: skip

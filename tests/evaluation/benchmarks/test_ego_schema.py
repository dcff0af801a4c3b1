import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged, Question
from vxl_lightning.evaluation.benchmarks.ego_schema import EgoSchema
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("benchmark", EgoSchema)
def test_laws(law: Any) -> None:
    law()


@pytest.fixture
def bench(tmp_path: Path) -> EgoSchema:
    EgoSchema.miniature(tmp_path)
    return EgoSchema(EgoSchema.Config(), tmp_path)


@pytest.fixture
def full(bench: EgoSchema) -> EgoSchema:
    return EgoSchema(EgoSchema.Config(subset=False), bench.folder)


QUESTION = Question(
    id="q",
    video="v.mp4",
    text="What does C do?",
    options=("washes a cup", "paints a wall", "C mends a net", "reads", "walks home"),
    answer="D",
    categories={"answers": "public"},
)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("D", "D"), ("D.", "D"), ("(D)", "D"), ("D. reads", "D"), ("(D) reads", "D"), ("'D'", "D"), ("D,", "D"),
        ("The answer is D", "D"), ("The answer is (D).", "D"), ("Answer: D", "D"), ("D\n", None),
        ("D!?", None), ("D?!", "D"),
        ("D or E", "D"), ("E or D", "E"), ("A D A", "D"), ("(B), no, (D)", "B"), ("C reads, so D", "C"),
        ("DNA D", "A"), ("Option D: reads", None), ("D)", None), ("d", None), ("reads", None), ("", None), ("F", None),
        ("I believe it is d. reads", "D"), ("it is d. reads", None), ("i'd say that c is: b. paints a wall", "B"),
        ("I believe that it is reads", None), ("🙂 D", "D"), ("答案D", "D"), ("Ｄ", None), ("**D**", None),
    ],
)  # fmt: skip
def test_letters_are_read_as_by_the_usual_harness(bench: EgoSchema, reply: str, found: str | None) -> None:
    assert bench.judge(QUESTION, reply).parsed == found
    assert bench.judge(QUESTION, reply).score == (found == "D")


def test_the_prompt_is_that_of_the_usual_harness(bench: EgoSchema) -> None:
    assert bench.prompt(QUESTION, ()) == (
        "What does C do?\nA. washes a cup\nB. paints a wall\nC. C mends a net\nD. reads\nE. walks home\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_the_subset_is_what_has_public_answers(bench: EgoSchema) -> None:
    assert [(q.id, q.answer) for q in bench.read().questions] == [
        ("00000000-0000", "A"), ("00000001-0000", "B"), ("00000003-0000", "D"),
        ("00000004-0000", "E"), ("00000006-0000", "B"), ("00000007-0000", "C"),
    ]  # fmt: skip
    assert bench.submission([]) == {}


def test_hidden_answers_are_in_no_figure_but_in_the_submission(full: EgoSchema) -> None:
    questions = full.read().questions
    assert [q.categories["answers"] for q in questions].count("hidden") == 2
    replies = ["A", "C", "E", "no idea", "E", "A", "B", "C"]
    judged = [Judged(q, r, full.judge(q, r)) for q, r in zip(questions, replies, strict=True)]
    assert [j.judgement.score for j in judged] == [1, 0, 0, 0, 1, 0, 1, 1]
    (figure,) = full.figures(judged)
    assert (figure.value, figure.n, figure.headline) == (pytest.approx(4 / 6, abs=1e-15), 6, True)
    files = full.submission(judged)
    assert list(json.loads(files["egoschema.json"]).values()) == [0, 2, 4, -1, 4, 0, 1, 2]
    lines = files["egoschema.csv"].decode().splitlines()
    assert lines[:2] == ["q_uid,answer", "00000000-0000,0"] and lines[4] == "00000003-0000,-1" and len(lines) == 9
    assert full.figures(judged[2:3]) == []


def test_parquet_copies_hold_the_same_questions(bench: EgoSchema, full: EgoSchema) -> None:
    expected, all_expected = bench.read().questions, full.read().questions
    answers = json.loads((bench.folder / "subset_answers.json").read_text())
    rows = [
        {
            "question_idx": str(i),
            "question": row["question"],
            "video_idx": row["q_uid"],
            "option": [f"{'ABCDE'[k]}. {row[f'option {k}']}" for k in range(5)],
            "answer": str(answers[row["q_uid"]]) if row["q_uid"] in answers else None,
        }
        for i, row in enumerate(json.loads((bench.folder / "questions.json").read_text()))
    ]
    hidden = [row | {"answer": None} for row in rows]
    for name, table in (("Subset", [r for r in rows if r["answer"]]), ("GENERATION", hidden)):
        (bench.folder / name).mkdir()
        path = bench.folder / name / "test-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    for name in ("questions.json", "subset_answers.json"):
        (bench.folder / name).unlink()
    assert bench.read().questions == expected
    assert full.read().questions == all_expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"option 4": None}, "option 4: must be a text, not None"),
        ({"option 4": ""}, "option 4: must not be empty"),
        ({"question": 3}, "question: must be a text, not 3"),
        ({"question": "C \udfff"}, "not unicode"),
        ({"q_uid": None}, "q_uid: must be a text"),
    ],
)
def test_broken_questions_are_listed_and_so_is_their_answer(
    bench: EgoSchema, change: dict[str, Any], reason: str
) -> None:
    path = bench.folder / "questions.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0] | change, *rows[1:], rows[1]]))
    found = bench.read()
    assert [p.where for p in found.problems] == [
        "questions.json[0]", "questions.json[8]", "subset_answers.json['00000000-0000']",
    ]  # fmt: skip
    assert reason in found.problems[0].reason
    assert "is taken by questions.json[1]" in found.problems[1].reason
    assert [p.questions for p in found.problems] == [1, 1, 0]
    assert len(found.questions) == 5


@pytest.mark.parametrize("answer", [5, -1, "A", None, True, 1.0])
def test_wrong_answers_are_listed(bench: EgoSchema, full: EgoSchema, answer: Any) -> None:
    path = bench.folder / "subset_answers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"00000001-0000": answer}))
    for one, n in ((bench, 5), (full, 7)):
        found = one.read()
        assert [p.where for p in found.problems] == ["subset_answers.json['00000001-0000']"]
        assert "must be a whole number from 0 to 4" in found.problems[0].reason
        assert len(found.questions) == n


def test_missing_answers_are_named(bench: EgoSchema) -> None:
    (bench.folder / "subset_answers.json").unlink()
    with pytest.raises(UserError, match=r"subset_answers\.json"):
        bench.read()

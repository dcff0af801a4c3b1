import pytest

from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.curation.conversation import judge, question_form, repetition

from .conftest import record


def test_a_clean_conversation_has_no_fault() -> None:
    found = judge(record("a", "v.mp4", "What is this?", "A bird in a tree."))
    assert (found["placeholder"], found["empty"], found["repeated"]) == (None, False, 0.0)
    assert found["questions"] == [bytes.fromhex(qa_hash("What is this?", "A bird in a tree."))[:16]]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("What?", "that", "no <image>"),
        ("<image>\n<image>\nWhat?", "that", "2 placeholders"),
        ("What?", "<image>", "turn 2"),
    ],
)
def test_placeholders(first: str, second: str, message: str) -> None:
    turns = [{"from": "human", "value": first}, {"from": "gpt", "value": second}]
    assert message in judge({"id": "a", "video": "v.mp4", "conversations": turns})["placeholder"]


@pytest.mark.parametrize("answer", ["", "  ", "...", "?!", "<video>"])
def test_empty_answers(answer: str) -> None:
    assert judge(record("a", "v.mp4", "What?", answer))["empty"]


@pytest.mark.parametrize("answer", ["7", "はい", "ja"])
def test_short_answers_are_not_empty(answer: str) -> None:
    assert not judge(record("a", "v.mp4", "What?", answer))["empty"]


def test_loops_are_told_from_long_answers() -> None:
    plain = "A man walks along the river, stops at the bridge, looks at the boats and then goes home by the same road."
    assert repetition(plain) < 0.2
    assert repetition("the cat sat on the mat " * 8) > 0.8
    assert repetition("ha" * 60) > 0.8
    assert repetition("yes yes") == 0.0


def test_image_records_are_judged_too() -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "that"}]
    assert judge({"id": "a", "image": "i.jpg", "conversations": turns})["placeholder"] is None


@pytest.mark.parametrize(
    ("question", "answer", "form"),
    [
        ("Which came first, the star or the ring?", "star", "order"),
        ("How many birds are there?", "3", "count"),
        ("When does it start?", "2 s", "when"),
        ("Is there a bird?", "Yes.", "yes or no"),
        ("Which?\nA. one\nB. two", "A", "choice"),
        ("What colour is it?", "red", "short"),
        ("Describe it.", "It is a long and winding road.", "long"),
    ],
)
def test_forms(question: str, answer: str, form: str) -> None:
    assert question_form(question, answer) == form

"""Records that are wrong, one change a kind: those that cannot be used are quarantined, bad teachers are dropped."""

from collections.abc import Callable
from typing import Any

from vxl_lightning.data.synth.corpus.entries import Entry, Expected, Truth, again

SECRET = "secret.mp4"
"""A healthy video beside the media folder; whoever reads it has left ``media_root``."""
LINK = "links/linked.mp4"
"""A link in the media folder that leads to it."""
NOT_JSON = "not_json"
"""A line that is no JSON: planted where records are lines, for a list of records ends there."""
_PLACEHOLDER = "<image>\n"
Change = Callable[[dict[str, Any]], Any]


def _with(**fields: object) -> Change:
    return lambda record: record | fields


def _without(key: str) -> Change:
    return lambda record: {k: v for k, v in record.items() if k != key}


def _question(change: Callable[[str], str]) -> Change:
    return lambda record: _turn(record, 0, change(record["conversations"][0]["value"]))


def _answer(change: Callable[[str], object]) -> Change:
    return lambda record: _turn(record, 1, change(record["conversations"][1]["value"]))


def _turn(record: dict[str, Any], index: int, value: object) -> dict[str, Any]:
    turns = [turn | {"value": value} if i == index else turn for i, turn in enumerate(record["conversations"])]
    return record | {"conversations": turns}


def _turns(change: Callable[[list[Any]], object]) -> Change:
    return lambda record: record | {"conversations": change(record["conversations"])}


FAULTS: dict[str, Change] = {
    "not_an_object": lambda record: [record["id"], record["video"]],
    "missing_id": _without("id"),
    "empty_id": _with(id=""),
    "missing_video": _without("video"),
    "video_of_wrong_type": _with(video=42),
    "missing_conversations": _without("conversations"),
    "empty_conversations": _turns(lambda turns: []),
    "conversations_not_a_list": _turns(lambda turns: turns[0]["value"]),
    "turn_not_an_object": _turns(lambda turns: [turns[0]["value"], turns[1]["value"]]),
    "wrong_order": _turns(lambda turns: turns[::-1]),
    "unknown_speaker": _turns(lambda turns: [turns[0], turns[1] | {"from": "narrator"}]),
    "value_not_a_string": _answer(lambda text: {"text": text}),
    "unanswered_question": _turns(lambda turns: [*turns, {"from": "human", "value": "And what else?"}]),
    "parent_path": _with(video=f"../{SECRET}"),
    "absolute_path": _with(video="/etc/passwd"),
    "path_through_link": _with(video=LINK),
    "nul_in_path": _with(video="clip\x00.mp4"),
}
"""All must be quarantined."""

FLAWS: dict[str, tuple[str, Change]] = {
    "two_placeholders": ("placeholder", _question(lambda text: _PLACEHOLDER + text)),
    "no_placeholder": ("placeholder", _question(lambda text: text.removeprefix(_PLACEHOLDER))),
    "late_placeholder": (
        "placeholder",
        lambda r: _answer(lambda text: f"<image> {text}")(_question(lambda t: t.removeprefix(_PLACEHOLDER))(r)),
    ),
    "empty_answer": ("empty_answer", _answer(lambda text: " ")),
    "answer_of_dots": ("empty_answer", _answer(lambda text: "...")),
    "looping_answer": ("repeated_answer", _answer(lambda text: f"The answer is {text}. " * 24)),
    "stuttering_answer": ("repeated_answer", _answer(lambda text: " ".join([text] * 60))),
}
"""All must be dropped, by the rule that is named."""


def malformed(base: Entry, kind: str, number: int) -> Entry:
    """A record with one fault: a changed copy of ``base``."""
    rule, change = FLAWS[kind] if kind in FLAWS else ("malformed", FAULTS.get(kind, dict))
    expected: Expected = "drop" if kind in FLAWS else "quarantine"
    made = again(base, f"{kind}-{number}", Truth(kind, expected, rule), change)
    if kind == NOT_JSON:
        return Entry(None, made.truth, raw=made.text[:-20])
    video = made.record.get("video") if isinstance(made.record, dict) else None
    return Entry(made.record, made.truth, video if isinstance(video, str) else None)

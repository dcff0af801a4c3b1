"""What is wrong with a conversation although it is well-formed, and what identifies it."""

import hashlib
import json
from typing import Any

import pyarrow as pa

from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.schema import Sample

PLACEHOLDERS = ("<image>", "<video>")
CONVERSATION = pa.schema(
    [
        ("row", pa.int64()),
        ("placeholder", pa.string()),  # null, or what is wrong with it
        ("empty", pa.bool_()),
        ("repeated", pa.float32()),
        ("form", pa.string()),  # of the first question
        ("questions", pa.list_(pa.binary(16))),  # `qa_hash` of every pair, its first half
        ("conversation", pa.int64()),  # hash of them all
    ]
)
_GRAM = 4  # words that make a repetition


def conversation(samples: pa.Table) -> pa.Table:
    """The `CONVERSATION` row of every well-formed row of a `SAMPLES` table."""
    rows = []
    for item in samples.select(["row", "record", "problem"]).to_pylist():
        if item["problem"] is None:
            rows.append({"row": item["row"], **judge(json.loads(item["record"]))})
    return pa.Table.from_pylist(rows, CONVERSATION)


def judge(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of one record."""
    sample = Sample.from_record(record, "record")
    pairs = exchanges(sample)
    texts = [turn.text for turn in sample.conversations]
    hashes = [bytes.fromhex(qa_hash(pair.question, pair.answer)[:32]) for pair in pairs]
    return {
        "placeholder": _placeholder(texts),
        "empty": any(_says_nothing(text) for pair in pairs for text in (pair.question, pair.answer)),
        "repeated": max((repetition(pair.answer) for pair in pairs), default=0.0),
        "form": question_form(pairs[0].question, pairs[0].answer),
        "questions": hashes,
        "conversation": int.from_bytes(hashlib.sha256(b"".join(hashes)).digest()[:8], "big", signed=True),
    }


def _says_nothing(text: str) -> bool:
    for mark in PLACEHOLDERS:
        text = text.replace(mark, "")
    return not any(map(str.isalnum, text))


def _placeholder(texts: list[str]) -> str | None:
    counts = [sum(text.count(mark) for mark in PLACEHOLDERS) for text in texts]
    if sum(counts) == 0:
        return "no <image> or <video> marks where the video goes"
    if sum(counts) > 1:
        return f"{sum(counts)} placeholders for one video"
    if counts[0] == 0:
        return f"the placeholder is in turn {counts.index(1) + 1}, not in the first"
    return None


def repetition(text: str) -> float:
    """Fraction of a text that repeats itself: four-word sequences that it has said before, of all it says.

    A long text without words is judged by its characters.
    """
    pieces: list[str] = text.casefold().split()
    gram = _GRAM
    if len(pieces) < 2 * _GRAM:
        if len(text) < 64:
            return 0.0
        pieces, gram = list(text), 2 * _GRAM
    grams = [tuple(pieces[i : i + gram]) for i in range(len(pieces) - gram + 1)]
    return 1 - len(set(grams)) / len(grams)


def question_form(question: str, answer: str) -> str:
    """A coarse form of a question, for spreading a budget: by its first words and the answer's length."""
    asked = question.casefold()
    if any(word in asked for word in (" before ", " after ", " first", " last", "order", "sequence")):
        return "order"
    if "how many" in asked or "count" in asked:
        return "count"
    if asked.startswith("when") or "what time" in asked or "timestamp" in asked:
        return "when"
    if answer.casefold().strip(" .") in ("yes", "no"):
        return "yes or no"
    if "\na." in asked or "\n(a)" in asked or "\na)" in asked or "options:" in asked:
        return "choice"
    return "short" if len(answer.split()) <= 5 else "long"

"""TempCompass's questions and replies as text: what a question offers, and which of it a reply names."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from vxl_lightning.evaluation.base import Judgement, Question
from vxl_lightning.evaluation.rows import RowError

OPTION = re.compile(r"\s*([A-Z])\.\s*(\S.*)")
INFORMATION = re.compile(r"Information ([A-Z]): (\{.*\})")


def choices(asked: str) -> dict[str, str]:
    """Letter -> option of a multi-choice question."""
    found = [OPTION.fullmatch(line) for line in asked.split("\n")[1:]]
    named = {m[1]: m[2] for m in found if m}
    if len(named) < 2 or len(named) != len(found):
        raise RowError(f"question: must have lines 'A. option' after the first, not {asked!r}")
    return named


def captions(asked: str) -> dict[str, str]:
    """Name ("Sentence A") -> caption of a matching question."""
    parts = [line.split(": ") for line in asked.split("\n")[1:]]
    if len(parts) < 2 or any(len(p) < 2 or len(p[0].split()) != 2 for p in parts):
        raise RowError(f"question: must have lines 'Caption A: text' after the first, not {asked!r}")
    return {p[0]: p[1] for p in parts}


def information(asked: str) -> dict[str, str]:
    """Letter -> what tells this piece of information from the others, of a captioning question."""
    pieces: dict[str, dict[str, Any]] = {}
    for letter, text in INFORMATION.findall(asked):
        try:
            pieces[letter] = dict(ast.literal_eval(text))
        except (ValueError, SyntaxError, TypeError):
            raise RowError(f"question: Information {letter} must be a mapping, not {text!r}") from None
    if len(pieces) < 2:
        raise RowError(f"question: must hold two pieces of information at least, not {asked!r}")
    keys = [k for k in next(iter(pieces.values())) if len({str(p.get(k)) for p in pieces.values()}) > 1]
    if not keys:
        raise RowError(f"question: its pieces of information must differ, not {asked!r}")
    return {letter: ", ".join(str(p.get(k)) for k in keys) for letter, p in pieces.items()}


def right_information(asked: str, answer: str) -> str:
    """Letter of the right piece: that with the words of the answer, else that with its letter (published letters are
    now and then those of another question)."""
    pieces = information(asked)
    letter, _, words = answer.partition(". ")
    found = next((one for one, told in pieces.items() if told == words), letter)
    if found not in pieces:
        raise RowError(f"answer: must be one of the pieces of information, not {answer!r}")
    return found


def judge_choice(question: Question, said: str) -> Judgement:
    found = said[0] if said in tuple("ABCD") or said[:2] in [f"{a}{b}" for a in "ABCD" for b in ".)"] else None
    if said == question.answer:
        found = question.answer[0]
    return Judgement(float(found == question.answer[0]), found)


def judge_matching(question: Question, said: str) -> Judgement:
    lines = question.meta["question"].split("\n")[1:]
    named = captions(question.meta["question"])
    after = said.split(") ")[1] if ") " in said else None
    names = [*named, *(name.split()[1] for name in named)]
    hits = [line for line in lines if line == said]
    hits += [caption for caption in named.values() if caption in (said, after)]
    hits += [name for name in names if name in (said, said.replace(".", ""))]
    if not hits:
        return Judgement(0.0, None)
    name, caption = question.answer.split(": ")[:2]
    return Judgement(float(hits[-1] in (question.answer, name, caption, name.split()[1])), hits[-1])


def repeated(said: str, told: Sequence[str]) -> str | None:
    """The one of ``told`` whose words ``said`` repeats, in any case and spacing; None where that is none or several.
    One within another ("falling" in "falling sideways") counts only where it also stands alone."""
    left = " ".join(said.lower().split())
    found: list[str] = []
    for one in sorted(told, key=len, reverse=True):
        words = " ".join(one.lower().split()).rstrip(".")
        pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
        if words and re.search(pattern, left):
            found.append(one)
            left = re.sub(pattern, "\n", left)
    return found[0] if len(found) == 1 else None

"""Lettered options, and finding the letter in a reply.

Official scorers find letters by different rules, and differ on the same reply; every benchmark names the rule that it
follows. None of these functions guesses: where there is no letter the answer is None.
"""

import re
from collections.abc import Sequence
from string import ascii_uppercase

__all__ = ["first_letter", "letter", "letter_before_bracket", "lettered", "option_of", "ranked_letter"]


def letter(index: int) -> str:
    """Letter of the option at an index: 0 is A."""
    return ascii_uppercase[index]


def lettered(options: Sequence[str], style: str = "{letter}. {option}") -> list[str]:
    """Options with their letters, such as ``A. red`` or, by ``style``, ``(A) red``."""
    return [style.format(letter=letter(i), option=option) for i, option in enumerate(options)]


_OPTION = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):])\s*(.*)", re.DOTALL)


def option_of(text: str, index: int) -> str:
    """The text of an option that was published with its letter, ``A. red`` or ``(A) red``; itself where it has none, or
    that of another index."""
    found = _OPTION.fullmatch(text)
    return found[3] if found and (found[1] or found[2]) == letter(index) and found[3] else text


def first_letter(reply: str, letters: str, phrases: Sequence[str] = ()) -> str | None:
    """The first capital that is one of ``letters``, wherever it stands, after ``phrases`` are taken out.

    The rule of Video-MME and LongVideoBench. A capital within a word counts ("Because" is B), lower case does not.
    """
    for phrase in phrases:
        reply = reply.replace(phrase, "")
    return next((c for c in reply if c in letters), None)


def letter_before_bracket(reply: str, letters: str) -> str | None:
    """The character before the first ``)``, or the whole reply where it has none, if it is one of ``letters``.

    The rule of MLVU, for replies that continue ``Best Option: (``.
    """
    end = reply.find(")")
    found = reply if end < 0 else reply[end - 1 : end]
    return found if len(found) == 1 and found in letters else None


PHRASES = (
    *(f"{the}{one} is" for the in ("", "the ") for one in ("answer", "choice")),
    *(f"{the}{good} {one} is" for the in ("", "the ") for good in ("best", "correct") for one in ("answer", "option")),
    "correct choice is", "the correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
"""After the first of each of these a letter is an answer, for `ranked_letter`."""


def ranked_letter(reply: str, letters: str) -> str | None:
    """The letter in the form that most likely gives an answer; of one form, the last.

    The rule of lmms-eval 0.7 (``mcq_extract``). Forms, from the surest: the reply begins with the letter; ends with
    it; has it after a phrase such as "answer is" (the first of each letter, so of several the last letter to appear);
    ``(A)``; ``A.``; ``A:``; ``A)``; ``A`` before a space; a capital anywhere, if there is no other form.
    """
    text = reply.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    padded = f" {text} "
    text = text.strip()
    lower = padded.lower()
    found: list[tuple[int, int, str]] = []
    for one in letters:
        if text.startswith(one) and not text[1:2].isalpha():
            found.append((10, 0, one))
        if text.endswith(one) and not text[-2:-1].isalpha():
            found.append((9, 0, one))
        after = (padded.find(one, lower.find(p) + len(p)) for p in PHRASES if p in lower)
        found.extend((7, at, one) for at in after if at >= 0)
        forms = ((6, f"({one})"), (5, f"{one}."), (4, f"{one}:"), (3, f"{one})"), (2, f"{one} "))
        found.extend((rank, padded.rfind(form), one) for rank, form in forms if form in padded)
    if not found:
        found = [(0, padded.rfind(one), one) for one in letters if one in padded]
    return max(found, key=lambda f: f[:2])[2] if found else None

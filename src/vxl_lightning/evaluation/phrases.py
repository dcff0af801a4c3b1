"""Free answers judged by rule: the words of the truth in a reply, and replies that decline to answer."""

import re
import unicodedata

__all__ = ["declines", "holds_phrase", "words"]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(i) for i, word in enumerate(_NUMBERS)}
_DECLINING = re.compile(
    r"((i am |i m )?(sorry|unfortunately) )?(but )?((i|we|it|there) )?"
    r"(cannot|can not|can t|could not|couldn t|do not know|don t know|is not possible|am not able|am not sure|"
    r"am unable|unable|unknown$|unclear$|not sure|is no information)"
)


def words(text: str) -> list[str]:
    """Words in small letters, without punctuation and articles; numbers up to ten as digits."""
    found = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return [_DIGITS.get(w, w) for w in found if w not in ("a", "an", "the")]


def holds_phrase(reply: str, truth: str) -> bool:
    """Whether the words of the truth stand side by side in a reply; yes and no must be its first word."""
    said, wanted = words(reply), words(truth)
    starts = range(1 if wanted in (["yes"], ["no"]) else len(said) - len(wanted) + 1)
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in starts)


def declines(reply: str) -> bool:
    """Whether a reply has no words, or begins by saying that it is none ("I cannot tell.")."""
    said = " ".join(words(reply))
    return not said or _DECLINING.match(said) is not None

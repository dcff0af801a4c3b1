"""Subtitles: SubRip files, and which lines show at the frames that a model is shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vxl_lightning.errors import UserError

__all__ = ["Subtitle", "read_srt", "seconds", "showing"]

_TAG = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")
_CUE = re.compile(r"\s*(\S+)\s*-->\s*(\S+)")
_TIME = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Subtitle:
    """One subtitle: seconds from ``start`` to before ``end``, and its text in one line without markup."""

    start: float
    end: float
    text: str


def seconds(text: str, where: str) -> float:
    """Seconds of a time such as ``00:01:02,345`` or ``00:01:02.345``, with or without hours.

    Raises:
        UserError: it is no such time; it names ``where``.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{where}: a time must read 00:01:02,345, not {text!r}")
    hours, minutes, rest = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def read_srt(path: Path) -> list[Subtitle]:
    """All subtitles of a SubRip file in its order; those without text are left out.

    A blank line within a subtitle does not end it, as files made by machine have them; a time line does.

    Raises:
        UserError: it cannot be read, has text before its first time, or a time that is none; it names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as srt: {error}") from None
    starts = [i for i, line in enumerate(lines) if "-->" in line]
    before = lines[: starts[0]] if starts else lines
    if any(line.strip() and not line.strip().isdigit() for line in before):
        raise UserError(f"{path}: is not srt: there is text before a line such as 00:00:01,000 --> 00:00:02,000")
    found = []
    for i, stop in pairwise([*starts, len(lines)]):
        times = _CUE.match(lines[i])
        if times is None:
            raise UserError(f"{path}: line {i + 1}: must read 00:00:01,000 --> 00:00:02,000, not {lines[i]!r}")
        body = lines[i + 1 : stop]
        if stop < len(lines) and body and body[-1].strip().isdigit():  # number of the next one
            body.pop()
        text = " ".join(" ".join(_TAG.sub("", line) for line in body).split())
        if text:
            where = f"{path}: line {i + 1}"
            found.append(Subtitle(seconds(times[1], where), seconds(times[2], where), text))
    return found


def showing(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[Subtitle]:
    """Those that show at one of ``times`` (seconds) at least, each once, in their order."""
    return [s for s in subtitles if any(s.start <= t < s.end for t in times)]

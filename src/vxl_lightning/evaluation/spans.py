"""Spans of seconds: finding one in a reply, and how much two overlap."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["as_span", "find_moment", "find_span", "temporal_iou"]

Span = tuple[float, float]

_CLOCK = r"(?:(?P<h>\d{1,2}):)?(?P<m>\d{1,3}):(?P<s>[0-5]\d(?:\.\d+)?)"
_MINUTES = (
    r"(?P<um>\d+(?:\.\d+)?)\s*(?:minutes?|mins?|m)(?![a-z])"
    r"(?:\s*(?:and\s+)?(?P<us>\d+(?:\.\d+)?)\s*(?:seconds?|secs?|s)\b)?"
)
_SECONDS = r"(?P<n>\d+(?:\.\d+)?)(?:\s*(?:seconds?|secs?|s)\b)?"
_TIME = re.compile(rf"(?<![\w.:])(?:{_CLOCK}|{_MINUTES}|{_SECONDS})(?![\w:]|\.\d)", re.IGNORECASE)
"""A moment: ``1:02:03.5``, ``02:03``, ``2 min 3 s``, ``3.5 seconds``, ``3.5s``, ``3.5``."""

_BETWEEN = re.compile(
    r"""[\s"'\])}]*(?:[-–—~,;→]|->|to|until|till|through|and|
        (?:(?:and|,|;)\s*)?(?:it\s+)?["']?(?:the\s+)?end(?:s|ing)?(?:[\s_]*(?:time|timestamp|moment|second|at|is))*["']?\s*[:=]?
    )[\s"'\[({]*""",
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand between the two ends of a span."""


def temporal_iou(truth: Span, found: Span) -> float:
    """Seconds in both spans over seconds in either, in [0, 1]; 0 where a span ends before it begins, or has no
    length."""
    both = min(truth[1], found[1]) - max(truth[0], found[0])
    either = max(truth[1], found[1]) - min(truth[0], found[0])
    return both / either if both > 0 and math.isfinite(either) else 0.0


def find_span(reply: str) -> Span | None:
    """The span that a reply gives, in seconds: the first two moments with nothing but a dash, "to", "and", a comma or
    "end" between them, else the only two moments in it.

    Moments are seconds with or without their unit (``3.2s``), minutes (``1 min 5 s``) or clock times (``00:12``,
    ``1:02:03.5``), in words or in JSON. None where there are none, or more than two that are not joined, or where the
    span would end before it begins.
    """
    moments = list(_moments(reply))
    joined = ((a, b) for a, b in pairwise(moments) if _BETWEEN.fullmatch(reply[a[2] : b[1]]))
    pair = next(joined, None) or (tuple(moments) if len(moments) == 2 else None)
    return None if pair is None else as_span(pair[0][0], pair[1][0])


def find_moment(reply: str) -> float | None:
    """The first moment in a reply, in seconds."""
    return next((seconds for seconds, _, _ in _moments(reply)), None)


def as_span(begin: object, end: object) -> Span | None:
    """Two numbers as a span, or None where they are none: not finite, or in the wrong order."""
    if isinstance(begin, bool) or isinstance(end, bool):
        return None
    if not isinstance(begin, int | float) or not isinstance(end, int | float):
        return None
    return (float(begin), float(end)) if math.isfinite(begin) and math.isfinite(end) and begin <= end else None


def _moments(text: str) -> Iterator[tuple[float, int, int]]:
    """Seconds, and where they begin and end in the text."""
    for found in _TIME.finditer(text):
        part = {name: float(value) for name, value in found.groupdict().items() if value is not None}
        if "s" in part:
            seconds = 3600 * part.get("h", 0) + 60 * part["m"] + part["s"]
        else:
            seconds = 60 * part.get("um", 0) + part.get("us", 0) + part.get("n", 0)
        yield seconds, found.start(), found.end()

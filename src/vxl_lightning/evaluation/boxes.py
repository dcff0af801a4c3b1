"""Boxes by second: finding them in a reply, and how well they cover the true ones."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["box_iou", "find_boxes", "frame_iou"]

Box = Sequence[float]
"""``x1, y1, x2, y2``, the corners at the top left and the bottom right."""

_CLOSING = {"[": "]", "{": "}"}


def box_iou(truth: Box, found: Box) -> float:
    """Area in both boxes over area in either; 0 where a corner is out of order or not finite."""
    if not all(map(math.isfinite, (*truth, *found))):
        return 0.0
    width = min(truth[2], found[2]) - max(truth[0], found[0])
    height = min(truth[3], found[3]) - max(truth[1], found[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(truth) + _area(found) - both)


def frame_iou(truth: Box, found: Any) -> float:
    """The best overlap of a true box with what a reply gives for its frame: one box, or a list of boxes.

    0 for anything else, and for a list in which something that has the form of a box holds no numbers.
    """
    if not isinstance(found, list) or not found:
        return 0.0
    if isinstance(found[0], int | float) and len(found) == 4:
        found = [found]
    boxes = [b for b in found if isinstance(b, list) and len(b) == 4]
    if not all(isinstance(c, int | float) for b in boxes for c in b):
        return 0.0
    return max((box_iou(truth, b) for b in boxes), default=0.0)


def find_boxes(reply: str) -> dict[str, Any] | None:
    """What a reply gives for each second, by the second as it is written there; None where there is no second.

    The JSON in a ``json`` block is taken, else that from the first bracket which closes again to the last that closes
    it. It may be one object, a list of objects, or a list of ``[second, box]``; single quotes count as double ones.
    An object that lacks brackets at its end is completed, a list is not.
    """
    text = _json_part(reply).replace("'", '"')
    for complete in (text, _balanced(text)):
        try:
            content = json.loads(complete, parse_constant=lambda name: None)
        except (ValueError, RecursionError):
            continue
        by_second = _by_second(content) if complete is text or isinstance(content, dict) else {}
        return {str(key): value for key, value in by_second.items() if _is_number(str(key))} or None
    return None


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _by_second(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, dict):
        return content
    if not isinstance(content, list):
        return {}
    if all(isinstance(item, dict) for item in content):
        return {key: value for item in content for key, value in item.items()}
    if all(isinstance(item, list) and len(item) > 1 for item in content):
        return {str(item[0]): item[1] for item in content}
    return {}


def _json_part(reply: str) -> str:
    """The JSON within a reply, as far as brackets tell; empty where there is none."""
    for block in reply.split("```")[1::2]:
        inside = block.removeprefix("json").strip()
        if block.startswith("json") and block.endswith("\n") and _CLOSING.get(inside[:1]) == inside[-1:] != "":
            return inside
    for begin, mark in enumerate(reply):
        if mark in _CLOSING and (end := reply.rfind(_CLOSING[mark])) > begin:
            return reply[begin : end + 1]
    return ""


def _balanced(text: str) -> str:
    """The text with as many brackets that close as open: squares first, then curly ones, before or after it."""
    for opening, closing in _CLOSING.items():
        more = text.count(opening) - text.count(closing)
        text = opening * -more + text + closing * more
    return text

"""Spans of seconds in replies, and their overlap."""

import pytest

from vxl_lightning.evaluation.spans import as_span, find_span, temporal_iou

FOUND = {
    "from 3.2 to 7 seconds": (3.2, 7),
    "3.2s - 7s": (3.2, 7),
    "3.2sec~7sec": (3.2, 7),
    "3.2–7.0": (3.2, 7),
    "00:12-00:15": (12, 15),
    "1:02:03.5 to 1:03:00": (3723.5, 3780),
    "start: 00:12, end: 00:15": (12, 15),
    "1 min 5 s to 1 min 20 s": (65, 80),
    "1m05s-1m20s": (65, 80),
    "[3.2, 7]": (3.2, 7),
    "[[3.2, 7.0]]": (3.2, 7),
    "[[0, 5], [10, 15]]": (0, 5),
    '{"start": 3.2, "end": 7}': (3.2, 7),
    "{'start_time': 3.2, 'end_time': 7}": (3.2, 7),
    "It starts at 3.2 seconds and ends at 7 seconds.": (3.2, 7),
    "The start time is 3.2 seconds and the end time is 7 seconds.": (3.2, 7),
    "3.2 seconds (start) and 7 seconds (end)": (3.2, 7),
    "The video is 60 seconds long; they meet between 3.2 and 7 s.": (3.2, 7),
    "5 - 5": (5, 5),
}

NOTHING = ("", "…", "12", "0:12", "7 to 3", "at 5, at 6 and then at 7", "1 x 2 x 3", "nan to 7", "9" * 400 + " to 3")


@pytest.mark.parametrize("reply", FOUND)
def test_a_span_is_found_however_it_is_written(reply: str) -> None:
    assert find_span(reply) == pytest.approx(FOUND[reply])


@pytest.mark.parametrize("reply", NOTHING)
def test_where_there_is_no_span_none_is_guessed(reply: str) -> None:
    assert find_span(reply) is None


def test_overlap_is_what_is_shared_over_what_either_covers() -> None:
    assert temporal_iou((2, 6), (4, 10)) == pytest.approx(2 / 8)
    assert temporal_iou((2, 6), (2, 6)) == 1
    assert temporal_iou((2, 6), (3, 4)) == pytest.approx(1 / 4)
    assert temporal_iou((2, 6), (6, 9)) == 0
    assert temporal_iou((2, 6), (6, 2)) == 0
    assert temporal_iou((2, 6), (3, 3)) == 0
    assert temporal_iou((5, 5), (5, 5)) == 0
    assert temporal_iou((2, 6), (0, float("inf"))) == 0


def test_only_two_numbers_in_order_are_a_span() -> None:
    assert as_span(1, 2.5) == (1.0, 2.5)
    for begin, end in ((2, 1), ("1", 2), (True, 2), (None, 2), (float("nan"), 2), (1, float("inf"))):
        assert as_span(begin, end) is None

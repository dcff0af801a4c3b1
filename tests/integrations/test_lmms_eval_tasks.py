"""What a task shows and wants, read without lmms-eval itself."""

from pathlib import Path

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.integrations.lmms_eval_tasks import Video, as_visual, cut, longest


def test_visuals_come_as_paths_texts_or_mappings() -> None:
    for visual in (Path("a.mp4"), "a.mp4", {"url": "a.mp4"}, {"video": "a.mp4"}):
        assert as_visual([visual], "toy") == Video("a.mp4")
    assert as_visual([{"path": "a.mp4", "video_start": 1, "video_end": 2}], "toy") == Video("a.mp4", 1, 2)
    assert as_visual(["a.PNG"], "toy") == ("a.PNG",)
    with pytest.raises(UserError, match="shows 1 visuals"):
        as_visual([{"frames": 3}], "toy")


def test_a_reply_ends_at_the_first_stop_but_for_the_harness_own() -> None:
    assert cut("B\n\nbecause", "\n\n") == "B\n\nbecause"
    assert cut("B. yes; no", [";", "."]) == "B" and cut("B", None) == "B"


def test_a_reply_is_as_long_as_the_task_says_under_either_name() -> None:
    assert [longest(s) for s in ({"max_new_tokens": 3}, {"max_gen_toks": 4}, {})] == [3, 4, 0]

"""SubRip files, and what of them shows at a frame."""

from pathlib import Path

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.subtitles import Subtitle, read_srt, seconds, showing

SRT = """\ufeff1\r
00:00:01,000 --> 00:00:02,500 X1:0\r
<font color="white" size=".72c">Hello</font>\r
<i>there</i> a < b\r
\r
2\r
00:00:02,500 --> 00:00:03,000\r
\r
3\r
01:00:00.250 --> 01:00:01,000\r
再见\r
\r
 2024\r
"""


def test_subtitles_are_read_without_markup(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes(SRT.encode())
    assert read_srt(tmp_path / "a.srt") == [Subtitle(1, 2.5, "Hello there a < b"), Subtitle(3600.25, 3601, "再见 2024")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"1\n00:00:xx,000 --> 00:00:02,000\nHi\n", "line 2"),
        (b"1\n--> 00:00:02,000\nHi\n", "line 2"),
        (b"WEBVTT\n\nno times\n", "is not srt"),
        (b"\xff\xfe1\n", "cannot be read as srt"),
    ],
)
def test_what_is_not_srt_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read_srt(tmp_path / "a.srt")
    assert "a.srt" in str(error.value)


def test_an_empty_file_has_no_subtitles(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("\n")
    assert read_srt(tmp_path / "a.srt") == []


def test_a_subtitle_shows_from_its_start_to_before_its_end_and_once() -> None:
    subtitles = [Subtitle(1, 2, "a"), Subtitle(2, 3, "b"), Subtitle(5, 6, "c")]
    assert [s.text for s in showing(subtitles, [1.0, 1.5, 2.0])] == ["a", "b"]
    assert showing(subtitles, [3.0, 4.0]) == []


def test_times_may_leave_out_the_hours() -> None:
    assert seconds("01:02.5", "here") == 62.5
    assert seconds("1:01:02,5", "here") == 3662.5

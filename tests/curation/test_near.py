"""Copies of a video are found however they were made; what only resembles it is not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.curation import films
from torch import Tensor

from vxl_lightning.curation.frames import DIM
from vxl_lightning.curation.near import NEAR, near_videos
from vxl_lightning.curation.recipe import DuplicateRules
from vxl_lightning.curation.schema import FRAMES

RULES = DuplicateRules()


def table(folder: Path, **clips: Tensor | tuple[Tensor, int]) -> pa.Table:
    """Looked at, in the order given; a clip may come with its crf."""
    rows = []
    for name, clip in clips.items():
        frames, crf = clip if isinstance(clip, tuple) else (clip, 18)
        rows.append(films.looked(films.write(folder / f"{name}.mp4", frames, crf)))
    return pa.Table.from_pylist(rows, FRAMES)


def found(frames: pa.Table, **options: object) -> dict[str, str]:
    near = near_videos(frames, RULES, seed=0, **options)  # type: ignore[arg-type]
    assert near.schema == NEAR
    return {row["media"].split(".")[0]: row["duplicate_of"].split(".")[0] for row in near.to_pylist()}


def drawn(**videos: list[int]) -> pa.Table:
    """Videos whose frames, one a second, show the pictures of these numbers; -1 is flat."""
    pictures = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    pictures[-1] = 0
    rows = []
    for name, shown in videos.items():
        rows.append(
            {
                "media": f"{name}.mp4", "times": [float(t) for t in range(len(shown))], "motion": 0.1,
                "descriptors": pictures[shown].astype(np.float16).tobytes(), "unique_ratio": 1.0,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, FRAMES)


def test_reencoded_scaled_and_trimmed_copies_are_found(tmp_path: Path) -> None:
    film = films.film(1, 2, 3)
    off = round(3.29 * films.FPS)  # no whole second: the copy is looked at between the frames of the original
    videos = table(
        tmp_path, trimmed=film[off : off + 60], small=(films.half(film), 34), original=film,
        worse=(film[:-1], 38), trimmed_small=(films.half(film[off : off + 60]), 30), other=films.film(7, 8, 9),
    )  # fmt: skip
    near = found(videos)  # either of two of one length may stay
    assert len(near) == 4 and "other" not in near
    durations = {f"{name}.mp4": 12.0 for name in ("original", "small", "worse", "trimmed", "trimmed_small", "other")}
    durations["original.mp4"] = 12.1
    assert found(videos, durations=durations) == {
        "trimmed": "original", "small": "original", "worse": "original", "trimmed_small": "original",
    }  # fmt: skip


def test_clips_of_one_film_and_different_films_stay(tmp_path: Path) -> None:
    film = films.film(1, 2, 3, 4)
    part = round(4 * films.FPS)
    videos = table(
        tmp_path, first=film[: 2 * part], second=film[2 * part :], astride=film[part : 3 * part], other=films.film(7, 8)
    )
    assert found(videos) == {}


def test_stills_are_duplicates_of_the_same_still_alone(tmp_path: Path) -> None:
    still, title = films.scene(1, 5, glide=0), films.scene(2, 5, glide=0)
    film = torch.cat([still[:24], films.film(3, 4), title[:24]])
    videos = table(tmp_path, film=film, still=still, again=(films.half(still[:36]), 34), title=title)
    assert found(videos, durations={"film.mp4": 12, "still.mp4": 5, "again.mp4": 3, "title.mp4": 5}) == {
        "again": "still"
    }


def test_flat_frames_make_no_duplicates(tmp_path: Path) -> None:
    black = torch.zeros(48, 3, films.HEIGHT, films.WIDTH, dtype=torch.uint8)
    videos = table(
        tmp_path, black=black, dark=black[:24] + 3, first=torch.cat([black, films.scene(1, 1)]),
        second=torch.cat([black, films.scene(2, 1)]),
    )  # fmt: skip
    assert found(videos) == {}


def test_videos_of_one_frame(tmp_path: Path) -> None:
    picture, other = films.scene(1)[:1], films.scene(2)[:1]
    videos = table(tmp_path, b=picture, a=(films.half(picture), 30), c=other, moving=films.scene(1))
    assert found(videos) == {"b": "a"}


def test_the_longest_stays_then_the_one_with_more_frames_then_the_first_by_path() -> None:
    videos = drawn(c=[0, 1, 2, 3], b=[0, 1, 2, 3], long=[0, 1, 2, 3, 4])
    assert found(videos) == {"c": "long", "b": "long"}
    assert found(videos, durations={"b.mp4": 9, "c.mp4": 9, "long.mp4": 9}) == {"b": "long", "c": "long"}
    assert found(videos, durations={"b.mp4": 9, "c.mp4": 9.5, "long.mp4": 9}) == {"b": "c", "long": "c"}
    assert found(videos.slice(0, 2)) == {"c": "b"}


def test_a_duplicate_names_the_kept_video_that_shows_most_of_it() -> None:
    near = near_videos(
        drawn(a=list(range(20)), b=[*range(12, 20), *range(30, 38)], c=[*range(11, 20), 50], d=[30, 31, 32, 33, 60]),
        RULES, seed=0,
    )  # fmt: skip
    assert near.to_pylist() == [
        {"media": "c.mp4", "duplicate_of": "a.mp4", "overlap": 0.9},
        {"media": "d.mp4", "duplicate_of": "b.mp4", "overlap": 0.8},
    ]


def test_the_end_of_a_chain_stays() -> None:
    videos = drawn(a=list(range(10)), b=list(range(3, 12)), c=[5, *range(8, 12)], d=[0, 10, 11, 60])
    assert found(videos) == {"b": "a"}  # c and d overlap enough with b alone, which goes


def test_a_frame_counts_once_and_flat_ones_do_not() -> None:
    repeated = drawn(long=[0, 1, 2, 0, 1, 2, 0, 1], short=[0, 1, 2, 3, 4, 5, 6])
    assert found(repeated) == {}
    assert found(drawn(long=[0, 1, 2, -1, -1, -1, 3], short=[-1, 0, 1, -1, 2, -1])) == {"short": "long"}


def test_order_and_seed_change_nothing(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    videos = drawn(**{f"v{i}": draw.integers(0, 30, 8).tolist() for i in range(200)})
    expected = found(videos)
    assert 5 < len(expected) < 195
    assert found(videos.take(draw.permutation(200))) == expected
    again = near_videos(videos, RULES, seed=5)
    assert again.equals(near_videos(videos, RULES, seed=0))


@pytest.mark.parametrize("rows", [0, 1])
def test_next_to_nothing(rows: int) -> None:
    assert near_videos(drawn(a=[0, 1]).slice(0, rows), RULES, seed=0).num_rows == 0


def test_pictures_and_undecodable_files_are_passed_over() -> None:
    videos = drawn(a=[0, 1, 2], b=[0, 1, 2])
    problem = {"media": "c.mp4", "problem": "undecodable", "detail": "c.mp4: damaged"}
    picture = videos.slice(1, 1).to_pylist()[0] | {"media": "p.png", "motion": None}
    assert found(pa.concat_tables([videos, pa.Table.from_pylist([problem, picture], FRAMES)])) == {"b": "a"}

"""Descriptors survive copying and tell scenes apart; motion and novelty are those of the judged frames."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.curation import films

from vxl_lightning.curation import frames
from vxl_lightning.curation.frames import DIM, describe, distinct, look, schedule
from vxl_lightning.curation.recipe import FrameSettings
from vxl_lightning.curation.schema import FRAMES
from vxl_lightning.data.decoding import stream_frames

SETTINGS = FrameSettings()


def described(path: Path, times: list[float]) -> np.ndarray:
    return describe(torch.cat([f for f, _ in stream_frames(path, times, (frames.SIDE, frames.SIDE))]).numpy())


def vectors(row: dict[str, object]) -> np.ndarray:
    return np.frombuffer(row["descriptors"], np.float16).reshape(-1, DIM).astype(np.float32)  # type: ignore[call-overload]


def test_a_copy_has_the_descriptors_of_its_original_and_another_scene_has_not(tmp_path: Path) -> None:
    times = [0.5, 1.5, 2.5, 3.5]
    originals = []
    for seed in range(6):
        clip = films.scene(seed)
        original = described(films.write(tmp_path / f"{seed}.mp4", clip), times)
        small = described(films.write(tmp_path / f"{seed}-small.mp4", films.half(clip), crf=36), times)
        assert (original * small).sum(1).min() >= 0.97
        tinted = (clip * torch.tensor([0.9, 0.85, 0.8]).view(3, 1, 1) + 12).byte()
        assert (original * described(films.write(tmp_path / f"{seed}-tinted.mp4", tinted), times)).sum(1).min() >= 0.97
        originals.append(original)
    assert max((a @ b.T).max() for a, b in combinations(originals, 2)) < 0.9


def test_a_row_has_the_columns_of_the_table_and_unit_vectors(tmp_path: Path) -> None:
    row = films.looked(films.write(tmp_path / "a.mp4", films.film(1, 2)))
    assert list(row) == FRAMES.names
    assert row["media"] == "a.mp4"
    assert len(vectors(row)) == len(row["times"]) > 2  # type: ignore[arg-type]
    np.testing.assert_allclose(np.linalg.norm(vectors(row), axis=1), 1, atol=2e-3)


def test_the_same_file_gives_the_same_row(tmp_path: Path) -> None:
    path = films.write(tmp_path / "a.mp4", films.film(1, 2))
    assert films.looked(path) == films.looked(path)


def test_flat_frames_have_no_descriptor_and_match_nothing(tmp_path: Path) -> None:
    black = torch.zeros(24, 3, films.HEIGHT, films.WIDTH, dtype=torch.uint8)
    noise = (torch.rand(black.shape, generator=torch.Generator().manual_seed(0)) * 3).byte()
    clip = torch.cat([black + noise, films.scene(1), black + 90])
    row = films.looked(films.write(tmp_path / "a.mp4", clip))
    found = vectors(row)
    assert not found[0].any() and not found[-1].any()
    assert found[1:-1].any(1).all()
    assert row["times"][1] == pytest.approx(2, abs=0.13)  # type: ignore[index]


def test_a_still_does_not_move_and_shows_one_thing(tmp_path: Path) -> None:
    still = films.looked(films.write(tmp_path / "still.mp4", films.scene(1, 6, glide=0), crf=36))
    assert still["motion"] < 0.002 and still["unique_ratio"] == pytest.approx(1 / 6)  # type: ignore[operator]
    assert len(still["times"]) == 1  # type: ignore[arg-type]
    moving = films.looked(films.write(tmp_path / "moving.mp4", films.scene(1, 6)))
    assert moving["motion"] > 0.01 and moving["unique_ratio"] == 1  # type: ignore[operator]


def test_motion_is_the_mean_change_of_luma_a_second(tmp_path: Path) -> None:
    clip = torch.zeros(36, 3, 64, 64, dtype=torch.uint8)
    clip[:, :, :, 32:] = 100
    clip[12:24, :, :, 32:] = 200  # half of the picture brightens by 100 of 255, a second later it darkens again
    row = films.looked(films.write(tmp_path / "a.mp4", clip, crf=1))
    assert row["motion"] == pytest.approx(0.5 * 100 / 255, abs=0.01)


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    row = films.looked(films.write(tmp_path / "a.mp4", films.scene(1)[:1]))
    assert (row["times"], row["motion"], row["unique_ratio"]) == ([0.0], 0.0, 1.0)


def test_the_cap_covers_the_whole_length() -> None:
    coarse, fine = schedule(None, 1000.0, FrameSettings(max_frames=100))
    assert coarse == fine == [10.0 * i for i in range(100)]


def test_frames_in_between_are_looked_at_where_the_cap_leaves_room() -> None:
    coarse, fine = schedule(None, 3.5, SETTINGS)
    assert coarse == [0, 1, 2, 3] and fine == [i / 8 for i in range(28)]
    coarse, fine = schedule(None, 4.0, FrameSettings(max_frames=11))
    assert coarse == [0, 1, 2, 3] and fine == [i / 2 for i in range(8)]


def test_keyframes_stand_for_the_frames_only_where_they_are_dense() -> None:
    keys = [0.0, 0.9, 1.8, 2.4, 3.3, 4.0]
    coarse, fine = schedule(keys, 4.5, SETTINGS)
    assert coarse == [0.0, 0.9, 1.8, 2.4, 4.0] and fine == keys
    assert schedule([0.0, 2.5], 4.5, SETTINGS) == schedule(None, 4.5, SETTINGS)
    assert schedule(keys, 6.5, SETTINGS) == schedule(None, 6.5, SETTINGS)  # nothing for the last two seconds


def test_only_keyframes_are_decoded_where_they_are_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.write(tmp_path / "a.mp4", films.scene(1, 3))
    asked: list[float] = []

    def spy(source: object, times: list[float], *rest: object, **options: object):  # type: ignore[no-untyped-def]
        asked.extend(times)
        return stream_frames(source, times, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(frames, "stream_frames", spy)
    row = look(path, "video", [0.0, 0.5, 1.5, 2.25], 3.0, SETTINGS)
    assert row["problem"] is None and asked == [0.0, 0.5, 1.5, 2.25]


def test_distinct_compares_with_the_last_one_kept() -> None:
    angles = np.radians([0, 5, 9, 12, 0])
    drift = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert distinct(drift, float(np.cos(np.radians(8)))) == [0, 2, 4]
    assert distinct(np.array([[0.0, 0], [0, 0], [1, 0], [0, 0]]), 0.99) == [0, 2, 3]


def test_pictures_and_folders_of_frames(tmp_path: Path) -> None:
    for place, seed in enumerate((1, 1, 2)):
        picture = Image.fromarray(films.scene(seed)[0].permute(1, 2, 0).numpy())
        picture.save(tmp_path / f"{place}.png")
    row = look(tmp_path, "frames", None, 0.0, SETTINGS, "folder")
    assert (row["media"], row["times"]) == ("folder", [0.0, 2.0])
    assert row["unique_ratio"] == pytest.approx(2 / 3) and row["motion"] > 0.01
    one = look(tmp_path / "2.png", "image", None, 0.0, SETTINGS)
    assert (one["times"], one["motion"], one["unique_ratio"]) == ([0.0], None, None)
    np.testing.assert_array_equal(vectors(one)[0], vectors(row)[1])
    video = films.write(tmp_path / "a.mp4", films.scene(2))
    assert vectors(one)[0] @ described(video, [0.0])[0] > 0.99


def test_what_cannot_be_decoded_is_a_problem_of_the_row(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video" * 100)
    row = look(bad, "video", None, 3.0, SETTINGS, "folder/bad.mp4")
    assert row["problem"] == "undecodable" and row["detail"].startswith("folder/bad.mp4: ")
    assert row["times"] is row["descriptors"] is row["motion"] is None
    empty = tmp_path / "empty"
    empty.mkdir()
    assert look(empty, "frames", None, 0.0, SETTINGS)["problem"] == "undecodable"


def test_a_video_that_ends_before_its_container_says_so(tmp_path: Path) -> None:
    path = films.write(tmp_path / "a.mp4", films.scene(1, 2))
    assert look(path, "video", [0.0, 2.5], 3.2, SETTINGS) == films.looked(path)

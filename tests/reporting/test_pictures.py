import numpy as np
import pytest
import torch

from vxl_lightning.reporting.pictures import MAX_FRAMES, kept_picture, save_picture


def sheet(source, frames=None, **kw):
    if frames is None:
        frames = torch.full((len(source), 3, 40, 40), 200, dtype=torch.uint8)
    return np.asarray(kept_picture(frames, source, width=40, **kw)).astype(int)


def test_dropped_cells_are_dimmed_and_kept_ones_untouched():
    source = torch.full((1, 2, 2), -1)
    source[0, 0, 1] = 0
    picture = sheet(source)
    kept, dropped = picture[4:24, 24:44], picture[24:44, 4:24]
    assert (kept == 200).all()
    assert (dropped == 60).all()


def test_merged_cells_get_one_outline():
    source = torch.tensor([[[0, 0], [1, -1]]])
    picture = sheet(source)
    top = picture[4:24, 4:44]
    assert (top[0] != 200).any(axis=-1).all(), "the region's upper edge is drawn along both cells"
    assert (top[8:12, 15:25] == 200).all(), "no line between two cells of one token"
    assert (picture[30:40, 8:20] == 200).all(), "a token of a single cell has no outline"


def test_long_videos_show_the_frames_that_kept_something():
    source = torch.full((500, 1, 1), -1)
    source[torch.arange(0, 500, 100)] = torch.arange(5).view(5, 1, 1)
    picture = sheet(source, times=torch.arange(500))
    assert picture.shape[1] == 5 * 44 + 4
    many = sheet(torch.arange(500).view(500, 1, 1))
    assert many.shape[0] == (MAX_FRAMES // 8) * 44 + 4


def test_lengths_must_agree_and_files_are_written(tmp_path):
    with pytest.raises(ValueError, match="2 frames"):
        sheet(torch.zeros(3, 1, 1, dtype=torch.long), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    picture = kept_picture(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 2, 2, dtype=torch.long))
    for name in ("a.png", "a.webp"):
        save_picture(picture, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 100

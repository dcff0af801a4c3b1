"""Frames as vision towers take them: sizes, filters, normalisation and patches, against figures worked out by hand."""

import pytest
import torch
from tests.hub.tiny_processors import preparation, striped

from vxl_lightning.errors import UserError
from vxl_lightning.hub import frames as cut
from vxl_lightning.hub.counting import in_words


@pytest.mark.parametrize(
    ("size", "bounds", "gives"),
    [
        ((360, 640), (3136, 602112), (364, 644)),  # the nearest whole cells
        ((1080, 1920), (3136, 602112), (560, 1008)),  # too many pixels
        ((20, 30), (3136, 602112), (56, 84)),  # too few
        ((10, 1000), (3136, 602112), (28, 560)),  # less than half a cell high: none, which is too few
        ((70, 42), (16, 602112), (56, 56)),  # halves go to the even number of cells: 2.5 and 1.5
    ],
)
def test_a_frame_gets_the_nearest_whole_cells_within_its_bounds(size, bounds, gives):
    assert cut.whole_cells(*size, 28, *bounds) == gives


def test_pixels_may_be_counted_over_the_whole_video():
    assert cut.whole_cells(360, 640, 32, 131072, 786432, frames=8, counted=8) == (224, 416)
    assert cut.whole_cells(360, 640, 32, 131072, 25165824, frames=8, counted=8) == (352, 640)


def test_a_frame_that_is_all_but_a_line_is_refused():
    with pytest.raises(UserError, match=r"frames of 4 x 1000 pixels .* at most 200 times"):
        cut.whole_cells(4, 1000, 28, 3136, 602112)


def test_patches_of_a_cell_stand_together_channels_first_then_frames():
    video = striped(3, 8, 16).float()
    made, grid = cut.patches(video, 4, 2, 2)
    assert grid.tolist() == [[2, 2, 4]] and made.shape == (16, 3 * 2 * 16)
    assert torch.equal(made[0].view(3, 2, 4, 4)[:, 1], video[1, :, :4, :4])
    assert torch.equal(made[1].view(3, 2, 4, 4)[:, 0], video[0, :, :4, 4:8]), "to the right, in the same cell"
    assert torch.equal(made[2].view(3, 2, 4, 4)[:, 0], video[0, :, 4:, :4]), "below"
    assert torch.equal(made[4].view(3, 2, 4, 4)[:, 0], video[0, :, :4, 8:12]), "the next cell"
    last = made[8].view(3, 2, 4, 4)
    assert torch.equal(last[:, 0], video[2, :, :4, :4]) and torch.equal(last[:, 1], last[:, 0]), "an odd frame twice"


def test_frames_that_are_no_whole_cells_are_refused_where_nothing_resizes_them():
    made = preparation("qwen2_vl", video={"do_resize": False, "patch_size": 4})
    assert made(striped(2, 16, 24), [0.0, 1.0]).tensors["video_grid_thw"].tolist() == [[1, 4, 6]]
    with pytest.raises(UserError, match=r"20 x 24 pixels are no whole cells of 8 x 8.*do_resize=True"):
        made(striped(2, 20, 24), [0.0, 1.0])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos", "nearest-exact"])
def test_filters_keep_what_is_even_and_bytes_stay_bytes(mode):
    even = torch.full((2, 3, 9, 7), 137, dtype=torch.uint8)
    made = cut.resized(even, 20, 4, mode)
    assert made.dtype == torch.uint8 and made.shape == (2, 3, 20, 4) and bool((made == 137).all())
    assert cut.resized(even, 9, 7, mode) is even


def test_smaller_frames_are_averages_and_edges_do_not_wrap_round():
    halves = torch.tensor([[0, 255]], dtype=torch.uint8).repeat_interleave(8, 1).expand(1, 3, 16, 16)
    smaller = cut.resized(halves, 4, 4, "bilinear")[0, 0, 0].tolist()
    assert smaller == [0, 32, 223, 255]
    sharp = cut.resized(halves, 8, 64, "bicubic")[0, 0, 0]
    assert int(sharp[:20].max()) < 30 and int(sharp[44:].min()) > 225, "overshoot is cut off, not wrapped"


def test_a_filter_that_pytorch_lacks_gives_way_to_the_nearest_one(monkeypatch):
    whole = cut.interpolate

    def older(*given, mode, **more):
        if mode == "lanczos":
            raise NotImplementedError("only 3D, 4D and 5D")
        return whole(*given, mode=mode, **more)

    monkeypatch.setattr(cut, "interpolate", older)
    video = striped(2, 20, 30)
    with pytest.warns(UserWarning, match="no Lanczos filter"):
        resized = cut.resized(video, 8, 8, "lanczos")
    assert torch.equal(resized, cut.resized(video, 8, 8, "bicubic"))


def test_cropping_takes_the_middle_and_puts_black_around_what_is_smaller():
    video = striped(1, 6, 9)
    assert torch.equal(cut.cropped(video, 4, 4), video[..., 1:5, 2:6])
    made = cut.cropped(video, 9, 4)
    assert torch.equal(made[..., 1:7, :], video[..., 2:6]) and not made[..., [0, 7, 8], :].any()


@pytest.mark.parametrize(
    ("said", "gives"),
    [
        ({}, (51 / 255 - 0.5) / 0.25),
        ({"do_rescale": False}, (51 - 0.5) / 0.25),
        ({"do_normalize": False}, 0.2),
        ({"do_normalize": False, "do_rescale": False}, 51.0),
        ({"rescale_factor": 1 / 51}, (1 - 0.5) / 0.25),
    ],
)
def test_bytes_are_rescaled_and_normalised_as_the_folder_says(said, gives):
    said = {"do_resize": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "patch_size": 4, **said}
    pixels = preparation("qwen2_vl", video=said)(torch.full((1, 3, 8, 8), 51, dtype=torch.uint8), [0.0])
    made = pixels.tensors["pixel_values_videos"]
    assert made.dtype == torch.float32 and torch.allclose(made, torch.tensor(float(gives)), atol=1e-6)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (118, "one hundred and eighteen"),
        (1000, "one thousand"),
        (1001, "one thousand and one"),
        (1300, "one thousand, three hundred"),
        (21042, "twenty-one thousand and forty-two"),
        (512999, "five hundred and twelve thousand, nine hundred and ninety-nine"),
    ],
)
def test_numbers_are_written_as_prompts_write_them(number, words):
    assert in_words(number) == words

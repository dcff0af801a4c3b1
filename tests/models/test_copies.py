"""The copies, by hand."""

import torch

from vxl_lightning.models.copies import copies


def test_copies_of_a_worked_example():
    cells = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view(1, 6, 1, 1, 1).expand(1, 6, 1, 2, 1).clone()
    cells[..., 1, :] *= 10
    visible = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]], dtype=torch.bool).view(1, 6, 1, 2)
    guess = copies(cells, visible, window=3)
    left, right = (lambda x: x[0, :, 0, 0, 0].tolist()), (lambda x: x[0, :, 0, 1, 0].tolist())
    assert left(guess.mean) == [2.5, 2.5, 2.5, 320.0, 320.0, 320.0]
    assert right(guess.mean) == [2.5, 2.5, 2.5, 320.0, 320.0, 320.0]
    assert left(guess.window_mean) == right(guess.window_mean) == [2.5] * 3 + [320.0] * 3
    assert left(guess.previous) == [2.5, 1.0, 1.0, 4.0, 4.0, 4.0]


def test_copies_fall_back_to_the_video_where_a_window_is_hidden():
    cells = torch.arange(4.0).view(1, 4, 1, 1, 1)
    visible = torch.tensor([True, True, False, False]).view(1, 4, 1, 1)
    guess = copies(cells, visible, window=2)
    assert guess.window_mean.flatten().tolist() == [0.5] * 4
    assert guess.mean.flatten().tolist() == [0.5] * 4
    assert guess.previous.flatten().tolist() == [0.5, 0.0, 1.0, 1.0]

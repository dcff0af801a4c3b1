"""Large tensors a piece at a time: the same as at once."""

import pytest
import torch

from vxl_lightning.compressors import pieces
from vxl_lightning.compressors.pieces import cosines


@pytest.mark.parametrize("at_once", [1, 70, 1 << 20])
def test_cosines_are_those_of_all_cells_however_many_are_held_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ON_CPU", at_once)
    a, b = torch.randn(2, 5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosines(a, b), torch.cosine_similarity(a, b, dim=-1))
    torch.testing.assert_close(cosines(a, b[:, :1]), torch.cosine_similarity(a, b[:, :1], dim=-1))


def test_cosines_of_nothing_and_of_zero_vectors() -> None:
    assert cosines(torch.ones(0, 4, 3), torch.ones(0, 4, 3)).shape == (0, 4)
    assert cosines(torch.zeros(2, 3), torch.ones(2, 3)).tolist() == [0.0, 0.0]


def test_cosines_are_taken_in_float32() -> None:
    a, b = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert cosines(a, b).equal(cosines(a.float(), b.float()))

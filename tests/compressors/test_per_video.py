"""Cells that become tokens, video by video."""

import torch
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.compressors.per_video import VideoCompressor, best_cells, kept_cells, mean_cells
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


class Loudest(VideoCompressor):
    """Keeps the cells of the largest norm."""

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        features = video.features[0]
        return kept_cells(features, best_cells(features.float().norm(dim=-1), self.num_tokens(*features.shape[:3])))


@parametrize_laws("compressor", Loudest)
def test_law(law) -> None:
    law()


def test_padding_is_cut_off_and_the_batch_does_not_matter() -> None:
    features = torch.randn(2, 5, 2, 2, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    grid = VideoGrid(features, torch.arange(5.0).expand(2, 5), mask)
    loudest = Loudest(Loudest.Config(retention=0.25), dim=4)
    tokens = loudest(grid)
    assert tokens.lengths.tolist() == [5, 3]
    assert (tokens.source[1, 3:] == -1).all()
    alone = loudest(VideoGrid.of(features[1:, :3]))
    torch.testing.assert_close(tokens.per_video()[1], alone.features)


def test_the_earliest_wins_among_equals() -> None:
    assert best_cells(torch.tensor([[1.0, 2.0], [2.0, 2.0]]), 2).tolist() == [[False, True], [True, False]]


def test_tokens_are_the_means_of_their_cells() -> None:
    features = torch.arange(8.0).view(2, 2, 2)
    means = mean_cells(features, torch.tensor([[0, 2], [0, -1]]), 3)
    torch.testing.assert_close(means, torch.tensor([[2.0, 3.0], [0.0, 0.0], [2.0, 3.0]]))


def test_weights_are_those_of_a_sum() -> None:
    features = torch.arange(8.0).view(2, 2, 2)
    weight = torch.tensor([[0.5, 1.0], [2.0, 9.0]])
    sums = mean_cells(features, torch.tensor([[0, 2], [0, -1]]), 3, weight)
    torch.testing.assert_close(sums, torch.tensor([[8.0, 10.5], [0.0, 0.0], [2.0, 3.0]]))


def test_means_are_float32_and_pass_the_gradient_on_whatever_the_dtype() -> None:
    features = torch.ones(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    means = mean_cells(features, torch.tensor([[0, -1, 1], [1, 1, 1]]), 2)
    assert means.dtype == torch.float32
    means.sum().backward()
    assert features.grad is not None
    assert features.grad[..., 0].tolist() == [[1.0, 0.0, 0.25], [0.25, 0.25, 0.25]]


def test_where_no_cell_is_carried_all_means_are_zero() -> None:
    assert mean_cells(torch.ones(2, 3, 4), torch.full((2, 3), -1), 5).equal(torch.zeros(5, 4))

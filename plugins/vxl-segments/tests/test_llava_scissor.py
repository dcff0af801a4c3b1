"""LLaVA-Scissor: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from vxl_segments.components import Links, trees
from vxl_segments.llava_scissor import LLaVAScissor

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", LLaVAScissor)
def test_law(law: Callable[[], None]) -> None:
    law()


def turned(frames: list[list[float]]) -> VideoGrid:
    """Frames of 1 x W cells that point at the given angles, in degrees."""
    angle = torch.tensor(frames).deg2rad()
    return VideoGrid.of(torch.stack([angle.cos(), angle.sin()], -1)[None, :, None])


def sources(grid: VideoGrid, tokens: int, **config: float) -> list[list[int]]:
    cells = grid.features[0, ..., 0].numel()
    compressor = LLaVAScissor(LLaVAScissor.Config(retention=tokens / cells, **config), dim=2)  # type: ignore[arg-type]
    found = compressor(grid).source[0, :, 0].tolist()
    assert len({token for row in found for token in row}) == tokens
    return found


def test_a_chain_of_similar_cells_is_one_component() -> None:
    # 20 degrees are a cosine of .94 and 40 of .77: the first three hang together by their middle, the last is apart.
    assert sources(turned([[0, 20, 40, 90]]), 2) == [[0, 0, 0, 1]]


def test_components_of_successive_frames_are_joined() -> None:
    assert sources(turned([[0, 90], [2, 91], [180, 92]]), 3) == [[0, 1], [0, 1], [2, 1]]


def test_a_looser_budget_keeps_only_the_strongest_links_of_a_frame() -> None:
    assert sources(turned([[0, 20, 30, 35]]), 3) == [[0, 1, 2, 2]]
    assert sources(turned([[0, 20, 30, 35]]), 2) == [[0, 1, 1, 1]]


def test_links_inside_a_frame_come_before_stronger_links_in_time() -> None:
    assert sources(turned([[0, 20], [1, 180]]), 3) == [[0, 0], [1, 2]]
    assert sources(turned([[0, 20], [1, 180]]), 3, tau=0.99) == [[0, 1], [0, 2]]


def test_what_returns_is_the_same_token_within_reach_alone() -> None:
    grid = turned([[0], [90], [1]])
    assert sources(grid, 2, reach=2) == [[0], [1], [0]]
    assert sources(grid, 2, reach=1) != [[0], [1], [0]]


def test_a_token_is_the_mean_of_its_cells() -> None:
    features = torch.randn(1, 5, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    tokens = LLaVAScissor(LLaVAScissor.Config(retention=0.3, tau=0.5), dim=8)(VideoGrid.of(features))
    for k, token in enumerate(tokens.features):
        torch.testing.assert_close(token, features[tokens.source == k].mean(0))


def kruskal(similarity: Tensor) -> list[float]:
    """The links of a maximum spanning tree, weakest last, by joining the strongest that close no ring."""
    n = len(similarity)
    group = list(range(n))
    pairs = sorted(((float(similarity[i, j]), i, j) for i in range(n) for j in range(i)), reverse=True)
    taken = []
    for s, i, j in pairs:
        if group[i] != group[j]:
            taken.append(s)
            group = [group[i] if x == group[j] else x for x in group]
    return taken


@pytest.mark.parametrize("seed", range(4))
def test_trees_are_those_of_the_strongest_links(seed: int) -> None:
    points = torch.randn(3, 17, 6, generator=torch.Generator().manual_seed(seed))
    node = torch.arange(3 * 17).view(3, 17)
    links = Links.of(trees(points, node))
    for g in range(3):
        unit = torch.nn.functional.normalize(points[g], dim=-1)
        mine = links.similarity[links.ends[:, 0] // 17 == g] * 1e-5
        torch.testing.assert_close(mine, torch.tensor(kruskal(unit @ unit.T)), atol=1e-5, rtol=0)


def test_equal_links_make_trees_without_rings() -> None:
    points = torch.ones(2, 9, 4)
    node = torch.arange(18).view(2, 9)
    node[1, 6:] = -1
    links = Links.of(trees(points, node))
    assert links.ends.tolist() == [[0, i] for i in range(1, 9)] + [[9, i] for i in range(10, 15)]


def test_a_link_found_twice_counts_once_at_its_greater_similarity() -> None:
    ends = torch.tensor([[0, 1], [1, 2]])
    links = Links.of([(ends, torch.tensor([10, 20])), (ends[:1], torch.tensor([30]))])
    assert links.ends.tolist() == [[0, 1], [1, 2]]
    assert links.similarity.tolist() == [30, 20]
    assert len(links.tree(3).ends) == 2

"""MovieChat's memory: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vxl_temporal.moviechat import MovieChatMemory

from vxl_lightning.compressors.per_video import mean_cells
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid, concat_time


@parametrize_laws("compressor", MovieChatMemory)
def test_law(law: Callable[[], None]) -> None:
    law()


def pointing(degrees: list[float], lengths: list[float] | None = None) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1) * torch.tensor(lengths or [1.0] * len(degrees))[:, None]


def built(dim: int, left: int = 2, of: int = 18, **params: Any) -> MovieChatMemory:
    return MovieChatMemory(MovieChatMemory.Config(retention=left / of, short_memory=of, **params), dim=dim)


def remembered(compressor: MovieChatMemory, frames: Tensor) -> tuple[list[int], Tensor]:
    """The token of every frame of one cell, and the tokens."""
    tokens = compressor(VideoGrid.of(frames[None, :, None, None]))
    return tokens.source.flatten().tolist(), tokens.features


def test_the_neighbours_most_alike_are_merged_until_few_enough_are_left() -> None:
    # Turns of 10, 40, 5, 3 degrees. 3 goes first; its mean lies 6.5 from frame 2, which goes next; then 10.
    frames = pointing([0, 10, 50, 55, 58])
    assert remembered(built(2, 4, 5), frames)[0] == [0, 1, 2, 3, 3]
    assert remembered(built(2, 3, 5), frames)[0] == [0, 1, 2, 2, 2]
    assert remembered(built(2, 2, 5), frames)[0] == [0, 0, 1, 1, 1]


def test_what_was_merged_is_compared_anew_with_both_its_neighbours() -> None:
    # 20 and 24 become 22, which is 22 degrees from 0, where 20 was 20: now 50 and 71, 21 apart, are the most alike.
    degrees: list[float] = [0, 20, 24, 50, 71]
    assert remembered(built(2, 3, 5), pointing(degrees))[0] == [0, 1, 1, 2, 2]
    assert remembered(built(2, 3, 5), pointing(degrees[::-1]))[0] == [0, 0, 1, 1, 2]


def test_frames_are_alike_by_the_mean_of_their_cells_place_by_place() -> None:
    # Two cells that change places: the same frame as a whole, but unlike at every place.
    a, b = pointing([0, 90])
    frames = torch.stack([torch.stack([a, b]), torch.stack([b, a]), torch.stack([b, b])])
    grid = VideoGrid.of(frames[None, :, None])
    assert built(2, 2, 3)(grid).source[0, :, 0, 0].tolist() == [0, 2, 2]
    assert built(2, 2, 3, definition="released")(grid).source[0, :, 0, 0].tolist() == [0, 0, 2]


def test_a_merged_frame_is_the_mean_of_all_or_in_the_released_definition_of_two_at_a_time() -> None:
    frames = pointing([0, 10, 30])
    a, b, c = frames
    torch.testing.assert_close(remembered(built(2, 1, 3), frames)[1][0], (a + b + c) / 3)
    torch.testing.assert_close(remembered(built(2, 1, 3, definition="released"), frames)[1][0], ((a + b) / 2 + c) / 2)


def test_in_the_released_definition_long_vectors_are_alike() -> None:
    frames = pointing([0, 5, 80, 160], [1, 1, 10, 10])  # products .996, 2.6 and 17
    assert remembered(built(2, 3, 4), frames)[0] == [0, 0, 1, 2]
    assert remembered(built(2, 3, 4, definition="released"), frames)[0] == [0, 1, 2, 2]


def test_a_full_long_memory_merges_its_own_neighbours() -> None:
    # Short memories of two, both kept. Of 0, 40, 50, 90 the long memory of three merges 40 and 50; with 91 and 180 come
    # turns of 45, 45, 1 and 89, so 90 and 91 go first, and then 0 and 45: a turn of 45 against one of 45.5.
    frames = pointing([0, 40, 50, 90, 91, 180])
    assert remembered(built(2, 2, 2, long_memory=3), frames[:4])[0] == [0, 1, 1, 2]
    assert remembered(built(2, 2, 2, long_memory=3), frames)[0] == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("frames", "kept"), [(1, 1), (2, 2), (17, 2), (18, 2), (19, 3), (20, 4), (36, 4), (2304, 256), (100_000, 256)]
)
def test_the_published_memory_keeps_two_of_eighteen_frames_and_256_at_most(frames: int, kept: int) -> None:
    assert MovieChatMemory(MovieChatMemory.Config(), dim=2).num_tokens(frames, 4, 8) == kept * 32


@pytest.mark.parametrize("definition", ["paper", "released"])
def test_memory_is_bounded_and_a_stream_is_remembered_like_the_whole(definition: str) -> None:
    features = torch.randn(2, 61, 2, 3, 8, generator=torch.Generator().manual_seed(0)).cumsum(1)
    grid = VideoGrid.of(features)
    compressor = built(8, 2, 4, long_memory=7, definition=definition)
    whole = compressor(grid)
    assert whole.lengths.tolist() == [7 * 6] * 2
    state, chunks, seen = None, [], 0
    for size in (1, 3, 4, 9, 2, 17, 25):
        tokens, state = compressor.step(grid.frames(seen, seen + size), state, last=seen + size == 61)
        chunks.append(tokens)
        seen += size
        assert all(len(s.frames) < 4 for s in state.short)
        assert all(len(m.frames) <= 7 for m in state.long)
        assert [sum(m.sizes) + len(s.frames) for m, s in zip(state.long, state.short, strict=True)] == [seen] * 2
        now, so_far = compressor.recall(state), compressor(grid.frames(0, seen))
        assert torch.equal(now.source, so_far.source)
        torch.testing.assert_close(now.features, so_far.features)
        torch.testing.assert_close(now.span, so_far.span)
    joined = concat_time(chunks)
    assert torch.equal(joined.source, whole.source)
    torch.testing.assert_close(joined.features, whole.features)


def test_a_state_can_be_gone_on_from_twice() -> None:
    grid = VideoGrid.of(torch.randn(1, 12, 2, 2, 8, generator=torch.Generator().manual_seed(0)))
    compressor = built(8, 1, 4, long_memory=2)
    _, state = compressor.step(grid.frames(0, 6))
    once, _ = compressor.step(grid.frames(6, 12), state, last=True)
    twice, _ = compressor.step(grid.frames(6, 12), state, last=True)
    assert torch.equal(once.features, twice.features)
    assert torch.equal(once.source, twice.source)


def test_tokens_are_means_of_what_they_carry() -> None:
    features = torch.randn(1, 50, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    tokens = built(8, 3, 9, long_memory=5)(VideoGrid.of(features))
    torch.testing.assert_close(tokens.features, mean_cells(features, tokens.source, 30))


def test_a_still_video_merges_from_the_front() -> None:
    frame = torch.randn(1, 1, 3, 3, 96, generator=torch.Generator().manual_seed(0))
    tokens = built(96, 2, 6)(VideoGrid.of(frame.expand(1, 6, 3, 3, 96)))
    assert (tokens.source[0, :, 0, 0] // 9).tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"retention": 1 / 16}, r"0\.0555556 \(1 of 18\), 0\.111111 \(2 of 18\)"),
        ({"retention": 0.01}, r"works?: 0\.0555556 \(1 of 18\)"),
        ({"definition": "code"}, "paper, released"),
        ({"long_memory": 0}, "at least 1"),
    ],
)
def test_wrong_values_are_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MovieChatMemory.Config(**params)

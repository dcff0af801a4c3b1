"""The laws of compressors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.testing.case import (
    BF16_TOLERANCE,
    DIM,
    FLOAT_TOLERANCE,
    HEIGHT,
    WIDTH,
    Case,
    Law,
    NotApplicable,
    Outputs,
    expect,
    expect_equal,
    expect_finite,
    grid_of,
    without_side,
)
from vxl_lightning.testing.laws_common import COMMON
from vxl_lightning.tokens import VideoGrid, VideoTokens, concat_time

LONG = 64
"""Frames of the video that the announced count is held against ``retention`` on."""


@dataclass(frozen=True)
class CompressorInput:
    grid: VideoGrid
    query: Tensor | None


class CompressorCase(Case):
    kind: ClassVar[str] = "compressor"

    @property
    def group(self) -> int:
        """Frames it compresses together; 4 where it treats a video as a whole."""
        return int(self.example.frames_per_group or 4)

    @property
    def whole(self) -> int:
        """A comfortable number of frames: two full groups, and no fewer than it accepts."""
        return self.group * max(2, -(-int(self.example.min_frames) // self.group))

    def of_lengths(self, lengths: Sequence[int], **kwargs: Any) -> CompressorInput:
        generator = torch.Generator().manual_seed(9)
        query = torch.randn(len(lengths), 5, DIM, generator=generator) if self.example.needs_query else None
        return CompressorInput(grid_of(lengths, **kwargs), query)

    def sample(self, seed: int = 0) -> CompressorInput:
        return self.of_lengths([self.whole] * 3, seed=seed)

    def features_of(self, sample: CompressorInput) -> Tensor:
        return sample.grid.features

    def with_features(self, sample: CompressorInput, features: Tensor) -> CompressorInput:
        return replace(sample, grid=sample.grid.with_features(features))

    def without(self, sample: CompressorInput, need: str) -> CompressorInput:
        if need == "query":
            return replace(sample, query=None)
        return replace(sample, grid=without_side(sample.grid, need))

    def tokens(self, module: nn.Module, sample: CompressorInput) -> VideoTokens:
        tokens = module(sample.grid, sample.query)
        expect(isinstance(tokens, VideoTokens), f"forward returned {type(tokens).__name__}, not VideoTokens")
        return tokens  # type: ignore[no-any-return]

    def call(self, module: nn.Module, sample: CompressorInput) -> Outputs:
        return parts(self.tokens(module, sample))


def parts(tokens: VideoTokens) -> Outputs:
    names = ("features", "lengths", "position", "span", "source")
    return {name: getattr(tokens, name) for name in names}


def video(tokens: VideoTokens, index: int, frames: int | None = None) -> Outputs:
    """What one video of a batch became; its ``source`` cut to ``frames``."""
    start, stop = tokens.offsets[index : index + 2].tolist()
    packed = {name: getattr(tokens, name)[start:stop] for name in ("features", "position", "span")}
    return packed | {"source": tokens.source[index, :frames]}


def shapes_and_dtypes(case: CompressorCase) -> None:
    """``features [N, out_dim]`` in the grid's dtype; ``lengths``, ``source`` int64; ``position``, ``span`` float32."""
    module, sample = case.build(), case.sample()
    tokens = case.tokens(module, sample)
    b, t, h, w, _ = sample.grid.shape
    n, out_dim = len(tokens.features), int(getattr(module, "out_dim"))  # noqa: B009
    for name, shape, dtype in (
        ("features", (n, out_dim), sample.grid.features.dtype),
        ("lengths", (b,), torch.int64),
        ("position", (n, 3), torch.float32),
        ("span", (n, 2), torch.float32),
        ("source", (b, t, h, w), torch.int64),
    ):
        value = getattr(tokens, name)
        expect(tuple(value.shape) == shape, f"{name} must have shape {shape}, got {tuple(value.shape)}")
        expect(value.dtype == dtype, f"{name} must be {dtype}, got {value.dtype}")
    expect(int(tokens.lengths.sum()) == n, f"lengths sum to {int(tokens.lengths.sum())}, but there are {n} tokens")
    expect_finite(parts(tokens), "on ordinary input")


def exact_budget(case: CompressorCase) -> None:
    """Every video becomes exactly ``num_tokens`` tokens; at most that many where ``budget`` is ``bound``."""
    module: Any = case.build()
    lengths = [case.whole, case.whole + case.group, case.whole]
    got = case.tokens(module, case.of_lengths(lengths)).lengths.tolist()
    for frames, count in zip(lengths, got, strict=True):
        announced = module.num_tokens(frames, HEIGHT, WIDTH)
        expect(isinstance(announced, int) and announced > 0, f"num_tokens gave {announced!r}, not a positive int")
        if case.example.budget == "bound":
            expect(0 < count <= announced, f"{frames} frames became {count} tokens, the announced bound is {announced}")
        else:
            expect(count == announced, f"{frames} frames became {count} tokens, but num_tokens announced {announced}")


def retention_kept(case: CompressorCase) -> None:
    """``num_tokens`` is what ``Config.retention`` asks for, to one token a group, and never more than the cells."""
    module: Any = case.build()
    frames = -(-LONG // case.group) * case.group
    cells = frames * HEIGHT * WIDTH
    announced = module.num_tokens(frames, HEIGHT, WIDTH)
    expect(announced <= cells, f"num_tokens announced {announced} of {cells} cells")
    retention = getattr(module.config, "retention", None)
    if retention is None:
        raise NotApplicable("its Config has no retention of its own")
    slack = frames // case.group
    expect(
        abs(announced - cells * retention) <= slack,
        f"retention={retention:g} of {cells} cells is {cells * retention:g} tokens, num_tokens announced {announced}",
    )


def source_consistent(case: CompressorCase) -> None:
    """``source``, ``weight``, ``position`` and ``span`` tell one story.

    ``source`` names tokens of its own video; every token of a whole number of groups carries a cell; its position lies
    within its cells and its span runs from the first to the last of their frames.
    """
    sample = case.sample()
    tokens = case.tokens(case.build(), sample)
    for b, length in enumerate(tokens.lengths.tolist()):
        source = tokens.source[b]
        expect(
            int(source.min()) >= -1 and int(source.max()) < length,
            f"source of video {b} lies in {int(source.min())}..{int(source.max())}, allowed -1..{length - 1}",
        )
        one = video(tokens, b)
        for k in range(length):
            cells = (source == k).nonzero()
            expect(len(cells) > 0, f"token {k} of video {b} carries no grid cell")
            lo, hi = cells.amin(0).float() - 1e-4, cells.amax(0).float() + 1e-4
            at = one["position"][k]
            expect(bool(((at >= lo) & (at <= hi)).all()), f"position {at.tolist()} of token {k} is outside its cells")
            seconds = sample.grid.times[b, cells[:, 0]]
            want = torch.stack([seconds.amin(), seconds.amax()])
            expect(
                torch.allclose(one["span"][k], want, atol=1e-4),
                f"span of token {k} is {one['span'][k].tolist()}, its cells' frames run over {want.tolist()}",
            )


def tokens_in_time_order(case: CompressorCase) -> None:
    """Within a video, tokens come group by group (by the start of their span where there are no groups)."""
    sample = case.sample()
    module = case.build()
    tokens = case.tokens(module, sample)
    grouped = getattr(module, "frames_per_group", None) is not None
    for b in range(len(tokens.lengths)):
        start = video(tokens, b)["span"][:, 0]
        if grouped:
            start = torch.searchsorted(sample.grid.times[b].contiguous(), start.contiguous()) // case.group
        expect(bool((start.diff() >= 0).all()), f"tokens of video {b} are not in time order")


def batch_order(case: CompressorCase) -> None:
    """A video becomes the same tokens wherever it stands in the batch, and alone."""
    module, sample = case.build(), case.sample()
    whole = case.tokens(module, sample)
    for order in ([2, 0, 1], [1]):
        part = case.tokens(module, _videos(sample, order))
        for at, b in enumerate(order):
            what = f"of video {b}, alone" if len(order) == 1 else f"of video {b}, in another batch order"
            expect_equal(video(part, at), video(whole, b), what, FLOAT_TOLERANCE)


def padding_ignored(case: CompressorCase) -> None:
    """Padding frames change nothing, whatever they hold, and no token carries them."""
    module = case.build()
    lengths = [case.whole + case.group, case.whole, case.whole + 1]
    padded = case.tokens(module, case.of_lengths(lengths, padding=1e4, frames=max(lengths) + 3))
    for b, length in enumerate(lengths):
        beyond = padded.source[b, length:]
        expect(bool((beyond == -1).all()), f"source of video {b} carries padding frames")
        alone = _videos(case.of_lengths(lengths), [b])
        cut = CompressorInput(alone.grid.frames(0, length), alone.query)
        want = video(case.tokens(module, cut), 0)
        expect_equal(video(padded, b, length), want, f"of video {b}, with padding", FLOAT_TOLERANCE)


def short_and_odd_lengths(case: CompressorCase) -> None:
    """Any length from ``min_frames`` on works, one frame and odd ones too, at the count announced for it."""
    module: Any = case.build()
    for frames in sorted({1, 2, 3, 5, 7, case.group + 1} - set(range(case.example.min_frames))):
        tokens = case.tokens(module, case.of_lengths([frames]))
        announced = module.num_tokens(frames, HEIGHT, WIDTH)
        count = int(tokens.lengths[0])
        fits = count <= announced if case.example.budget == "bound" else count == announced
        expect(fits, f"a video of {frames} frames became {count} tokens, announced {announced}")
        expect_finite(parts(tokens), f"on a video of {frames} frames")


def bf16_agrees(case: CompressorCase) -> None:
    """In bfloat16 it makes the same choices (they are taken in float32), and features agree to `BF16_TOLERANCE`."""
    sample = case.close()
    half = CompressorInput(
        sample.grid.to(torch.bfloat16), None if sample.query is None else sample.query.to(torch.bfloat16)
    )
    rounded = CompressorInput(half.grid.to(torch.float32), None if half.query is None else half.query.float())
    module = case.build().to(torch.bfloat16)
    reference = case.build()
    reference.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in module.state_dict().items()})
    got = case.call(module, half)
    expect(got["features"].dtype == torch.bfloat16, f"bfloat16 in, {got['features'].dtype} out")
    expect_equal(got, case.call(reference, rounded), "between bfloat16 and float32", BF16_TOLERANCE)


def chunked_equals_whole(case: CompressorCase) -> None:
    """Where ``causal``: stepping through a video, however it is cut, gives what one call gives."""
    if not case.example.causal:
        raise NotApplicable("not causal")
    module: Any = case.build()
    expect(hasattr(module, "step"), "causal, but without step(chunk, state)")
    for frames in (case.whole, case.whole + 1):
        sample = case.of_lengths([frames] * 2)
        want = parts(case.tokens(module, sample))
        for cut in _chunkings(frames, case.group):
            chunks, state, start = [], None, 0
            for size in cut:
                chunk = sample.grid.frames(start, start + size)
                start += size
                tokens, state = module.step(chunk, state, query=sample.query, last=start == frames)
                chunks.append(tokens)
            got = parts(concat_time(chunks))
            expect_equal(got, want, f"for {frames} frames in chunks of {cut}", FLOAT_TOLERANCE)


def _chunkings(frames: int, group: int) -> list[list[int]]:
    """One piece, single frames, cuts on and beside a group's edge, and three by chance."""
    cuts = [[frames], [1] * frames, [1, frames - 1], [group, frames - group], [group - 1, 2, frames - group - 1]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        at = torch.randperm(frames - 1, generator=generator)[:3].add(1).sort().values.tolist()
        cuts.append([b - a for a, b in zip([0, *at], [*at, frames], strict=True)])
    return [[size for size in cut if size > 0] for cut in cuts]


def _videos(sample: CompressorInput, order: list[int]) -> CompressorInput:
    g = sample.grid
    side = {n: None if getattr(g, n) is None else getattr(g, n)[order] for n in ("importance", "motion")}
    grid = VideoGrid(g.features[order], g.times[order], g.frame_mask[order], **side)
    return CompressorInput(grid, None if sample.query is None else sample.query[order])


COMPRESSOR_LAWS: tuple[Law, ...] = (
    shapes_and_dtypes,
    exact_budget,
    retention_kept,
    source_consistent,
    tokens_in_time_order,
    batch_order,
    padding_ignored,
    short_and_odd_lengths,
    bf16_agrees,
    chunked_equals_whole,
    *COMMON,
)

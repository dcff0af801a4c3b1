"""The compressor contract: `VideoGrid` in, fewer `VideoTokens` out, at a budget known beforehand."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.tokens import VideoGrid, VideoTokens


class Compressor(nn.Module, ABC):
    """Turns the cells of a grid into tokens.

    A subclass declares its traits, owns a frozen ``Config`` dataclass, and writes ``compress``
    and ``num_tokens``. It is built as ``Class(Config(...), dim=D)``, D the channels of the grid.

    Traits:
        causal: a token depends on no frame after those it stands for; ``step`` is available.
        trainable: has parameters that learn.
        needs_query: ``compress`` must be given a query.
        needs_importance: the grid must carry ``importance``.
        frames_per_group: frames that are compressed together, or None when all are. Set on the
            instance where the config decides it.
        min_frames: fewest frames it accepts.
        stage: ``tokens`` before the language model, ``cache`` inside it.
        origin: paper and licence of the original.
        budget: ``exact`` when ``num_tokens`` is the count, ``bound`` when it is an upper bound. Set on
            the instance where the config decides it.
    """

    causal: ClassVar[bool] = False
    trainable: ClassVar[bool] = False
    needs_query: ClassVar[bool] = False
    needs_importance: ClassVar[bool] = False
    frames_per_group: int | None = None
    min_frames: ClassVar[int] = 1
    stage: ClassVar[str] = "tokens"
    origin: ClassVar[str] = ""
    budget: str = "exact"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        retention: float = 1 / 16
        """Fraction of grid cells that reach the language model, in (0, 1]."""

        def __post_init__(self) -> None:
            if not 0 < self.retention <= 1:
                raise ValueError(f"retention={self.retention} is not in (0, 1]; 0.0625 keeps one cell in sixteen")

        @property
        def parts(self) -> list[Any]:
            """Other plugins that this one is made of: names, or mappings of a name and its parameters."""
            return []

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = dim

    @property
    def out_dim(self) -> int:
        """Channels of the tokens it gives."""
        return self.dim

    @abstractmethod
    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        """Tokens one video of this size becomes (an upper bound where ``budget`` is ``bound``).

        Raises:
            ValueError: the configured retention cannot be met on such a grid.
        """

    @abstractmethod
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        """The method itself. The grid has been checked; ``query`` is ``[B, Q, D]`` or None."""

    def forward(self, grid: VideoGrid, query: Tensor | None = None) -> VideoTokens:
        """Compress ``[B, T, H, W, D]`` cells.

        Args:
            grid: padding frames are ignored.
            query: ``[B, Q, D]`` embedded question, for methods that need one.

        Raises:
            ValueError: wrong channels, NaN, too few frames, or a missing query or importance.
        """
        name = type(self).__name__
        if grid.shape[-1] != self.dim:
            raise ValueError(f"{name} was built for dim={self.dim} channels, but the grid has {grid.shape[-1]}")
        if self.needs_query and query is None:
            raise ValueError(f"{name} is query-aware: pass query=[B,Q,D], the embedded question")
        if self.needs_importance and grid.importance is None:
            raise ValueError(f"{name} needs VideoGrid.importance; choose an encoder that provides it (importance=true)")
        grid.check()
        if int(grid.num_frames.min()) < self.min_frames:
            raise ValueError(f"{name} needs at least {self.min_frames} frames, got {int(grid.num_frames.min())}")
        return self.compress(grid, query)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        """Config keyword arguments of tiny instances for the conformance kit (a 4x4 grid, D=32)."""
        return [{"retention": 1 / 16}, {"retention": 1 / 4}]


@dataclass
class StreamState:
    """What a group compressor remembers between steps: frames not yet consumed, and how many were."""

    pending: VideoGrid | None = None
    consumed: int = 0


@dataclass(frozen=True)
class Groups:
    """All groups of a batch, flattened: ``features [G, F, H, W, D]``, and where each came from.

    ``index [G]`` counts a group within its own video, so that nothing depends on the batch's order.
    ``importance`` and ``motion`` are ``[G, F, H, W]`` or None. A video's last group is filled by
    repeating its last frame; ``valid [G, F]`` is False on those copies.
    """

    features: Tensor
    index: Tensor
    valid: Tensor
    importance: Tensor | None = None
    motion: Tensor | None = None
    query: Tensor | None = None
    video: Tensor = field(default_factory=lambda: torch.empty(0))


class GroupCompressor(Compressor):
    """A compressor that treats every ``frames_per_group`` frames alone: causal, and streamable for free.

    A subclass writes ``tokens_per_group`` and ``compress_groups``; groups, padding, packing and
    ``step`` are handled here.
    """

    causal = True

    @abstractmethod
    def tokens_per_group(self, height: int, width: int) -> int:
        """Exact tokens every group becomes."""

    @abstractmethod
    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Compress each group.

        Returns:
            ``features [G, K, D]`` and ``source [G, F, H, W]`` with the carrying token in ``0..K-1``, or -1.
        """

    @property
    def group_size(self) -> int:
        size = self.frames_per_group
        assert size is not None, "a GroupCompressor sets frames_per_group"
        return size

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return -(-num_frames // self.group_size) * self.tokens_per_group(height, width)

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        return self._compress(grid, query, first_group=0)

    def _compress(self, grid: VideoGrid, query: Tensor | None, first_group: int) -> VideoTokens:
        size = self.group_size
        b, t, h, w, d = grid.shape
        count = -(-t // size)
        device = grid.features.device
        slot = torch.arange(count * size, device=device)
        frame = torch.minimum(slot[None], grid.num_frames[:, None] - 1)  # [B, n*F]: past the end, the last frame again
        real = slot[None] < grid.num_frames[:, None]
        alive = real.view(b, count, size)[:, :, 0]  # a group exists when its first frame does
        row = torch.arange(b, device=device)[:, None].expand_as(frame)
        whole = bool(real.all()) and t == count * size

        def grouped(x: Tensor | None) -> Tensor | None:
            if x is None:
                return None
            if whole:  # nothing to fill up or leave out, so nothing is copied
                return x.reshape(b * count, size, *x.shape[2:])
            return x[row, frame].reshape(b, count, size, *x.shape[2:])[alive]

        video = row[:, :1].expand(b, count)[alive]
        features = grouped(grid.features)
        assert features is not None
        groups = Groups(
            features=features,
            index=(torch.arange(count, device=device).expand(b, count) + first_group)[alive],
            valid=real.view(b, count, size)[alive],
            importance=grouped(grid.importance),
            motion=grouped(grid.motion),
            query=None if query is None else query[video],
            video=video,
        )
        k = self.tokens_per_group(h, w)
        out, local = self.compress_groups(groups)
        assert out.shape[:2] == (len(video), k), (
            f"compress_groups gave {tuple(out.shape)}, announced {k} tokens a group"
        )
        ordinal = torch.arange(count, device=device).expand(b, count)[alive]
        local = torch.where(local >= 0, local + (ordinal * k)[:, None, None, None], local)
        local = local.masked_fill(~groups.valid[:, :, None, None], -1)
        source = torch.full((b, count, size, h, w), -1, dtype=torch.long, device=device)
        source[alive] = local
        source = source.reshape(b, count * size, h, w)[:, :t]
        tokens = VideoTokens.carry(out.flatten(0, 1), alive.sum(1) * k, source, grid)
        # In a last group of fewer cells than tokens, the tokens without cells stand at the group's first frame.
        empty = (tokens.weight == 0).nonzero()[:, 0]
        first = (ordinal * size).repeat_interleave(k)[empty]
        tokens.position[empty, 0] = first.float()
        tokens.span[empty] = grid.times.float()[video.repeat_interleave(k)[empty], first][:, None]
        return tokens

    def step(
        self, chunk: VideoGrid, state: StreamState | None = None, *, query: Tensor | None = None, last: bool = False
    ) -> tuple[VideoTokens, StreamState]:
        """Compress a video as its frames arrive.

        Args:
            chunk: the next frames (any number), without padding.
            state: what the previous step returned, or None at the beginning.
            last: no frames follow; an incomplete group is finished too.

        Returns:
            Tokens of the groups completed so far, whose ``source`` covers exactly the frames they
            consumed, and the new state. `concat_time` joins them to what ``forward`` gives.
        """
        state = state or StreamState()
        if not bool(chunk.frame_mask.all()):
            raise ValueError("step takes frames as they come, without padding; pass the valid frames alone")
        grid = chunk if state.pending is None else _join(state.pending, chunk)
        t = grid.shape[1]
        ready = t if last else t - t % self.group_size
        if ready == 0:
            b, _, h, w, _ = grid.shape
            empty = grid.features.new_zeros(0, self.out_dim)
            none = torch.empty(b, 0, h, w, dtype=torch.long, device=empty.device)
            zeros = torch.zeros(b, dtype=torch.long, device=empty.device)
            return VideoTokens(
                empty, zeros, empty.new_zeros(0, 3).float(), empty.new_zeros(0, 2).float(), none
            ), replace(state, pending=grid)
        done = grid.frames(0, ready).check()
        tokens = self._compress(done, query, first_group=state.consumed // self.group_size)
        rest = grid.frames(ready, t) if ready < t else None
        return tokens, StreamState(pending=rest, consumed=state.consumed + ready)


def _join(a: VideoGrid, b: VideoGrid) -> VideoGrid:
    parts: dict[str, Any] = {}
    for f in fields(VideoGrid):
        x, y = getattr(a, f.name), getattr(b, f.name)
        parts[f.name] = None if x is None or y is None else torch.cat([x, y], 1)
    return VideoGrid(**parts)


def budget_tokens(cells: int, retention: float) -> int:
    """Tokens that ``retention`` of ``cells`` comes to, rounded half up.

    Raises:
        ValueError: it comes to none; the least that can be kept is named.
    """
    count = int(cells * retention + 0.5)
    if count < 1:
        raise ValueError(
            f"retention={retention:.6g} of {cells} cells is {cells * retention:.3g} tokens; the least that keeps "
            f"one is {1 / cells:.6g}, or compress more frames together (frames_per_group)"
        )
    return count


def blocks(cells: int, retention: float, height: int, width: int, aspect: float = 1.0) -> tuple[int, int]:
    """Rows and columns of an output grid that spends ``retention`` of a group's cells exactly.

    Of all factorings ``rows * cols`` with ``rows <= height`` and ``cols <= width`` the one is taken whose
    blocks of cells are nearest to ``aspect`` times as wide as high, wide before tall.

    Raises:
        ValueError: no such factoring; the nearest retentions that have one are named.
    """
    want = budget_tokens(cells, retention)
    shapes = {r * c: (r, c) for r in range(1, height + 1) for c in range(1, width + 1)}
    if want not in shapes:
        near = sorted(shapes, key=lambda k: (abs(k - want), k))[:3]
        listed = ", ".join(f"{k / cells:.6g} ({shapes[k][0]}x{shapes[k][1]})" for k in sorted(near))
        raise ValueError(
            f"retention={retention:.6g} asks for {want} tokens from a group of {cells} cells, which no grid of at most "
            f"{height}x{width} gives; nearest that do: {listed}"
        )
    fits = [(r, want // r) for r in range(1, height + 1) if want % r == 0 and want // r <= width]
    return min(fits, key=lambda rc: (abs(rc[0] * width - aspect * rc[1] * height), rc[0]))

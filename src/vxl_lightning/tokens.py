"""The currency: what an encoder gives (`VideoGrid`) and what a compressor gives (`VideoTokens`).

Axes: B videos, T frames, H x W cells of one frame, D channels, N tokens of all videos, packed.
This file imports torch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, eq=False)
class VideoGrid:
    """Encoded frames of a batch of videos.

    Attributes:
        features: ``[B, T, H, W, D]`` floating point.
        times: ``[B, T]`` presentation time of each frame in seconds, float32.
        frame_mask: ``[B, T]`` bool, False where a frame is padding. Padding comes last:
            the valid frames of a video are a prefix, and there is at least one.
        importance: ``[B, T, H, W]`` attention mass the encoder gave each cell, or None.
        motion: ``[B, T, H, W]`` motion magnitude of each cell, or None.

    Raises:
        ValueError: a shape or dtype disagrees, or padding is not a suffix.
    """

    features: Tensor
    times: Tensor
    frame_mask: Tensor
    importance: Tensor | None = None
    motion: Tensor | None = None

    def __post_init__(self) -> None:
        f = self.features
        _expect(f.ndim == 5, f"VideoGrid.features must be [B,T,H,W,D], got shape {tuple(f.shape)}")
        _expect(
            f.is_floating_point(), f"VideoGrid.features must be floating point, got {f.dtype}; convert frames first"
        )
        b, t, h, w, _ = f.shape
        _expect(min(b, t, h, w) > 0, f"VideoGrid.features has an empty axis: shape {tuple(f.shape)}")
        for name, shape in (("times", (b, t)), ("frame_mask", (b, t))):
            got = tuple(getattr(self, name).shape)
            _expect(got == shape, f"VideoGrid.{name} must be [B,T] = {shape}, got {got}")
        _expect(self.frame_mask.dtype == torch.bool, f"VideoGrid.frame_mask must be bool, got {self.frame_mask.dtype}")
        for name in ("importance", "motion"):
            side = getattr(self, name)
            if side is not None:
                got = tuple(side.shape)
                _expect(got == (b, t, h, w), f"VideoGrid.{name} must be [B,T,H,W] = {(b, t, h, w)}, got {got}")

    @classmethod
    def of(cls, features: Tensor, times: Tensor | None = None, **side: Any) -> "VideoGrid":
        """Grid without padding; ``times`` default to one frame a second."""
        b, t = features.shape[:2]
        if times is None:
            times = torch.arange(t, dtype=torch.float32, device=features.device).expand(b, t)
        mask = torch.ones(b, t, dtype=torch.bool, device=features.device)
        return cls(features, times, mask, **side)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(B, T, H, W, D)."""
        b, t, h, w, d = self.features.shape
        return b, t, h, w, d

    @cached_property
    def num_frames(self) -> Tensor:
        """``[B]`` valid frames of each video."""
        return self.frame_mask.sum(1)

    def check(self) -> "VideoGrid":
        """Check what shapes cannot show: finite features, padding as a suffix, a valid first frame.

        Costs one pass over the features (and a device synchronisation), so it runs where data
        enters a compressor and not at every construction.
        """
        m = self.frame_mask
        _expect(
            bool(m[:, 0].all()), "VideoGrid.frame_mask: every video needs at least one valid frame, and it comes first"
        )
        _expect(
            not bool((m[:, 1:] & ~m[:, :-1]).any()),
            "VideoGrid.frame_mask: padding frames must come after all valid ones",
        )
        # A sum is finite only if all it adds are. One that is not may have overflowed, so its cell is looked at.
        doubtful = ~torch.isfinite(self.features.detach().sum(-1)) & m[:, :, None, None]
        if bool(doubtful.any()):
            broken = ~torch.isfinite(self.features[doubtful]).all(-1)
            if bool(broken.any()):
                where = doubtful.nonzero()[broken][0].tolist()
                raise ValueError(
                    "VideoGrid.features has NaN or infinite values, first at (video, frame, row, column) = "
                    f"{tuple(where)}; check the encoder's dtype and the decoded frames"
                )
        return self

    def frames(self, start: int, stop: int) -> "VideoGrid":
        """The frames ``start:stop`` of every video, side information included."""
        cut = {n: getattr(self, n)[:, start:stop] for n in ("features", "times", "frame_mask")}
        for n in ("importance", "motion"):
            side = getattr(self, n)
            cut[n] = None if side is None else side[:, start:stop]
        return VideoGrid(**cut)

    def with_features(self, features: Tensor) -> "VideoGrid":
        return replace(self, features=features)

    def to(self, *args: Any, **kwargs: Any) -> "VideoGrid":
        """Move all tensors to a device; change the dtype of the features alone."""
        features = self.features.to(*args, **kwargs)
        move = {n: getattr(self, n).to(features.device) for n in ("times", "frame_mask")}
        for n in ("importance", "motion"):
            side = getattr(self, n)
            move[n] = None if side is None else side.to(features.device)
        return VideoGrid(features=features, **move)


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """Tokens of a batch of videos, packed: those of video 0, then of video 1, ... in time order.

    Attributes:
        features: ``[N, D]``.
        lengths: ``[B]`` int64, tokens of each video; sums to N.
        position: ``[N, 3]`` float32 (t, y, x) in grid units of the source; a centroid when merged.
        span: ``[N, 2]`` float32, seconds of the first and the last frame a token stands for.
        source: ``[B, T, H, W]`` int64, for every grid cell the token (counted within its own video)
            that carries it, or -1 where the cell was dropped or is padding.
    """

    features: Tensor
    lengths: Tensor
    position: Tensor
    span: Tensor
    source: Tensor

    def __post_init__(self) -> None:
        n = self.features.shape[0]
        _expect(self.features.ndim == 2, f"VideoTokens.features must be [N,D], got {tuple(self.features.shape)}")
        _expect(
            self.position.shape == (n, 3),
            f"VideoTokens.position must be [N,3] = {(n, 3)}, got {tuple(self.position.shape)}",
        )
        _expect(self.span.shape == (n, 2), f"VideoTokens.span must be [N,2] = {(n, 2)}, got {tuple(self.span.shape)}")
        _expect(self.source.ndim == 4, f"VideoTokens.source must be [B,T,H,W], got {tuple(self.source.shape)}")
        _expect(
            self.lengths.shape == self.source.shape[:1],
            f"VideoTokens.lengths must be [B] = {tuple(self.source.shape[:1])}, got {tuple(self.lengths.shape)}",
        )

    @classmethod
    def carry(cls, features: Tensor, lengths: Tensor, source: Tensor, grid: VideoGrid) -> "VideoTokens":
        """Tokens whose position and span follow from the cells they carry.

        The position is the centroid of the cells, the span the first to the last of their frames'
        times. Every token must carry at least one cell; one that carries none sits at the origin
        with an empty span at its video's first frame.
        """
        b, t, h, w = source.shape
        device, n = features.device, features.shape[0]
        start = lengths.cumsum(0) - lengths
        kept = source >= 0
        token = (source + start[:, None, None, None])[kept]
        vid, frame, row, col = kept.nonzero(as_tuple=True)
        count = torch.zeros(n, device=device).index_add_(0, token, torch.ones_like(token, dtype=torch.float32))
        cell = torch.stack([frame, row, col], 1).float()
        position = torch.zeros(n, 3, device=device).index_add_(0, token, cell) / count.clamp(min=1)[:, None]
        seconds = grid.times.float()[vid, frame]
        first = grid.times.float()[:, 0].repeat_interleave(lengths, output_size=n)
        lo = first.scatter_reduce(0, token, seconds, "amin", include_self=False)
        hi = first.scatter_reduce(0, token, seconds, "amax", include_self=False)
        return cls(features, lengths, position, torch.stack([lo, hi], 1), source)

    @cached_property
    def weight(self) -> Tensor:
        """``[N]`` float32, how many grid cells each token stands for."""
        kept = self.source >= 0
        token = (self.source + self.offsets[:-1, None, None, None])[kept]
        return torch.bincount(token, minlength=self.features.shape[0]).float()

    @cached_property
    def offsets(self) -> Tensor:
        """``[B + 1]`` where each video's tokens start and end in the packed axis."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    @cached_property
    def video(self) -> Tensor:
        """``[N]`` the video each token belongs to."""
        ids = torch.arange(len(self.lengths), device=self.lengths.device)
        return ids.repeat_interleave(self.lengths, output_size=self.features.shape[0])

    def per_video(self) -> list[Tensor]:
        """One ``[n_b, D]`` feature tensor a video."""
        return list(self.features.split(self.lengths.tolist()))

    def padded(self) -> tuple[Tensor, Tensor]:
        """``([B, L, D]`` features padded with zeros, ``[B, L]`` bool mask of real tokens)."""
        features = torch.nn.utils.rnn.pad_sequence(self.per_video(), batch_first=True)
        mask = torch.arange(features.shape[1], device=self.lengths.device)[None] < self.lengths[:, None]
        return features, mask

    def select(self, keep: Tensor) -> "VideoTokens":
        """Only the tokens where ``keep [N]`` is True; cells of the others become dropped."""
        new = torch.cumsum(keep, 0) - 1
        lengths = torch.zeros_like(self.lengths).index_add_(0, self.video[keep], torch.ones_like(self.video[keep]))
        start = lengths.cumsum(0) - lengths
        old = (self.source + self.offsets[:-1, None, None, None]).clamp(0, max(len(keep) - 1, 0))
        alive = (self.source >= 0) & keep[old]
        source = torch.where(alive, new[old] - start[:, None, None, None], torch.full_like(self.source, -1))
        return VideoTokens(self.features[keep], lengths, self.position[keep], self.span[keep], source)

    def with_features(self, features: Tensor) -> "VideoTokens":
        return replace(self, features=features)


def concat_time(chunks: Sequence[VideoTokens]) -> VideoTokens:
    """Join the tokens of successive stretches of the same videos, as if compressed in one piece.

    Each chunk's ``source`` covers the frames it consumed, and its positions count from its own
    first frame; both are shifted here. Videos keep their order, time runs on within each.
    """
    _expect(len(chunks) > 0, "concat_time needs at least one chunk")
    parts: dict[str, list[Tensor]] = {"features": [], "position": [], "span": []}
    frames = 0
    shift = torch.zeros_like(chunks[0].lengths)
    sources, pieces = [], []
    for c in chunks:
        moved = torch.where(c.source >= 0, c.source + shift[:, None, None, None], c.source)
        position = c.position + c.position.new_tensor([float(frames), 0.0, 0.0])
        sizes = c.lengths.tolist()
        pieces.append((c.features.split(sizes), position.split(sizes), c.span.split(sizes)))
        sources.append(moved)
        frames += c.source.shape[1]
        shift = shift + c.lengths
    for b in range(len(chunks[0].lengths)):
        for features, position, span in pieces:
            parts["features"].append(features[b])
            parts["position"].append(position[b])
            parts["span"].append(span[b])
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}
    return VideoTokens(lengths=shift, source=torch.cat(sources, 1), **joined)

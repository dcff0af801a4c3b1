"""MovieChat's memory: a short one that takes frames in, a long one of frames merged with their like."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.per_video import VideoCompressor
from vxl_lightning.tokens import VideoGrid, VideoTokens
from vxl_temporal.change import similarity

DEFINITIONS = ("paper", "released")


@dataclass
class Stretch:
    """Successive frames, some of them merged.

    Attributes:
        frames: ``[H, W, D]`` float32 each.
        sizes: how many frames of the video each stands for.
        alike: of each but the last, how like the next it is.
    """

    frames: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)

    def copy(self) -> "Stretch":
        return Stretch(list(self.frames), list(self.sizes), list(self.alike))

    def extend(self, frames: list[Tensor], sizes: list[int], definition: str) -> None:
        joined = [*self.frames[-1:], *frames]
        self.alike += _alike(joined[:-1], joined[1:], definition)
        self.frames += frames
        self.sizes += sizes

    def consolidate(self, count: int, definition: str) -> None:
        """Merge the two neighbours most like one another, the earliest among equals, until ``count`` are left."""
        while len(self.frames) > count:
            at = self.alike.index(max(self.alike))
            a, b = self.sizes[at : at + 2]
            share = b / (a + b) if definition == "paper" else 0.5
            self.frames[at : at + 2] = [torch.lerp(self.frames[at], self.frames[at + 1], share)]
            self.sizes[at : at + 2] = [a + b]
            # The merged frame is compared anew with the one before and the one after it.
            first = max(at - 1, 0)
            beside = _alike(self.frames[first : at + 1], self.frames[first + 1 : at + 2], definition)
            self.alike[first : at + 2] = beside


@torch.no_grad()
def _alike(frames: list[Tensor], following: list[Tensor], definition: str) -> list[float]:
    """How like the frame that follows it each is; ``following`` may have one frame less."""
    frames = frames[: len(following)]
    if not frames:
        return []
    a, b = torch.stack(frames), torch.stack(following)
    if definition == "paper":
        return [round(x, 6) for x in similarity(a, b).mean((1, 2)).tolist()]
    # The mean over all pairs of cells of their products is the product of the frames' means.
    return (a.mean((1, 2)) * b.mean((1, 2))).sum(-1).tolist()


@dataclass(frozen=True)
class MemoryState:
    """What is remembered of a batch of videos between steps.

    Attributes:
        short: of each video the frames not yet consolidated, fewer than ``short_memory``.
        long: of each video what the frames before became, at most ``long_memory``.
        times: ``[B, T]`` seconds of all frames so far; all that grows with the video, four bytes a frame.
        dtype: of the features.
    """

    short: list[Stretch]
    long: list[Stretch]
    times: Tensor
    dtype: torch.dtype


class MovieChatMemory(VideoCompressor):
    """A short memory that takes frames in, and a long one of merged frames, both bounded; the long one is the result.

    Frames enter the short memory. When it holds ``short_memory`` of them, the two neighbours that are most like one
    another are merged, over and over, until ``retention`` of its frames are left; these go to the long memory, and the
    short one begins anew. Where the long memory then holds more than ``long_memory`` frames, its neighbours are merged
    likewise. What the short memory holds when the video ends goes the same way, merged where it is more than a full one
    would leave. With R = ``retention * short_memory``, which must be a whole number, T frames become exactly

        ``min(long_memory, R * (T // short_memory) + min(R, T % short_memory))``

    frames of ``H * W`` tokens: ``retention`` of the cells until the long memory is full, and never more than it holds,
    however long the video. A token is a mean over successive frames of the cells at one place.

    It streams with ``step``, which holds no more frames than the two memories do and gives all tokens after the last
    frame, because until then they may be merged; ``recall`` gives what is remembered in the midst of a video. As with
    any method that treats a group of frames together, which of them are merged depends on later ones of the group.

    - ``definition=paper``: two frames are alike by the mean cosine of the cells at the same places, and a merged frame
      is the mean of all frames that it stands for.
    - ``definition=released``: as in the authors' code, by the mean product of all pairs of cells, and a merged frame is
      the plain mean of the two that were merged, whatever they stand for.

    After Song et al., "MovieChat" (arXiv 2307.16449), with its defaults: 18 frames, of which 2 are left, and 256.
    Differs: when the long memory is full its most similar neighbours are merged; the released code forgets the oldest
    frames or, on its other path, merges the neighbours that are least alike. Asked in the midst of a video, that code
    also adds the frames of the short memory unmerged.
    """

    causal = True
    origin: ClassVar[str] = "MovieChat (arXiv 2307.16449; rese1f/MovieChat, BSD-3-Clause)"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        retention: float = 2 / 18
        """Fraction of the short memory's frames that the long memory gets; times ``short_memory`` a whole number."""
        short_memory: int = 18
        """Frames that are consolidated together."""
        long_memory: int = 256
        """The most frames that are kept of a video, however long."""
        definition: str = "paper"
        """``paper``: frames are alike by the cosines place by place, and means are over all frames merged;
        ``released``: by the product of their mean cells, and means are of two at a time."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if min(self.short_memory, self.long_memory) < 1:
                raise ValueError(
                    f"short_memory={self.short_memory} and long_memory={self.long_memory} must be at least 1"
                )
            if self.definition not in DEFINITIONS:
                raise ValueError(f"definition={self.definition!r} is not one of {', '.join(DEFINITIONS)}")
            frames = self.retention * self.short_memory
            if abs(frames - round(frames)) > 1e-6 or frames < 0.5:
                near = sorted({max(1, int(frames)), min(self.short_memory, int(frames) + 1)})
                listed = ", ".join(f"{n / self.short_memory:.6g} ({n} of {self.short_memory})" for n in near)
                raise ValueError(
                    f"retention={self.retention:.6g} of short_memory={self.short_memory} frames is {frames:.4g}, which "
                    f"must be a whole number of frames; nearest that work: {listed}, or change short_memory"
                )

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.short_memory
        self.consolidated = round(config.retention * config.short_memory)

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        windows, rest = divmod(num_frames, self.config.short_memory)
        frames = windows * self.consolidated + min(rest, self.consolidated)
        return int(min(frames, self.config.long_memory) * height * width)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        short, long = Stretch(), Stretch()
        self._watch(video.features[0], short, long)
        return self._remembered(short, long)

    def step(
        self, chunk: VideoGrid, state: MemoryState | None = None, *, query: Tensor | None = None, last: bool = False
    ) -> tuple[VideoTokens, MemoryState]:
        """Watch a video as its frames arrive.

        Args:
            chunk: the next frames (any number), without padding.
            state: what the previous step returned, or None at the beginning.
            query: not used.
            last: no frames follow: the tokens of the whole video are given.

        Returns:
            No tokens, whose ``source`` covers no frames, or after the last frame those that ``forward`` gives; and the
            new state. The one passed in stays as it was.
        """
        if not bool(chunk.frame_mask.all()):
            raise ValueError("step takes frames as they come, without padding; pass the valid frames alone")
        b, _, h, w, _ = chunk.check().shape
        dtype = chunk.features.dtype
        if state is None:
            state = MemoryState([Stretch()] * b, [Stretch()] * b, chunk.times[:, :0], dtype)
        times = torch.cat([state.times, chunk.times], 1)
        state = MemoryState([s.copy() for s in state.short], [s.copy() for s in state.long], times, dtype)
        for frames, short, long in zip(chunk.features, state.short, state.long, strict=True):
            self._watch(frames, short, long)
        if last:
            return self.recall(state), state
        none = chunk.features.new_zeros(0, self.out_dim)
        source = torch.empty(b, 0, h, w, dtype=torch.long, device=none.device)
        lengths = torch.zeros(b, dtype=torch.long, device=none.device)
        return VideoTokens(none, lengths, none.new_zeros(0, 3).float(), none.new_zeros(0, 2).float(), source), state

    def recall(self, state: MemoryState) -> VideoTokens:
        """What is remembered of the frames so far, as ``forward`` would give it for them."""
        parts = [self._remembered(short, long) for short, long in zip(state.short, state.long, strict=True)]
        source = torch.stack([carrier for _, carrier in parts])
        lengths = torch.tensor([len(features) for features, _ in parts], device=source.device)
        # The frames are gone; positions and spans follow from their places and times.
        frames = VideoGrid.of(source.new_zeros(1, dtype=state.dtype).expand(*source.shape, 1), state.times)
        return VideoTokens.carry(
            torch.cat([features for features, _ in parts]).to(state.dtype), lengths, source, frames
        )

    def _watch(self, frames: Tensor, short: Stretch, long: Stretch) -> None:
        """Take in ``frames [T, H, W, D]``. Both memories are changed."""
        size, definition = self.config.short_memory, self.config.definition
        start = 0
        while start < len(frames):
            stop = start + size - len(short.frames)
            # Copies, for a view of one frame would keep the whole chunk in memory.
            taken = [frame.to(torch.float32, copy=True) for frame in frames[start:stop]]
            short.extend(taken, [1] * len(taken), definition)
            if len(short.frames) == size:
                self._consolidate(short, long)
                short.frames, short.sizes, short.alike = [], [], []
            start = stop

    def _consolidate(self, short: Stretch, long: Stretch) -> None:
        definition = self.config.definition
        short.consolidate(self.consolidated, definition)
        long.extend(short.frames, short.sizes, definition)
        long.consolidate(self.config.long_memory, definition)

    def _remembered(self, short: Stretch, long: Stretch) -> tuple[Tensor, Tensor]:
        """``features [n, D]`` and ``source [T, H, W]`` were the video to end here. Both memories stay as they are."""
        short, long = short.copy(), long.copy()
        self._consolidate(short, long)
        frames = torch.stack(long.frames)
        n, h, w, _ = frames.shape
        device = frames.device
        frame = torch.arange(n, device=device).repeat_interleave(torch.tensor(long.sizes, device=device))
        return frames.flatten(0, 2), frame[:, None, None] * h * w + torch.arange(h * w, device=device).view(h, w)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"short_memory": 6, "retention": 1 / 3},
            {"short_memory": 4, "retention": 1 / 4},
            {"short_memory": 5, "retention": 3 / 5, "definition": "released"},
            {"short_memory": 1, "retention": 1.0},
        ]

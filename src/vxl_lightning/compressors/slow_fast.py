"""Two compressors over one video at two rates: few frames in detail, and all frames in brief."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.compressors.per_video import VideoCompressor
from vxl_lightning.tokens import VideoGrid, VideoTokens

PATHS = ("slow", "fast")


class SlowFast(VideoCompressor):
    """A slow path over few frames with many tokens each, and a fast path over all frames with few tokens each.

    The slow path sees ``slow_rate`` of the frames, the first of each of as many stretches; the fast path sees all.
    Each is any compressor, which states no retention of its own: ``retention`` and ``slow_share`` decide both, the slow
    path's being ``retention * slow_share / slow_rate`` of its frames' cells and the fast path's
    ``retention * (1 - slow_share)`` of all cells. The defaults are the paper's in proportion: 10 of 50 frames of 24x24
    cells at 24x12, each the maximum of two neighbours, and 4x4 means of all 50.

    ``source`` names one token a cell, and a cell of a slow frame went into two. It is carried by its slow token;
    all other cells by their fast tokens. A token left without a cell so, which a fast one of a slow frame is when it
    stands for that frame alone, takes the next cell, in order of time and raster, that its carrier can spare: while
    a frame has more cells than tokens this is a cell of its own block or a near one. ``source`` says that much less
    than the features, which see all cells on both paths.

    After SlowFast-LLaVA (Xu et al., arXiv 2407.15841, section 3). Differs: any two compressors at any rates, not
    pooling alone; and tokens come in order of time, at equal times the slow before the fast, where the paper lays out
    the whole slow path before the whole fast path, because the time text stands between frames here.
    The traits ``trainable``, ``needs_query``, ``needs_importance``, ``min_frames`` and ``budget`` of an instance follow
    from its paths.
    """

    trainable = True
    origin = (
        "SlowFast-LLaVA (arXiv 2407.15841; apple/ml-slowfast-llava, Apple sample code licence, not used); "
        "written from the published description"
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        retention: float = 23 / 180
        """Fraction of grid cells that reach the language model, both paths together, in (0, 1]."""
        slow_share: float = 18 / 23
        """Fraction of the tokens that the slow path gets, in (0, 1)."""
        slow_rate: float = 0.2
        """Fraction of the frames that the slow path sees, in (0, 1]."""
        slow: Any = field(
            default_factory=lambda: {"name": "pool", "frames_per_group": 1, "mode": "max", "block_aspect": 2.0}
        )
        """Name of the slow path's compressor, or a mapping of its name and parameters without retention."""
        fast: Any = field(default_factory=lambda: {"name": "pool", "frames_per_group": 1})
        """Name of the fast path's compressor, or a mapping of its name and parameters without retention."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.slow_share < 1:
                raise ValueError(f"slow_share={self.slow_share} is not in (0, 1); for one path alone name it instead")
            if not 0 < self.slow_rate <= 1:
                raise ValueError(f"slow_rate={self.slow_rate} is not in (0, 1]; 0.2 shows it one frame in five")
            for path in PATHS:
                spec = getattr(self, path)
                if not isinstance(spec.get("name") if isinstance(spec, Mapping) else spec, str):
                    raise ValueError(
                        f"slow_fast.{path}={spec!r} is neither a name nor a mapping such as {{name: pool}}"
                    )
                if isinstance(spec, Mapping) and "retention" in spec:
                    raise ValueError(
                        f"slow_fast.{path} states retention={spec['retention']}, which follows from retention, "
                        "slow_share and slow_rate; remove it"
                    )
            if self.path_retention("slow") > 1 + 1e-9:
                raise ValueError(
                    f"slow_share={self.slow_share:.6g} of retention={self.retention:.6g} is more than all cells of the "
                    f"slow path's frames (slow_rate={self.slow_rate:.6g}); allowed is a slow_share up to "
                    f"{self.slow_rate / self.retention:.6g}, or a slow_rate from {self.retention * self.slow_share:.6g}"
                )

        @property
        def parts(self) -> list[Any]:
            return [self.slow, self.fast]

        def path_retention(self, path: str) -> float:
            """Fraction of the cells a path sees that it keeps."""
            if path == "slow":
                return self.retention * self.slow_share / self.slow_rate
            return self.retention * (1 - self.slow_share)

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.slow, self.fast = (_build(config, path, config.path_retention(path), dim) for path in PATHS)
        if self.slow.out_dim != self.fast.out_dim:
            raise ValueError(
                f"slow_fast: the slow path gives {self.slow.out_dim} channels and the fast path {self.fast.out_dim}; "
                "they must be the same"
            )
        # On the instance, where they shadow the class's.
        both = (self.slow, self.fast)
        for trait in ("trainable", "needs_query", "needs_importance"):
            setattr(self, trait, any(getattr(path, trait) for path in both))
        setattr(self, "min_frames", self._fewest_frames())  # noqa: B010
        setattr(self, "budget", "bound" if any(p.budget == "bound" for p in both) else "exact")  # noqa: B010

    @property
    def out_dim(self) -> int:
        return self.fast.out_dim

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        slow_frames = self.num_slow_frames(num_frames)
        slow = self._path_tokens("slow", slow_frames, height, width)
        return slow + self._path_tokens("fast", num_frames, height, width)

    def num_slow_frames(self, num_frames: int) -> int:
        """Frames the slow path sees: ``slow_rate`` of them rounded half up, at least one."""
        return max(1, int(num_frames * self.config.slow_rate + 0.5))

    def slow_frames(self, num_frames: int) -> Tensor:
        """``[n]`` which frames the slow path sees, the first of each of n equal stretches."""
        count = self.num_slow_frames(num_frames)
        return torch.arange(count) * num_frames // count

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        _, t, h, w, _ = video.shape
        self.num_tokens(t, h, w)  # refuses what either path cannot do, in terms of both
        batched = None if query is None else query[None]
        chosen = self.slow_frames(t).to(video.features.device)
        slow = self.slow.compress(_at(video, chosen), batched)
        fast = self.fast.compress(video, batched)
        source, start = _share_out(slow, fast, chosen)
        order = start.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        features = torch.cat([slow.features, fast.features])[order]
        return features, torch.where(source >= 0, rank[source.clamp(min=0)], source)

    def _fewest_frames(self) -> int:
        frames = max(1, self.fast.min_frames)
        while self.num_slow_frames(frames) < self.slow.min_frames:
            frames += 1
        return frames

    def _path_tokens(self, path: str, frames: int, height: int, width: int) -> int:
        try:
            return self._path(path).num_tokens(frames, height, width)
        except ValueError as error:
            c = self.config
            follows = "slow_share / slow_rate" if path == "slow" else "(1 - slow_share)"
            raise ValueError(
                f"slow_fast: the {path} path gets {c.path_retention(path):.6g} of its cells, which is retention * "
                f"{follows} for retention={c.retention:.6g}, slow_share={c.slow_share:.6g}, "
                f"slow_rate={c.slow_rate:.6g}, and cannot: {error}. {self._nearest(height, width)}"
            ) from error

    def _path(self, path: str) -> Compressor:
        return self.slow if path == "slow" else self.fast

    def _nearest(self, height: int, width: int) -> str:
        """The nearest settings under which both paths have a budget on such a grid, as a sentence."""
        c = self.config
        slow, fast = (next(self._possible(path, height, width), None) for path in PATHS)
        if slow is None or fast is None:
            return "No retention near it works on this grid; group more frames or take other paths"
        whole = slow * c.slow_rate + fast
        share = slow * c.slow_rate / whole
        return f"Nearest that works: retention={whole!r} with slow_share={share!r}"

    def _possible(self, path: str, height: int, width: int) -> Iterator[float]:
        """Retentions a path can meet, the nearest to its own first."""
        cells = (self._path(path).frames_per_group or 1) * height * width
        want = self.config.path_retention(path) * cells
        for count in sorted(range(1, cells + 1), key=lambda k: (abs(k - want), k)):
            try:
                with torch.device("meta"):
                    _build(self.config, path, count / cells, self.dim).num_tokens(self.min_frames, height, width)
            except ValueError:
                continue
            yield count / cells

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        halves = {"name": "pool", "frames_per_group": 2}
        return [
            {"retention": 1 / 4, "slow_share": 1 / 2, "slow_rate": 1 / 4},
            {"retention": 3 / 32, "slow_share": 1 / 3, "slow_rate": 1 / 4, "slow": "dts", "fast": halves},
            {"retention": 9 / 32, "slow_share": 8 / 9, "slow_rate": 1 / 4, "slow": "uniform", "fast": halves},
        ]


def _build(config: SlowFast.Config, path: str, retention: float, dim: int) -> Compressor:
    spec = getattr(config, path)
    named = {"name": spec} if isinstance(spec, str) else dict(spec)
    compressor: Compressor = registry.build("compressor", {**named, "retention": min(1.0, retention)}, dim=dim)
    return compressor


def _at(video: VideoGrid, frames: Tensor) -> VideoGrid:
    """The grid of these frames alone."""
    side = {n: None if getattr(video, n) is None else getattr(video, n)[:, frames] for n in ("importance", "motion")}
    return VideoGrid(video.features[:, frames], video.times[:, frames], video.frame_mask[:, frames], **side)


def _share_out(slow: VideoTokens, fast: VideoTokens, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Which token carries each cell, slow ones counted before fast ones.

    Returns:
        ``source [T, H, W]`` and ``[n]`` the first cell of each token, counted through the video: their order.
    """
    n_slow, n_fast = len(slow.features), len(fast.features)
    offered = torch.where(fast.source[0] >= 0, fast.source[0] + n_slow, -1)
    detailed = torch.full_like(offered, -1)
    detailed[chosen] = slow.source[0]
    source = torch.where(detailed >= 0, detailed, offered).flatten()
    cell = torch.arange(source.numel(), device=source.device)

    def first_cell(carrier: Tensor) -> Tensor:
        first = torch.full((n_slow + n_fast,), source.numel(), device=source.device)
        kept = carrier >= 0
        return first.scatter_reduce(0, carrier[kept], cell[kept], "amin")

    own = torch.minimum(first_cell(detailed.flatten()), first_cell(offered.flatten()))
    first = first_cell(source)
    lacking = (first == source.numel()).nonzero()[:, 0]
    lacking = lacking[own[lacking].argsort(stable=True)]
    spare = _spare_cells(source, first)
    lacking = lacking[: len(spare)]  # a video of a frame or two may become more tokens than it has cells
    if len(lacking):
        # Each takes the first spare cell from its own on that no earlier one took, and leaves enough for the later.
        turn = torch.arange(len(lacking), device=source.device)
        taken = (torch.searchsorted(spare, own[lacking]) - turn).cummax(0).values + turn
        taken = torch.minimum(taken, turn + len(spare) - len(lacking))
        source[spare[taken]] = lacking
        first = first_cell(source)
    frame_cells = offered[0].numel()
    return source.view(offered.shape), first // frame_cells


def _spare_cells(source: Tensor, first: Tensor) -> Tensor:
    """Cells, in order, that are not the first of their token: dropped ones, and all others of each token's."""
    spare = torch.ones_like(source, dtype=torch.bool)
    spare[first[first < source.numel()]] = False
    return spare.nonzero()[:, 0]

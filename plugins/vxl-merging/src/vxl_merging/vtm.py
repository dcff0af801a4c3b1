"""Video Token Merging: some cells of a clip are targets, and every other cell goes into the one it is most like."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from vxl_lightning.compressors.base import Groups
from vxl_merging.clips import ClipMerger
from vxl_merging.core import Merged, check_heads, merge_into
from vxl_merging.partition import change, drawn, every, regions
from vxl_merging.saliency import SaliencyAttention

Partition = Literal["naive", "centre", "boundary", "motion", "learnable"]


class VideoTokenMerging(ClipMerger):
    """Merges each clip at once into targets that are chosen beforehand, after "Video Token Merging".

    ``retention`` of a clip's cells are targets (the paper's 1 / gamma); every other cell goes to its most similar
    target (cosine, float32; the earliest among equals), and a token is the plain mean of a target and what went to it.
    ``partition`` says which cells are targets:

    - ``naive``: every gamma-th;
    - ``centre``: three times as dense in the central quarter of the frame, which so has half of them; ``boundary``: the
      two factors exchanged, at the same count, so that a tenth of them is in the centre;
    - ``motion``: drawn with p = softmax(motion), from ``VideoGrid.motion`` where the encoder gives it, else from how
      much a cell's features changed since the frame before (1 - cosine);
    - ``learnable``, the paper's proposal: a self-attention over the clip, s = tanh(K U), drawn with p = softmax(s);
      similarity is between its keys, and what is merged is its output. See `SaliencyAttention` for how U learns.

    Only ``learnable`` has parameters. With ``gamma`` fewer cells are targets than there are tokens due, and the
    least similar of the others stay as they are: the paper's cap, R being what the budget asks for.

    After Lee et al., "Video Token Merging for Long Video Understanding", NeurIPS 2024 (arXiv 2410.23782), section 3.
    Differs: it compresses an encoder's grid, once, where the paper merges three times between the blocks of a
    classifier over (6, 30, 60) frames, whose feed-forward layers are left out; without a self-attention cells are
    compared by their features; targets come to an exact count at any grid, and where the paper draws them at random,
    the noise follows from ``seed`` and the clip's place alone, so that equal videos give equal tokens, in training too;
    the auxiliary path is a straight-through estimate, so that no loss has to know of it.
    """

    trainable = True
    origin: ClassVar[str] = "Video Token Merging (arXiv 2410.23782; no code published); clean-room from the paper"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClipMerger.Config):
        frames_per_group: int = 8
        """Frames of a clip, which are merged together. The cost grows with it, and with its square for a clip."""
        partition: Partition = "learnable"
        """Which cells are targets: naive, centre, boundary, motion or learnable."""
        gamma: float | None = None
        """Cells for one target; null is 1 / retention, so that every other cell is merged. A larger one leaves the
        least similar cells as they are. The paper has 6."""
        temperature: float = 1.0
        """Of the softmax that motion and learnable targets are drawn from; 0 takes the highest scores."""
        seed: int = 0
        """Of the noise that targets are drawn with."""
        heads: int = 8
        """Attention heads of the learnable partition; they divide the channels."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.partition not in get_args(Partition):
                raise ValueError(f"partition={self.partition!r} is not one of {', '.join(get_args(Partition))}")
            least = 1 / self.retention
            if self.gamma is not None and self.gamma < least * (1 - 1e-9):
                raise ValueError(
                    f"gamma={self.gamma:g} is less than 1 / retention = {least:.6g}, which makes more targets than "
                    f"tokens; take at least {least:.6g}, or null, which takes just that"
                )
            if self.temperature < 0:
                raise ValueError(f"temperature={self.temperature} must be at least 0; 0 takes the highest scores")
            if self.seed < 0:
                raise ValueError(f"seed={self.seed} must be at least 0")
            if self.heads < 1:
                raise ValueError(f"heads={self.heads} must be at least 1")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.trainable = config.partition == "learnable"  # type: ignore[misc]  # decided by the configuration
        self.attention: SaliencyAttention | None = None
        if self.trainable:
            check_heads(config.heads, dim)
            self.attention = SaliencyAttention(dim, config.heads)

    def merge_clips(self, clips: Groups, count: int) -> tuple[Tensor, Tensor]:
        g, f, h, w, _ = clips.features.shape
        cells = clips.features.flatten(1, 3)
        keys = saliency = None
        if self.attention is not None:
            cells, keys, saliency = self.attention(cells)
        target = self._targets(clips, count, saliency).to(cells.device)
        merged = merge_into(Merged.nothing(cells), target, f * h * w - count, keys=keys, mean="plain")
        return merged.tokens, merged.carrier.view(g, f, h, w)

    @torch.no_grad()
    def _targets(self, clips: Groups, count: int, saliency: Tensor | None) -> Tensor:
        """``[G, M]`` slots of the targets, M at most ``count``."""
        g, f, h, w, _ = clips.features.shape
        cfg = self.config
        if cfg.gamma is not None:
            count = min(count, max(1, int(f * h * w / cfg.gamma + 0.5)))
        if cfg.partition == "naive":
            return every(f * h * w, count).expand(g, -1)
        if cfg.partition in ("centre", "boundary"):
            return regions(f, h, w, count, dense_centre=cfg.partition == "centre").expand(g, -1)
        scores = saliency
        if scores is None:
            scores = (change(clips.features) if clips.motion is None else clips.motion).flatten(1)
        return drawn(scores, count, clips.index, temperature=cfg.temperature, seed=cfg.seed)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 4, "gamma": 6, "temperature": 0.0, "frames_per_group": 3, "heads": 1},
            {"retention": 1 / 8, "partition": "naive"},
            {"retention": 0.6, "partition": "centre", "frames_per_group": 4},
            {"retention": 1 / 16, "partition": "boundary"},
            {"retention": 1 / 8, "partition": "motion", "gamma": 16},
        ]

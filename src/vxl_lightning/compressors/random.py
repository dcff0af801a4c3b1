"""A seeded random choice of cells: the baseline that published methods often fail to beat."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, budget_tokens


class RandomTokens(GroupCompressor):
    """Keeps the same number of cells of every group, chosen by ``seed`` and the group's place in its video alone.

    So every video, at every place in a batch, keeps the same cells. An incomplete last group chooses among the
    frames it has. Kept tokens stay in raster order.
    """

    origin = "Baseline; written here from scratch"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames out of which the cells are chosen together."""
        seed: int = 0
        """Which choice."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames_per_group < 1:
                raise ValueError(f"frames_per_group={self.frames_per_group} must be at least 1")
            if self.seed < 0:
                raise ValueError(f"seed={self.seed} must be at least 0")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group

    def tokens_per_group(self, height: int, width: int) -> int:
        cells = height * width
        count = budget_tokens(self.group_size * cells, self.config.retention)
        if count > cells:
            raise ValueError(
                f"retention={self.config.retention:.6g} keeps {count} tokens of a group of {self.group_size} frames, "
                f"but a last group may hold a single frame of {cells} cells; nearest that fits: retention="
                f"{1 / self.group_size:.6g}, or frames_per_group={max(1, int(1 / self.config.retention))}"
            )
        return count

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        device = groups.features.device
        count = self.tokens_per_group(h, w)
        frames = groups.valid.sum(1).tolist()
        # The same for equal (group, frames), which is every video of the batch; each is drawn once.
        places = list(zip(groups.index.tolist(), frames, strict=True))
        chosen = {place: self._choose(*place, h * w, count) for place in set(places)}
        kept = torch.from_numpy(np.stack([chosen[place] for place in places])).to(device)  # [G, K]
        source = torch.full((g, f * h * w), -1, dtype=torch.long, device=device)
        source.scatter_(1, kept, torch.arange(count, device=device).expand(g, count))
        tokens = groups.features.reshape(g, -1, d).gather(1, kept[:, :, None].expand(g, count, d))
        return tokens, source.view(g, f, h, w)

    def _choose(self, group: int, frames: int, cells: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        # NumPy mixes the two numbers into one seed; torch's CPU generator would use only their low 32 bits.
        order = np.random.default_rng((self.config.seed, group)).permutation(self.group_size * cells)
        return np.sort(order[order < frames * cells][:count])

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 1 / 4, "seed": 7}, {"retention": 1 / 2, "frames_per_group": 1}]

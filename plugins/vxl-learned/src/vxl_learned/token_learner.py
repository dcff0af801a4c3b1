"""TokenLearner: every token has a map over the cells, and is what the map lets through."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_learned.learned import LearnedTokens, at_least_one, carriers, in_float, open_cells
from vxl_lightning.compressors.base import Groups


class Convolutions(nn.Module):
    """A norm over channels, then four 3x3 convolutions without bias and GELU between them: one map a token."""

    def __init__(self, dim: int, maps: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.layers = nn.ModuleList(
            nn.Conv2d(dim if i == 0 else maps, maps, 3, padding=1, bias=False) for i in range(4)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """``frames [N, H, W, D]`` to ``[N, H, W, S]``."""
        x: Tensor = self.norm(frames).permute(0, 3, 1, 2)
        for i, layer in enumerate(self.layers):
            x = layer(F.gelu(x) if i else x)
        return x.permute(0, 2, 3, 1)


class Bottleneck(nn.Module):
    """A norm over channels, then two linear maps and GELU between them: one map a token, each cell by itself."""

    def __init__(self, dim: int, maps: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.layers = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, maps))

    def forward(self, frames: Tensor) -> Tensor:
        """``frames [N, H, W, D]`` to ``[N, H, W, S]``."""
        out: Tensor = self.layers(self.norm(frames))
        return out


class TokenLearner(LearnedTokens):
    """Token i of a group is the cells weighted by map i, pooled over the group.

    - ``by="conv"``: maps by four 3x3 convolutions, through a sigmoid; a token is the mean over all cells of cell
      times map. Maps may overlap, or all look at one place.
    - ``by="mlp"``: maps by a two-layer network on each cell, through a softmax over the group's cells; a token is
      the sum of cell times map, that is a weighted mean.

    By default each frame is compressed alone, as published; with more ``frames_per_group`` a map extends over the
    frames of a group, which the maps tell apart by a learned encoding, starting at zero. As many maps are used as
    ``retention`` asks for tokens. Maps are taken in float32.

    ``source``: a cell is carried by the token whose map spends the largest share of itself on it; see `carriers` for
    tokens that win no cell.

    After Ryoo et al., "TokenLearner" (arXiv 2106.11297, section 2, there with 8 tokens): ``conv`` is the form published
    first, ``mlp`` the later one, version 1.1 of the authors' release, with 64 hidden channels. Differs: the number of
    tokens follows from retention, out of ``maps``, which is also the width of the convolutions between (the number
    of tokens there); the mean is over cells, as in the paper, where the release sums by default, the same but for a
    factor; GELU is exact, where it is approximated there; no dropout; it stands after the encoder, not between its
    layers, and tokens are not spread back over the cells (TokenFuser).
    """

    table: ClassVar[str] = "maps"
    origin: ClassVar[str] = (
        "TokenLearner (arXiv 2106.11297; google-research/scenic, Apache-2.0); written from the description"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(LearnedTokens.Config):
        frames_per_group: int = 1
        """Frames that are compressed together."""
        by: Literal["conv", "mlp"] = "conv"
        """What makes the maps: convolutions, with sigmoid and mean, or a network on each cell, with softmax and sum."""
        maps: int = 64
        """Maps to learn: the most tokens a group can become. As many of them as retention asks for are used."""
        bottleneck: int = 64
        """Hidden channels of the network where ``by`` is mlp."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.by not in ("conv", "mlp"):
                raise ValueError(f"by={self.by!r} is not one of conv, mlp")
            at_least_one(self, "maps", "bottleneck")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.maps: Convolutions | Bottleneck
        if config.by == "conv":
            self.maps = Convolutions(dim, config.maps)
        else:
            self.maps = Bottleneck(dim, config.maps, config.bottleneck)
        several = config.frames_per_group > 1
        self.frame_encoding = nn.Parameter(torch.zeros(config.frames_per_group, dim)) if several else None

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        open_ = open_cells(groups)
        cells = groups.features.float()
        seen = cells if self.frame_encoding is None else cells + self.frame_encoding.float()[:, None, None]
        logits = in_float(self.maps, seen.flatten(0, 1))[..., :k]
        logits = logits.reshape(g, f * h * w, k).mT
        if self.config.by == "conv":
            attention = logits.sigmoid() * open_[:, None]
            weights = attention / open_.sum(1)[:, None, None]
        else:
            attention = weights = logits.masked_fill(~open_[:, None], float("-inf")).softmax(-1)
        tokens = weights @ cells.flatten(1, 3)
        return tokens.to(groups.features.dtype), carriers(attention, open_).view(g, f, h, w)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16, "maps": 8},
            {"retention": 1 / 4, "by": "mlp", "maps": 8, "bottleneck": 16},
            {"retention": 0.1, "frames_per_group": 3, "maps": 8},
            {"retention": 1 / 8, "frames_per_group": 2, "by": "mlp", "maps": 8},
        ]

"""The Perceiver resampler: learned latents that look at a group's cells, layer after layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_learned.attention import Attention, joined
from vxl_learned.learned import LearnedTokens, at_least_one, carriers, float_anyway, in_float, open_cells
from vxl_lightning.compressors.base import Groups


class Layer(nn.Module):
    """Latents attend to the cells and to themselves at once, then a feed-forward network; both add to the latents."""

    def __init__(self, dim: int, heads: int, head_dim: int, expansion: int, gated: bool) -> None:
        super().__init__()
        self.norm_cells = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.attention = Attention(dim, dim, heads * head_dim, heads, bias=False)
        inner = dim * expansion
        self.feed = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, inner, bias=False), nn.GELU(), nn.Linear(inner, dim, bias=False)
        )
        self.gates = nn.Parameter(torch.zeros(2)) if gated else None

    def forward(
        self,
        latents: Tensor,
        cells: Tensor,
        open_: Tensor,
        *,
        look: bool = False,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """``latents [G, K, D]`` over ``cells [G, N, D]``; ``look`` and ``seen`` are those of `Attention`.

        The attention is ``[G, K, N + K]``, that to cells first.
        """
        normed = self.norm_latents(latents)
        keys, allowed = joined(self.norm_cells(cells), normed, open_)
        found: Tensor = self.attention(normed, keys, allowed, look=look, seen=seen)
        if look:
            return found
        latents = latents + self._gated(found, 0)
        return latents + self._gated(self.feed(latents), 1)

    def _gated(self, change: Tensor, which: int) -> Tensor:
        return change if self.gates is None else change * self.gates[which].tanh()


class Perceiver(LearnedTokens):
    """Learned latents cross-attend to all cells of a group, ``depth`` times; each becomes a token.

    A layer is ``z + attention(norm(z), [norm(cells), norm(z)])``, then ``z + feed(norm(z))``, with a last norm over
    what all layers gave. As many latents are used as ``retention`` asks for tokens. Cells know which frame of the
    group they are of by a learned encoding, which starts at zero; where in the frame they are, the encoder tells.

    ``source``: a cell is carried by the token whose latent spends the largest share of its attention on it in the first
    layer, where the latents have not seen the video yet, averaged over heads; see `carriers` for latents that win no
    cell. It is taken in float32 whatever the module's dtype, so that the choice does not depend on precision.

    After the resampler of Flamingo (Alayrac et al., arXiv 2204.14198, section 3.1.1 and figure 5), which brought the
    Perceiver (Jaegle et al., arXiv 2103.03206) to video. Published defaults: depth 6 and 64 latents; depth 3 and 32
    latents in the LLaVA family, whose depth is the default here. Differs: the number of latents follows from
    retention, out of ``latents``; frames are encoded by their place in the group, not in the video; and a gate, as
    Flamingo has in its language model's layers, can be set on each change.
    """

    table: ClassVar[str] = "latents"
    origin: ClassVar[str] = (
        "Flamingo (arXiv 2204.14198; no released code) after Perceiver (arXiv 2103.03206); figures of the LLaVA "
        "family's resampler (Apache-2.0, after lucidrains/flamingo-pytorch, MIT); written from the description"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(LearnedTokens.Config):
        latents: int = 256
        """Latents to learn: the most tokens a group can become. As many of them as retention asks for are used."""
        depth: int = 3
        """Layers."""
        heads: int = 8
        """Heads of the attention."""
        head_dim: int = 64
        """Channels of one head."""
        expansion: int = 4
        """Width of the feed-forward network, in widths of the grid."""
        gated: bool = False
        """Multiply each layer's two changes by the tanh of a learned number that starts at zero."""

        def __post_init__(self) -> None:
            super().__post_init__()
            at_least_one(self, "latents", "depth", "heads", "head_dim", "expansion")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.latents = nn.Parameter(torch.empty(config.latents, dim))
        nn.init.normal_(self.latents, std=0.02)
        self.frame_encoding = nn.Parameter(torch.zeros(config.frames_per_group, dim))
        layer = (dim, config.heads, config.head_dim, config.expansion, config.gated)
        self.layers = nn.ModuleList(Layer(*layer) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        open_ = open_cells(groups)
        encoding = self.frame_encoding[:, None, None]
        cells = (groups.features.to(encoding.dtype) + encoding).flatten(1, 3)
        tokens = self.latents[:k].expand(g, k, d)
        seen: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            first = i == 0 and float_anyway(self, groups)
            tokens = layer(tokens, cells, open_, seen=seen if first else None)
        attention = (seen[0] if seen else self._first_look(groups, k, open_))[..., : cells.shape[1]]
        return self.norm(tokens).to(groups.features.dtype), carriers(attention, open_).view(g, f, h, w)

    @torch.no_grad()
    def _first_look(self, groups: Groups, count: int, open_: Tensor) -> Tensor:
        """``[G, count, N + count]`` attention of the latents in the first layer, in float32."""
        cells = (groups.features.float() + self.frame_encoding.float()[:, None, None]).flatten(1, 3)
        latents = self.latents[:count].float().expand(len(cells), -1, -1)
        return in_float(self.layers[0], latents, cells, open_, look=True)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        small = {"heads": 2, "head_dim": 8, "latents": 16}
        return [
            {"retention": 1 / 16, **small},
            {"retention": 0.2, "frames_per_group": 3, "depth": 1, **small},
            {"retention": 1 / 4, "gated": True, "depth": 2, **small},
        ]

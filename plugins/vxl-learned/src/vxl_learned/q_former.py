"""The Q-Former: learned queries that talk among themselves, and with a question, and look at a group's cells."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_learned.attention import Attention
from vxl_learned.learned import LearnedTokens, at_least_one, carriers, float_anyway, in_float, open_cells
from vxl_lightning.compressors.base import Groups

EPS = 1e-12
"""Of the norms, as BERT's."""


class Attended(nn.Module):
    """``norm(x + attention(x, keys))``; self-attention where the keys are as wide as ``x``."""

    def __init__(self, width: int, keys: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, keys, width, heads, bias=True)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(
        self, x: Tensor, keys: Tensor, open_: Tensor | None = None, *, seen: list[Tensor] | None = None
    ) -> Tensor:
        """``x [G, K, C]`` over ``keys [G, N, E]``, of which those where ``open_ [G, N]`` is True.

        ``seen`` takes the attention, see `Attention`.
        """
        out: Tensor = self.norm(x + self.attention(x, keys, open_, seen=seen))
        return out


class Feed(nn.Module):
    """``norm(x + feed(x))``."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.feed(x))
        return out


class Layer(nn.Module):
    """Self-attention of queries and words; then the queries look at the cells, and both pass networks of their own."""

    def __init__(self, width: int, cells: int, heads: int, expansion: int, *, looks: bool, words: bool) -> None:
        super().__init__()
        self.among = Attended(width, width, heads)
        self.look = Attended(width, cells, heads) if looks else None
        self.feed = Feed(width, expansion)
        self.feed_words = Feed(width, expansion) if words else None

    def forward(
        self, queries: Tensor, words: Tensor, cells: Tensor, open_: Tensor, seen: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """``queries [G, K, C]`` and ``words [G, Q, C]`` (Q may be 0) over ``cells [G, N, D]``.

        ``seen`` takes the attention of the queries to the cells, see `Attention`.
        """
        k = queries.shape[1]
        everyone = torch.cat([queries, words], 1)
        # Words are only passed on where a further layer reads them.
        mixed = self.among(everyone if self.feed_words is not None else queries, everyone)
        queries, words = mixed[:, :k], mixed[:, k:]
        if self.look is not None:
            queries = self.look(queries, cells, open_, seen=seen)
        if self.feed_words is not None:
            words = self.feed_words(words)
        return self.feed(queries), words


class QFormer(LearnedTokens):
    """Learned queries: each layer lets them attend to one another, then to the cells of the group, then a network.

    As many queries are used as ``retention`` asks for tokens. Every change is added and normed after (post-norm), as in
    BERT. With ``text`` the embedded question's words take part in the self-attention, so that the queries look for what
    is asked; the words have a feed-forward network of their own and do not look at the cells. Words are told apart by
    their embeddings alone, not by their order. Cells are normed, and know which frame of the group they are of by a
    learned encoding, which starts at zero.

    ``source``: a cell is carried by the token whose query spends the largest share of its attention on it in the first
    layer, averaged over heads; see `carriers` for queries that win no cell. It is taken in float32 whatever the
    module's dtype, so that the choice does not depend on precision.

    After BLIP-2 (Li et al., arXiv 2301.12597, section 3.1), with ``text`` InstructBLIP (arXiv 2305.06500). Published:
    32 queries, depth 12, cross-attention in every second layer, 12 heads, initialised from BERT-base. Differs: starts
    from random weights, shallower; ``retention`` decides how many queries; frames are encoded; there is no first stage
    of contrast and matching with captions: the tokens are trained by what follows them, reconstruction or answers; and
    the last layer has no network for the words, which nothing would read.
    """

    table: ClassVar[str] = "queries"
    origin: ClassVar[str] = (
        "BLIP-2 (arXiv 2301.12597; salesforce/LAVIS, BSD-3-Clause), InstructBLIP (arXiv 2305.06500); written from the "
        "description"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(LearnedTokens.Config):
        queries: int = 256
        """Queries to learn: the most tokens a group can become. As many of them as retention asks for are used."""
        depth: int = 2
        """Layers."""
        look_every: int = 1
        """Every how many layers, from the first, the queries attend to the cells; BLIP-2 has 2."""
        heads: int = 8
        """Heads of the attention; must divide the channels."""
        expansion: int = 4
        """Width of the feed-forward networks, in channels."""
        channels: int | None = None
        """Channels of the queries and so of the tokens; None is the width of the grid."""
        text: bool = False
        """Let the question's words take part; the compressor then needs a query."""

        def __post_init__(self) -> None:
            super().__post_init__()
            at_least_one(self, "queries", "depth", "look_every", "heads", "expansion")
            if self.channels is not None:
                at_least_one(self, "channels")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        width = self.out_dim
        if width % config.heads:
            near = max(n for n in range(1, config.heads) if width % n == 0)
            raise ValueError(f"heads={config.heads} does not divide {width} channels; take {near}, or other channels")
        self.needs_query = config.text  # type: ignore[misc]
        self.queries = nn.Parameter(torch.empty(config.queries, width))
        nn.init.normal_(self.queries, std=0.02)
        self.frame_encoding = nn.Parameter(torch.zeros(config.frames_per_group, dim))
        self.norm_cells = nn.LayerNorm(dim)
        self.words = nn.Linear(dim, width) if config.text else None
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.layers = nn.ModuleList(
            Layer(
                width,
                dim,
                config.heads,
                config.expansion,
                looks=i % config.look_every == 0,
                words=config.text and i < config.depth - 1,
            )
            for i in range(config.depth)
        )

    @property
    def out_dim(self) -> int:
        return int(self.config.channels or self.dim)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        open_ = open_cells(groups)
        encoding = self.frame_encoding[:, None, None]
        # The norm keeps no hold on what it gives, so the encoding is added in place.
        cells = self.norm_cells(groups.features.to(encoding.dtype)).add_(encoding).flatten(1, 3)
        tokens = self.norm(self.queries[:k]).expand(g, -1, -1)
        words = tokens[:, :0]
        if self.words is not None:
            assert groups.query is not None  # forward has checked it
            words = self.norm(self.words(groups.query.to(encoding.dtype)))
        seen: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            first = i == 0 and float_anyway(self, groups)
            tokens, words = layer(tokens, words, cells, open_, seen if first else None)
        attention = seen[0] if seen else self._first_look(groups, k, open_)
        return tokens.to(groups.features.dtype), carriers(attention, open_).view(g, f, h, w)

    @torch.no_grad()
    def _first_look(self, groups: Groups, count: int, open_: Tensor) -> Tensor:
        """``[G, count, N]`` attention of the queries to the cells in the first layer, in float32."""
        first = self.layers[0]
        assert isinstance(first, Layer) and first.look is not None
        normed = in_float(self.norm_cells, groups.features.float())
        cells = (normed + self.frame_encoding.float()[:, None, None]).flatten(1, 3)
        queries = in_float(self.norm, self.queries[:count].float()).expand(len(cells), -1, -1)
        everyone = queries
        if self.words is not None and groups.query is not None:
            words = in_float(self.norm, in_float(self.words, groups.query.float()))
            everyone = torch.cat([queries, words], 1)
        return in_float(first.look.attention, in_float(first.among, queries, everyone), cells, open_, look=True)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        small = {"heads": 4, "queries": 16, "expansion": 2}
        return [
            {"retention": 1 / 16, **small},
            {"retention": 0.2, "frames_per_group": 3, "depth": 3, "look_every": 2, "channels": 24, **small},
            {"retention": 1 / 8, "text": True, **small},
        ]

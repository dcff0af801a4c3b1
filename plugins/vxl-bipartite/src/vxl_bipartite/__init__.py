"""Bipartite token merging: the most similar cells of a group become one, until the budget is met."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, budget_tokens

__all__ = ["BipartiteMerging"]

# Similarities are rounded to this step, so that equal cells tie whichever matrix kernel compared them.
SIMILARITY_STEP = 1e-5


class BipartiteMerging(GroupCompressor):
    """Merges the most similar cells of each group, in rounds of bipartite soft matching.

    A round splits the tokens alternately into sets A and B, links every token of A to its most similar token of B
    (cosine, float32), and merges the strongest links: B's token becomes the mean of both, weighted by the cells behind
    them. As many links are merged as the budget still asks for, at most all of A; so a round at most halves, and
    rounds repeat until exactly ``retention`` of the group's cells are left. Among equals the earliest wins. A token is
    the mean of the cells it carries.

    After Bolya et al., "Token Merging", ICLR 2023 (arXiv 2210.09461), section 3. Differs: similarity is between
    features and not attention keys; a group of frames is merged at once, after the encoder, instead of a few tokens a
    layer; and the alternation runs over time first, because row by row an even width would put a cell and itself one
    frame later into the same set, where they can never be merged.
    """

    origin: ClassVar[str] = (
        "Token Merging (arXiv 2210.09461; its code is CC BY-NC 4.0 and was not used); clean-room from the paper"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames that are merged together."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames_per_group < 1:
                raise ValueError(f"frames_per_group={self.frames_per_group} must be at least 1")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group

    def tokens_per_group(self, height: int, width: int) -> int:
        return budget_tokens(self.group_size * height * width, self.config.retention)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        tokens = groups.features.new_empty(g, k, d)
        source = torch.full((g, f, h, w), -1, dtype=torch.long, device=tokens.device)
        filled = groups.valid.sum(1)
        # Frames that only fill a video's last group take no part, so groups of equal length are merged together.
        for frames in filled.unique().tolist():
            rows = (filled == frames).nonzero()[:, 0]
            cells = groups.features[rows, :frames].permute(0, 2, 3, 1, 4).flatten(1, 3).float()
            merged, carrier = merge(cells, min(k, cells.shape[1]))
            # Fewer cells than tokens: the last one is repeated, and the copies carry no cell.
            merged = F.pad(merged.mT, (0, k - merged.shape[1]), mode="replicate").mT
            tokens[rows] = merged.to(tokens.dtype)
            source[rows, :frames] = carrier.view(-1, h, w, frames).permute(0, 3, 1, 2)
        return tokens, source

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 0.4}, {"retention": 1 / 4, "frames_per_group": 3}]


def merge(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge ``[G, N, D]`` cells, float32, to ``count`` tokens a group.

    Returns:
        ``[G, count, D]`` tokens in the order of their first set's slots, and ``[G, N]`` the token of each cell.
    """
    g, n, _ = cells.shape
    tokens, weight = cells, cells.new_ones(g, n)
    carrier = torch.arange(n, device=cells.device).expand(g, n)
    while (n := tokens.shape[1]) > count:
        links, target = _link(tokens, min(n - count, (n + 1) // 2))
        share = F.one_hot(target, n // 2).float() * links[:, :, None]  # [G, A, B], one where A's token goes into B's
        a, b, weight_a, weight_b = tokens[:, ::2], tokens[:, 1::2], weight[:, ::2], weight[:, 1::2]
        total = weight_b + (share.mT @ weight_a[:, :, None])[:, :, 0]
        mean = (b * weight_b[:, :, None] + share.mT @ (a * weight_a[:, :, None])) / total[:, :, None]
        # A's unmerged tokens and all of B stay in their slots; a merged token's slot leads to its target's.
        stays = torch.ones(g, n, dtype=torch.bool, device=cells.device)
        stays[:, ::2] = ~links
        slot = torch.arange(n, device=cells.device).repeat(g, 1)
        slot[:, ::2] = torch.where(links, 2 * target + 1, slot[:, ::2])
        new = (stays.cumsum(1) - 1).gather(1, slot)
        carrier = new.gather(1, carrier)
        tokens = _interleave(a, mean)[stays].view(g, -1, cells.shape[2])
        weight = _interleave(weight_a, total)[stays].view(g, -1)
    return tokens, carrier


@torch.no_grad()
def _link(tokens: Tensor, merges: int) -> tuple[Tensor, Tensor]:
    """``[G, A]`` bool, which of A's tokens are merged, and ``[G, A]`` B's most similar token to each."""
    unit = F.normalize(tokens, dim=-1)
    similarity = ((unit[:, ::2] @ unit[:, 1::2].mT) / SIMILARITY_STEP).round()
    best, target = similarity.max(-1)
    chosen = best.argsort(dim=1, descending=True, stable=True)[:, :merges]
    return torch.zeros_like(best, dtype=torch.bool).scatter_(1, chosen, True), target


def _interleave(a: Tensor, b: Tensor) -> Tensor:
    """``a0 b0 a1 b1 ...`` along axis 1; A may have one more."""
    out = a.new_empty(a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:])
    out[:, ::2], out[:, 1::2] = a, b
    return out

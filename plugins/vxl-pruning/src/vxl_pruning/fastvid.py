"""FastVID: cuts a video where it changes, keeps salient cells and merges the others into dense ones of a few frames."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import Compressor, budget_tokens
from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.compressors.per_video import VideoCompressor, mean_cells
from vxl_lightning.tokens import VideoGrid
from vxl_pruning.ranking import nearest, ranks

__all__ = ["FastVID"]

# Nearest cells, itself among them, that a cell's density is taken from.
NEIGHBOURS = 4

# How much more like a cell an anchor of a later frame must be to be named as its carrier: in still frames it is not.
CARRIER_STEP = 1e-5


class FastVID(VideoCompressor):
    """Dynamic segments, of each the salient cells and density anchors that take in all other cells of the segment.

    1. The video is cut after frames whose mean cell is less like the next frame's than ``cut_below`` (cosine), and at
       the ``min_segments - 1`` least alike in any case.
    2. A segment gets its share of the budget by its frames, ``density_share`` of it for anchors. The rest goes evenly
       to its frames for their cells of highest `VideoGrid.importance`, kept unchanged.
    3. Every ``anchor_every``-th frame, counted back from the segment's last, gets an even part of the anchors: of its
       other cells those with the highest density (of the distances to the nearest 4) times distance to the nearest
       denser cell.
    4. All cells of the segment that are not salient are averaged by the most similar anchor (cosine), once for every
       anchor frame. A token is ``b * anchor + (1 - b) * mean`` with ``b`` the larger of ``anchor_weight`` and
       1 / (1 + number averaged).

    After Shen et al., "FastVID: Dynamic Density Pruning for Fast Video Large Language Models", NeurIPS 2025 (arXiv
    2503.11187), section 3, and the code released for LLaVA-OneVision; the defaults are theirs. Differs: budgets are
    exact over the video, remainders of a segment going to its first frames (salient) and last anchors, as in the code
    for LLaVA-Video, and anchors becoming salient cells where a frame is too small for them; frames are compared by
    their mean cell, as in the code for Qwen2.5-VL, because a grid has no pooled frame; ties go to the earliest cell
    instead of to added noise; a video of few frames or cells is cut and measured with what there is. A cell is merged
    into a token of every anchor frame, but ``source`` can name one: the most similar. Tokens are in the order of the
    first frame they stand for. As published, time grows with the square of the longest segment, since every anchor
    frame takes in all of it; here stretches of more than ``max_segment`` frames are cut evenly, which keeps time and
    memory linear in frames.
    """

    needs_importance = True
    origin: ClassVar[str] = "FastVID (arXiv 2503.11187; LunarShen/FastVID, MIT); written from the definition"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(Compressor.Config):
        retention: float = 0.1
        """Fraction of grid cells that reach the language model, in (0, 1]."""
        min_segments: int = 8
        """Segments that a video is cut into at least, as far as it has frames (c of the paper)."""
        cut_below: float = 0.9
        """Frames less similar than this are cut apart (tau of the paper)."""
        density_share: float = 0.4
        """Share of the tokens that are anchors; the others are salient cells (d of the paper)."""
        anchor_every: int = 4
        """Frames to one with anchors (p of the paper)."""
        anchor_weight: float = 0.6
        """Least weight of the anchor in a merged token (beta of the paper)."""
        max_segment: int = 128
        """Most frames of a segment; time grows with the frames times this."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("min_segments", "anchor_every", "max_segment"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
            for name in ("density_share", "anchor_weight"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name}={getattr(self, name)} is not in [0, 1]")
            if not -1 <= self.cut_below <= 1:
                raise ValueError(f"cut_below={self.cut_below} is no cosine: it must lie in [-1, 1]; 0.9 is usual")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        features, importance = video.features[0], video.importance
        assert importance is not None, "forward has checked needs_importance"
        t, h, w, _ = features.shape
        cells = features.flatten(1, 2).float()
        ends, salient, anchor = self.choose(cells, importance[0].flatten(1))
        merged, carrier = self.merge(cells, ends, salient, anchor)
        # Tokens so far stand in the order of their own cells; an anchor may speak for earlier frames.
        frame = torch.arange(t, device=cells.device)[:, None].expand(carrier.shape)[carrier >= 0]
        first = frame.new_full((len(merged),), t).scatter_reduce(0, carrier[carrier >= 0], frame, "amin")
        order = first.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return merged[order], torch.where(carrier >= 0, place[carrier.clamp(min=0)], -1).view(t, h, w)

    @torch.no_grad()
    def choose(self, cells: Tensor, importance: Tensor) -> tuple[list[int], Tensor, Tensor]:
        """Segments and what is kept of them.

        Args:
            cells: ``[T, S, D]`` float32.
            importance: ``[T, S]``.

        Returns:
            The end of each segment, and ``[T, S]`` bool twice: the salient cells and the anchors.
        """
        t, s, _ = cells.shape
        config = self.config
        ends = segment_ends(cells.mean(1), config.min_segments, config.cut_below, config.max_segment)
        salient_count, anchor_count = self._shares(ends, budget_tokens(t * s, config.retention), s)
        salient = ranks(importance.float()) < salient_count.to(cells.device)[:, None]
        # A frame without anchors is a set without centres.
        centre = density_peaks(cells, ~salient, anchor_count.to(cells.device), NEIGHBOURS)
        return ends, salient, centre == torch.arange(s, device=cells.device)

    def _shares(self, ends: list[int], count: int, cells: int) -> tuple[Tensor, Tensor]:
        """``[T]`` salient cells and ``[T]`` anchors of every frame; all together ``count``."""
        salient, anchors = torch.zeros(2, ends[-1], dtype=torch.long)
        for start, end in zip([0, *ends], ends, strict=False):
            frames = end - start
            share = count * end // ends[-1] - count * start // ends[-1]
            hosts = -(-frames // self.config.anchor_every)
            # The nudge keeps a product that is whole but for binary fractions whole; a frame must have room for its
            # salient cells and its anchors.
            most = int(share * self.config.density_share + 1e-6)
            anchor = next(a for a in range(most, -1, -1) if -(-a // hosts) + -(-(share - a) // frames) <= cells)
            salient[start:end] = _evenly(share - anchor, frames)
            anchors[torch.arange(end - 1, start - 1, -self.config.anchor_every)] = _evenly(anchor, hosts)
        return salient, anchors

    def merge(self, cells: Tensor, ends: list[int], salient: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Merge every cell of ``cells [T, S, D]`` that is not salient into the anchors of its segment.

        Returns:
            ``[n, D]`` tokens in the order of the kept cells, and ``[T, S]``: the token that carries each cell, or -1.
        """
        kept = salient | anchor
        own = torch.where(kept, kept.flatten().cumsum(0).view(kept.shape) - 1, -1)
        carrier, at, merged = own.clone(), [own[:0, 0]], [cells[:0, 0]]
        for start, end in zip([0, *ends], ends, strict=False):
            hosts = (anchor[start:end].any(1).nonzero()[:, 0] + start).tolist()
            pool, out = cells[start:end].flatten(0, 1), salient[start:end].flatten()
            best, token = pool.new_full((len(pool),), -torch.inf), own.new_full((len(pool),), -1)
            for host in hosts:
                index, anchors = own[host, anchor[host]], cells[host, anchor[host]]
                cosine, target = nearest(pool, anchors)
                number = torch.bincount(target[~out], minlength=len(index))
                weight = (1 / (number + 1)).clamp(min=self.config.anchor_weight)[:, None]
                at.append(index)
                mean = mean_cells(pool, target.masked_fill(out, -1), len(index))
                merged.append(weight * anchors + (1 - weight) * mean)
                token = torch.where(cosine > best + CARRIER_STEP, index[target], token)
                best = best.maximum(cosine)
            carrier[start:end] = token.masked_fill(out, -1).view(end - start, -1)
        tokens = cells[kept].index_copy(0, torch.cat(at), torch.cat(merged))
        return tokens, torch.where(kept, own, carrier)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 0.3, "min_segments": 1, "cut_below": -1.0},
            {"retention": 0.9, "min_segments": 3, "cut_below": -1.0, "density_share": 0.6},
        ]


def segment_ends(frames: Tensor, least: int, below: float, longest: int) -> list[int]:
    """Where the segments of ``frames [T, D]`` end (exclusive): ``least`` of them where there are as many frames.

    Stretches of more than ``longest`` frames are cut evenly.
    """
    unit = F.normalize(frames, dim=-1)
    similarity = (unit[:-1] * unit[1:]).sum(-1)
    cut = (similarity < below) | (ranks(-similarity) < least - 1)
    cuts = [0, *(cut.nonzero()[:, 0] + 1).tolist(), len(frames)]
    ends = []
    for start, end in pairwise(cuts):
        parts = -(-(end - start) // longest)
        ends += [start + (end - start) * (part + 1) // parts for part in range(parts)]
    return ends


def _evenly(total: int, parts: int) -> Tensor:
    """``[parts]`` whole numbers that sum to ``total``, the first ones larger by one where it does not divide."""
    return total // parts + (torch.arange(parts) < total % parts).long()

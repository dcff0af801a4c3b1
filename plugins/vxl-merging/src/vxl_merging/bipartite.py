"""Bipartite token merging: the most similar cells of a clip become one, until the budget is met."""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor

from vxl_lightning.compressors.base import Groups
from vxl_merging.clips import ClipMerger
from vxl_merging.core import Mean, merge


class BipartiteMerging(ClipMerger):
    """Merges the most similar cells of each clip, in rounds of bipartite soft matching.

    A round splits the tokens alternately into sets A and B, links every token of A to its most similar token of B
    (cosine, float32), and merges the strongest links: B's token becomes the mean of both, weighted by the cells behind
    them. As many links are merged as the budget still asks for, at most all of A; so a round at most halves, and
    rounds repeat until exactly ``retention`` of the clip's cells are left. Among equals the earliest wins. A token is
    the mean of the cells it carries (with ``mean=plain`` those of its last round count more).

    After Bolya et al., "Token Merging", ICLR 2023 (arXiv 2210.09461), section 3. Differs: similarity is between
    features and not attention keys; a clip of frames is merged at once, after the encoder, instead of a few tokens a
    layer; and the alternation runs over time first, because row by row an even width would put a cell and itself one
    frame later into the same set, where they can never be merged. The paper's proportional attention, which adds the
    logarithm of a token's size to every score of attention to it, is not done here, as no attention follows in here:
    the sizes are handed on as ``VideoTokens.weight``, exact whichever ``mean`` was taken, and the language model
    does not read them.
    """

    origin: ClassVar[str] = (
        "Token Merging (arXiv 2210.09461; facebookresearch/ToMe is CC BY-NC 4.0 and was not used); "
        "clean-room from the paper"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClipMerger.Config):
        mean: Mean = "size"
        """What merged tokens become: ``size``, their mean weighted by the cells behind each, or ``plain``, the mean in
        which every token counts once a round, whatever it stands for."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.mean not in get_args(Mean):
                raise ValueError(f"mean={self.mean!r} is not one of {', '.join(get_args(Mean))}")

    def merge_clips(self, clips: Groups, count: int) -> tuple[Tensor, Tensor]:
        g, f, h, w, _ = clips.features.shape
        cells = clips.features.permute(0, 2, 3, 1, 4).flatten(1, 3)
        tokens, carrier = merge(cells, count, mean=self.config.mean)
        return tokens, carrier.view(g, h, w, f).permute(0, 3, 1, 2)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 0.4},
            {"retention": 1 / 4, "frames_per_group": 3},
            {"retention": 1 / 8, "mean": "plain"},
        ]

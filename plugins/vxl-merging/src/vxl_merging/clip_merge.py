"""Clip-level merging: the tokens of a few frames are halved together until a few per frame are left."""

from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.compressors.base import Groups
from vxl_merging.clips import ClipMerger
from vxl_merging.core import merge


class ClipMerge(ClipMerger):
    """Merges short clips jointly, in rounds of bipartite soft matching that halve them, after VideoChat-Flash's HiCo.

    The cells of ``frames_per_group`` frames are one sequence, frame by frame and row by row. In a round every other
    token goes into the most similar one of the rest (cosine, float32; the earliest among equals), as a mean weighted
    by the cells behind each; the last round merges only the strongest links that the count still asks for. So exactly
    ``retention`` of the clip's cells are left. The default, 1 / 16, is the paper's 16 tokens a frame on a grid of
    16 by 16 cells.

    After Li et al., "VideoChat-Flash", arXiv 2501.00574, the clip-level half of its hierarchical compression (HiCo).
    The other half drops tokens inside the language model and is not part of this. `BipartiteMerging` is the same but
    for the order of the sequence, which there runs over time first: here, on a grid of even width, a cell and itself
    one frame later are on the same side of the first round.
    """

    origin: ClassVar[str] = (
        "VideoChat-Flash (arXiv 2501.00574; OpenGVLab/VideoChat-Flash is MIT, its merging file derives from "
        "facebookresearch/ToMe, CC BY-NC 4.0, and was not used); clean-room from the papers"
    )
    api_version: ClassVar[str] = "1"

    def merge_clips(self, clips: Groups, count: int) -> tuple[Tensor, Tensor]:
        tokens, carrier = merge(clips.features.flatten(1, 3), count)
        return tokens, carrier.view(clips.features.shape[:-1])

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 0.3}, {"retention": 1 / 4, "frames_per_group": 3}]

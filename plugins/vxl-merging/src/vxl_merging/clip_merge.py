"""Clip-level merging: the tokens of a few frames are halved together until a few per frame are left."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.compressors.base import Groups
from vxl_merging.clips import ClipMerger
from vxl_merging.core import check_heads, merge


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

    Differs from the release: it compares tokens by the mean of their channels over the encoder's attention heads, 16 of
    64 channels; here ``heads`` does that, and is 1, all channels as they are, since a grid does not say what heads its
    encoder has. Where a round starts from an odd number of tokens, all of the larger half may be merged, where the
    release leaves its least similar token and moves it to the front. Tokens stay in the order of the sequence.
    """

    origin: ClassVar[str] = (
        "VideoChat-Flash (arXiv 2501.00574; OpenGVLab/VideoChat-Flash is MIT, its merging file derives from "
        "facebookresearch/ToMe, CC BY-NC 4.0, and nothing of it was copied); clean-room from the papers"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClipMerger.Config):
        heads: int = 1
        """Cells are compared by the mean of their channels over so many equal parts; 1 compares all channels."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.heads < 1:
                raise ValueError(f"heads={self.heads} must be at least 1, which compares all channels")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        check_heads(config.heads, dim)

    def merge_clips(self, clips: Groups, count: int) -> tuple[Tensor, Tensor]:
        tokens, carrier = merge(clips.features.flatten(1, 3), count, heads=self.config.heads)
        return tokens, carrier.view(clips.features.shape[:-1])

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 0.3, "heads": 4}, {"retention": 1 / 4, "frames_per_group": 3}]

"""Token merging: cells that are alike become one token."""

from vxl_merging.bipartite import BipartiteMerging
from vxl_merging.clip_merge import ClipMerge
from vxl_merging.core import Mean, Merged, merge, merge_into
from vxl_merging.vtm import VideoTokenMerging

__all__ = ["BipartiteMerging", "ClipMerge", "Mean", "Merged", "VideoTokenMerging", "merge", "merge_into"]

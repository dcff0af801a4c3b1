"""Videos that another video shows too: re-encoded, scaled or trimmed.

Frames are matched one by one, and a video is a near-duplicate of a longer one that shows enough of its frames. Which
stay is decided longest first: a video goes only if one that stays shows it. So each near-duplicate overlaps with the
very twin it names, and in a chain of overlaps (A with B, B with C) C does not go for the sake of A.

Two rules keep quiet videos apart: at least `MATCHED` different frames of either side must match, so that a still
picture is no duplicate of every film it appears in; and a video that shows one picture alone is compared with its like,
or, if it is flat (black) before or after, with all that are flat somewhere.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vxl_lightning.curation.frames import DIM
from vxl_lightning.curation.recipe import DuplicateRules
from vxl_lightning.curation.similar import Floats, Ints, pair_blocks

NEAR = pa.schema(
    [
        ("media", pa.string()),
        ("duplicate_of", pa.string()),  # a video that stays
        ("overlap", pa.float64()),  # fraction of its different frames that the other shows, 0 to 1
    ]
)
MATCHED = 2
"""Frames of either side that must match, unless both show one picture alone, or one that flashes up in the dark."""


def near_videos(
    frames: pa.Table, settings: DuplicateRules, seed: int, durations: Mapping[str, float] | None = None
) -> pa.Table:
    """The videos that are near-duplicates, and of which.

    Args:
        frames: a `schema.FRAMES` table; pictures and files with a problem are passed over.
        settings: from which cosine frames, and from which overlap videos are the same.
        seed: of the search for similar frames; it does not change the result.
        durations: seconds of each video; of two the longer stays, then the one with more frames, then the first by
            path. By default a video ends with the last new frame that was seen of it.

    Returns:
        `NEAR`, a row for each near-duplicate, in the order of ``frames``.
    """
    # A picture has no motion, and neither has what could not be decoded.
    videos = frames.filter(pc.is_valid(frames["motion"]))
    media, times = videos["media"].to_pylist(), videos["times"].to_pylist()
    vectors, video, dark = _vectors(videos)
    count = np.bincount(video, minlength=len(media))
    ends = [durations[m] if durations else t[-1] for m, t in zip(media, times, strict=True)]
    rank = np.argsort(sorted(range(len(media)), key=lambda v: (-ends[v], -len(times[v]), media[v])))
    first, second, overlap = _overlaps(vectors, video, count, dark, rank, settings.frame_similarity, seed)
    assert settings.near_video.threshold is not None
    enough = overlap >= settings.near_video.threshold
    first, second, overlap = first[enough], second[enough], overlap[enough]
    twin: dict[int, tuple[int, float]] = {}
    for place in np.lexsort((rank[second], -overlap, rank[first])).tolist():
        shorter, longer = int(first[place]), int(second[place])
        if shorter not in twin and longer not in twin:
            twin[shorter] = longer, float(overlap[place])
    rows = [{"media": media[v], "duplicate_of": media[twin[v][0]], "overlap": twin[v][1]} for v in sorted(twin)]
    return pa.Table.from_pylist(rows, NEAR)


def _vectors(videos: pa.Table) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """Descriptors ``[N, DIM]`` of all frames that are not flat, the video ``[N]`` of each, and who has flat ones."""
    pieces = [np.frombuffer(raw.as_py(), np.float16).reshape(-1, DIM) for raw in videos["descriptors"]]
    video = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    vectors = np.concatenate([np.zeros((0, DIM), np.float16), *pieces])
    shown = vectors.any(1)
    dark = np.zeros(len(pieces), dtype=bool)
    dark[video[~shown]] = True
    return vectors[shown].astype(np.float32), video[shown], dark


def _overlaps(
    vectors: Floats, video: Ints, count: Ints, dark: NDArray[np.bool_], rank: Ints, similarity: float, seed: int
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Pairs of a video and a longer one (lower ``rank``), and the fraction of its frames that the longer one shows."""
    size = np.int64(len(count))
    # One number for "this frame is shown by that video": it counts once, however often it is shown.
    shown = [np.zeros(0, np.int64)]
    for left, right, _ in pair_blocks(vectors, similarity, seed, groups=video):
        shown.append(np.unique(np.concatenate([left * size + video[right], right * size + video[left]])))
    frame, other = np.divmod(np.unique(np.concatenate(shown)), size)
    pair, matched = np.unique(video[frame] * size + other, return_counts=True)
    first, second = np.divmod(pair, size)
    # Matching is symmetric, so the pair the other way round is there.
    back = matched[np.searchsorted(pair, second * size + first)]
    alone = (count[first] == 1) & ((count[second] == 1) | (dark[first] & dark[second]))
    needed = np.where(alone, 1, MATCHED)
    good = (rank[second] < rank[first]) & (np.minimum(matched, back) >= needed)
    return first[good], second[good], matched[good] / count[first[good]]

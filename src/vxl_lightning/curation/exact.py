"""Exact duplicates: files of the same bytes, and the same conversation about the same video."""

import numpy as np

from vxl_lightning.curation.index import Index, Ints
from vxl_lightning.curation.verdicts import Fault, Flags


def twins(digests: list[str | None]) -> Ints:
    """``[M]`` for every media the first one of the same bytes, itself where there is none."""
    first: dict[str, int] = {}
    return np.array([i if d is None else first.setdefault(d, i) for i, d in enumerate(digests)], dtype=np.int64)


def repeated_conversations(index: Index, hashes: Ints, kept: Flags) -> tuple[Flags, dict[int, Fault]]:
    """``[N]`` samples whose conversation was had before about the same video, each with its first.

    Args:
        index: the samples, exact copies of videos merged.
        hashes: ``[N]`` of the whole conversation.
        kept: samples that are still there; others neither fail nor are anybody's twin.
    """
    rows = np.flatnonzero(kept)
    order = np.lexsort((rows, hashes[rows], index.media[rows]))
    rows = rows[order]
    same = np.zeros(len(rows), dtype=bool)
    same[1:] = (hashes[rows][1:] == hashes[rows][:-1]) & (index.media[rows][1:] == index.media[rows][:-1])
    first = rows[np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))] if len(rows) else rows
    failed = np.zeros(len(index), dtype=bool)
    failed[rows[same]] = True
    names = index.ids(first[same])
    return failed, {int(row): Fault(duplicate_of=name) for row, name in zip(rows[same], names, strict=True)}

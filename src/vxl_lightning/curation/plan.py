"""Which shard holds what, decided before anything is written: a table that any worker can carry out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vxl_lightning.curation.index import Floats, Index
from vxl_lightning.curation.recipe import OutputSettings
from vxl_lightning.curation.schema import iterate, write_table
from vxl_lightning.curation.verdicts import Flags
from vxl_lightning.data.manifest import safe_key

PLAN = pa.schema(
    [
        ("shard", pa.int64()),
        ("key", pa.string()),
        ("media", pa.string()),
        ("kind", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("referenced", pa.bool_()),
        ("rows", pa.list_(pa.int64())),
    ]
)


def make_plan(
    index: Index, kept: Flags, digests: Sequence[str | None], duration: Floats, settings: OutputSettings, path: Path
) -> int:
    """Write the `PLAN` table: every kept video once, with the rows of its kept samples; gives the number of shards.

    Videos keep the order in which annotations first name them, and a shard is closed once it is big enough.
    """
    rows = np.flatnonzero(kept)
    by_media = rows[np.argsort(index.media[rows], kind="stable")]
    places, starts = np.unique(index.media[by_media], return_index=True)
    texts = _text_bytes(index)
    sizes = index.table["bytes"].to_numpy()
    kinds = index.table["kind"].to_pylist()
    table: list[dict[str, Any]] = []
    shard, filled = 0, 0
    for place, of_media in zip(places.tolist(), np.split(by_media, starts[1:]), strict=True):
        referenced = bool(0 < settings.reference_seconds < duration[place])
        size = (0 if referenced else int(sizes[place])) + int(texts[of_media].sum())
        media = index.paths[place]
        table.append(
            {
                "shard": shard, "key": safe_key(media), "media": media, "kind": kinds[place],
                "bytes": int(sizes[place]), "sha256": digests[place], "referenced": referenced,
                "rows": of_media.tolist(),
            }
        )  # fmt: skip
        filled += size
        if filled >= settings.shard_bytes:
            shard, filled = shard + 1, 0
    write_table(path, pa.Table.from_pylist(table, PLAN))
    return table[-1]["shard"] + 1 if table else 0


def _text_bytes(index: Index) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """``[N]`` characters of every record."""
    import pyarrow.compute as pc

    parts = [pc.binary_length(batch["record"]).to_numpy() for batch in iterate(index.samples, ["record"])]
    return np.concatenate(parts).astype(np.int64)

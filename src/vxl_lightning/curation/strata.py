"""Strata over which a budget is spread: source x duration x form of the question x what the video shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vxl_lightning.curation.index import Floats, Index, Ints
from vxl_lightning.curation.schema import iterate
from vxl_lightning.curation.select import DURATION_NAMES, duration_bucket
from vxl_lightning.curation.verdicts import Flags

STRATA = pa.schema(
    [
        ("stratum", pa.string()),
        ("source", pa.string()),
        ("duration", pa.string()),
        ("form", pa.string()),
        ("cluster", pa.string()),
        ("before", pa.int64()),
        ("after", pa.int64()),
        ("tokens_before", pa.int64()),
        ("tokens_after", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Strata:
    """``index [N]`` the stratum of every sample; ``names`` the source, duration, form and cluster of each stratum."""

    index: Ints
    names: list[tuple[str, str, str, str]]

    def table(self, before: Flags, after: Flags, tokens: Ints) -> pa.Table:
        """Samples and tokens of every stratum that holds any: those that could be chosen from, and those that were."""
        sums = {}
        for name, flags in (("before", before), ("after", after)):
            chosen = self.index[flags]
            sums[name] = np.bincount(chosen, minlength=len(self.names))
            sums[f"tokens_{name}"] = np.bincount(chosen, tokens[flags].astype(float), len(self.names))
        rows = [
            {
                "stratum": " / ".join(names),
                **dict(zip(("source", "duration", "form", "cluster"), names, strict=True)),
                **{column: int(values[place]) for column, values in sums.items()},
            }
            for place, names in enumerate(self.names)
            if sums["before"][place]
        ]
        return pa.Table.from_pylist(rows, STRATA)


def make_strata(
    index: Index, conversation: Path, frames: pa.Table, duration: Floats, clusters: int, seed: int
) -> Strata:
    """Put every sample into a stratum.

    Args:
        index: the samples.
        conversation: path of the `CONVERSATION` table.
        frames: the `FRAMES` table, by which videos are clustered; may be empty.
        duration: ``[N]`` seconds.
        clusters: of videos; 1 for none.
        seed: of the clustering.
    """
    forms: dict[str, int] = {}
    form = np.zeros(len(index), dtype=np.int64)
    for batch in iterate(conversation, ["row", "form"]):
        codes = [forms.setdefault(f, len(forms)) for f in batch["form"].to_pylist()]
        form[batch["row"].to_numpy()] = codes
    cluster = index.spread(_clusters(index, frames, clusters, seed))
    of_video = np.where(np.isnan(cluster), -1, cluster).astype(np.int64)
    values, which = np.unique(
        np.stack([index.source, duration_bucket(duration), form, of_video], 1), axis=0, return_inverse=True
    )
    form_names = list(forms)
    names = [
        (index.sources[s], DURATION_NAMES[d], form_names[f] if form_names else "", f"cluster {c}" if c >= 0 else "none")
        for s, d, f, c in values.tolist()
    ]
    return Strata(which.reshape(-1).astype(np.int64), names)


def _clusters(index: Index, frames: pa.Table, count: int, seed: int) -> Floats:
    """``[M]`` the cluster of every video by its mean frame; NaN where nothing of it was looked at."""
    found = np.full(len(index.paths), np.nan)
    looked = frames.filter(frames["descriptors"].is_valid()) if len(frames) else frames
    if count < 2 or len(looked) <= count:
        return found
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    from vxl_lightning.curation.frames import DIM

    means = np.stack(
        [np.frombuffer(d, np.float16).reshape(-1, DIM).astype(np.float64).mean(0) if d else np.zeros(DIM)
         for d in looked["descriptors"].to_pylist()]
    )  # fmt: skip
    with threadpool_limits(1):  # threads add up in the order in which they come
        found[index.places(looked)] = KMeans(count, n_init=1, random_state=seed).fit_predict(means)
    return found

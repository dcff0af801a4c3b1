"""The rules applied to what the stages found: from tables to verdicts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vxl_lightning.curation import exact
from vxl_lightning.curation.index import Floats, Index
from vxl_lightning.curation.probe import COMMON_PIXELS
from vxl_lightning.curation.recipe import ConversationRules, DuplicateRules, ProbeSettings
from vxl_lightning.curation.schema import iterate, read_table
from vxl_lightning.curation.verdicts import Fault, Verdicts

DUPLICATES = pa.schema(
    [("media", pa.string()), ("duplicate_of", pa.string()), ("overlap", pa.float64()), ("rule", pa.string())]
)


def broken_records(verdicts: Verdicts, index: Index) -> None:
    """Quarantine records that are malformed."""
    faults: dict[int, Fault] = {}
    for batch in iterate(index.samples, ["row", "problem", "detail"]):
        faults |= _problems(batch)
    verdicts.quarantine("record", "annotations", faults)


def broken_media(verdicts: Verdicts, index: Index, stage: str, table: pa.Table) -> None:
    """Quarantine the samples of media that a table with ``media``, ``problem`` and ``detail`` finds fault with."""
    broken = table.filter(table["problem"].is_valid())
    why = dict(zip(index.places(broken).tolist(), _reasons(broken), strict=True))
    rows = np.flatnonzero(np.isin(index.media, list(why)))
    verdicts.quarantine(stage, stage, {int(row): Fault(why[int(index.media[row])]) for row in rows})


def broken_rows(verdicts: Verdicts, stage: str, path: Path) -> None:
    """Quarantine the samples that a table with ``row``, ``problem`` and ``detail`` finds fault with."""
    verdicts.quarantine(stage, stage, _problems(read_table(path, ["row", "problem", "detail"])))


def _problems(table: pa.Table | pa.RecordBatch) -> dict[int, Fault]:
    broken = table.filter(table["problem"].is_valid())
    rows = zip(broken["row"].to_pylist(), _reasons(broken), strict=True)
    return {row: Fault(reason) for row, reason in rows}


def _reasons(table: pa.Table | pa.RecordBatch) -> list[str]:
    pairs = zip(table["problem"].to_pylist(), table["detail"].to_pylist(), strict=True)
    return [f"{problem}: {detail}" for problem, detail in pairs]


def odd_files(verdicts: Verdicts, index: Index, probed: pa.Table, settings: ProbeSettings) -> None:
    """Files that are sound and unusual."""
    places = index.places(probed)
    uneven = pc.fill_null(probed["variable_rate"], False).to_numpy()
    common = pc.is_in(probed["pixel_format"], pa.array([*COMMON_PIXELS, None], pa.string())).to_numpy()
    video = np.array(index.table["kind"].to_pylist())[places] == "video"
    for name, setting, found in (
        ("variable_rate", settings.variable_rate, uneven),
        ("odd_pixels", settings.odd_pixels, ~common & video),
    ):
        flags = np.zeros(len(index.paths), dtype=bool)
        flags[places[found]] = True
        verdicts.find(name, "probe", setting, index.of_media(flags))


def conversations(verdicts: Verdicts, path: Path, rules: ConversationRules) -> None:
    """Placeholders, empty answers, loops."""
    count = len(verdicts.state)
    wrong, empty = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    repeated = np.full(count, np.nan)
    faults: dict[int, Fault] = {}
    for batch in iterate(path, ["row", "placeholder", "empty", "repeated"]):
        rows = batch["row"].to_numpy()
        misplaced = batch["placeholder"].is_valid().to_numpy(zero_copy_only=False)
        wrong[rows], empty[rows] = misplaced, batch["empty"].to_numpy(zero_copy_only=False)
        repeated[rows] = batch["repeated"].to_numpy()
        texts = batch["placeholder"].filter(pa.array(misplaced)).to_pylist()
        faults |= {int(row): Fault(text) for row, text in zip(rows[misplaced], texts, strict=True)}
    verdicts.find("placeholder", "conversation", rules.placeholder, wrong, faults)
    verdicts.find("empty_answer", "conversation", rules.empty_answer, empty)
    verdicts.limit("repeated_answer", "conversation", rules.repeated_answer, repeated, higher_is_worse=True)


def exact_duplicates(
    verdicts: Verdicts, index: Index, path: Path, digests: list[str | None], rules: DuplicateRules
) -> pa.Table:
    """Files of the same bytes become one, then the same conversation about the same video is had once.

    Args:
        path: of the `CONVERSATION` table.
        digests: ``[M]`` SHA-256 of every media.

    Returns:
        The `DUPLICATES` among the files.
    """
    twin = exact.twins(digests) if rules.exact_video.mode != "off" else np.arange(len(digests))
    copies = np.flatnonzero(twin != np.arange(len(twin)))
    flags = np.zeros(len(twin), dtype=bool)
    flags[copies] = True
    if rules.exact_video.mode == "score":
        verdicts.find("exact_video", "duplicates", rules.exact_video, index.of_media(flags))
    elif rules.exact_video.mode == "enforce":
        index.merge(twin)
    hashes = np.zeros(len(index), dtype=np.int64)
    for batch in iterate(path, ["row", "conversation"]):
        hashes[batch["row"].to_numpy()] = batch["conversation"].to_numpy()
    failed, faults = exact.repeated_conversations(index, hashes, verdicts.kept)
    verdicts.find("exact_qa", "duplicates", rules.exact_qa, failed, faults)
    names = [[index.paths[i] for i in places] for places in (copies, twin[copies])]
    return duplicates(names[0], names[1], [1.0] * len(copies), "exact_video")


def duplicates(media: list[str], twins: list[str], overlap: list[float], rule: str) -> pa.Table:
    """Rows of the `DUPLICATES` table."""
    return pa.table([media, twins, overlap, [rule] * len(media)], schema=DUPLICATES)


def near_duplicates(
    verdicts: Verdicts, index: Index, looked: pa.Table, near: pa.Table, rules: DuplicateRules
) -> pa.Table:
    """Videos that another shows too: ``near`` has media, duplicate_of and overlap, of those in ``looked``."""
    overlap = np.full(len(index.paths), np.nan)
    overlap[index.places(looked)] = 0.0
    overlap[index.places(near)] = near["overlap"].to_numpy()
    twin: Mapping[int, str] = dict(zip(index.places(near).tolist(), near["duplicate_of"].to_pylist(), strict=True))
    rows = np.flatnonzero(np.isin(index.media, list(twin)))
    faults = {int(row): Fault(duplicate_of=twin[int(index.media[row])]) for row in rows}
    score = index.spread(overlap)
    verdicts.limit("near_video", "duplicates", rules.near_video, score, True, inclusive=True, faults=faults)
    return duplicates(
        near["media"].to_pylist(), near["duplicate_of"].to_pylist(), near["overlap"].to_pylist(), "near_video"
    )


def column(path: Path, name: str, count: int) -> Floats:
    """A number column of a table with a ``row`` column, as ``[N]``; NaN where it has no row or no value."""
    values = np.full(count, np.nan)
    table = read_table(path, ["row", name])
    values[table["row"].to_numpy()] = pc.cast(table[name], pa.float64()).fill_null(float("nan")).to_numpy()
    return values

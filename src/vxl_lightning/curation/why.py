"""Why was this sample kept or dropped? Read from the tables of a finished recipe."""

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from vxl_lightning.curation.schema import read_table
from vxl_lightning.data.manifest import NAME
from vxl_lightning.errors import UserError


def why(root: Path, name: str) -> list[dict[str, Any]]:
    """Everything known of the samples that a name fits: their sample_id (or its beginning), id, or media path.

    Returns:
        For each its decision, the rules with its scores, its record and the facts of its media, as plain values.

    Raises:
        UserError: no pruned dataset, or no such sample.
    """
    if not (root / NAME).is_file() or not (root / "decisions.parquet").is_file():
        raise UserError(f"{root}: not a pruned dataset; give the 'out' folder of 'vxl data prune'")
    decisions = read_table(root / "decisions.parquet")
    fits = pc.or_(pc.starts_with(decisions["sample_id"], name), pc.equal(decisions["id"], name))
    found = decisions.filter(pc.or_(fits, pc.equal(decisions["media"], name)))
    if not len(found):
        raise UserError(
            f"{root}: no sample has the sample_id, id or media {name!r}; "
            "decisions.parquet and errors.parquet list them all"
        )
    rules = {rule["rule"]: rule for rule in read_table(root / "rules.parquet").to_pylist()}
    scores = read_table(root / "scores.parquet")
    probe = read_table(root / "probe.parquet")
    reports = []
    for decision in found.to_pylist():
        mine = scores.filter(pc.equal(scores["row"], decision["row"])).to_pylist()
        media = probe.filter(pc.equal(probe["media"], decision["media"])).drop_columns(["keyframe_times"]).to_pylist()
        reports.append(
            {
                "decision": decision,
                "scores": [rules[score["rule"]] | {"score": score["score"]} for score in mine],
                "media": media[0] if media else None,
                "record": _record(root / "samples.parquet", decision["row"]),
            }
        )
    return reports


def _record(path: Path, row: int) -> Any:
    from vxl_lightning.curation.schema import ROW_GROUP

    with pq.ParquetFile(path) as file:
        group = file.read_row_group(row // ROW_GROUP, columns=["record"])
    text = group["record"][row % ROW_GROUP].as_py()
    return json.loads(text) if text else None

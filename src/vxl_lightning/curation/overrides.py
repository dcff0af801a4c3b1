"""Named samples that outrank every rule."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vxl_lightning.curation.index import Index
from vxl_lightning.curation.schema import read_table
from vxl_lightning.curation.verdicts import Flags
from vxl_lightning.errors import UserError


def load_overrides(path: str, index: Index) -> tuple[Flags, Flags]:
    """``[N]`` samples to keep and samples to drop, from lines of ``keep SAMPLE_ID`` and ``drop SAMPLE_ID``.

    Raises:
        UserError: no such file, a line that is neither, a sample that is not there or is named twice.
    """
    wanted: dict[str, str] = {}
    if path:
        if not Path(path).is_file():
            raise UserError(f"overrides={path!r}: no such file; give lines of 'keep SAMPLE_ID' or 'drop SAMPLE_ID'")
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or words[0] not in ("keep", "drop"):
                raise UserError(f"{path}, line {number}: {line!r} is neither 'keep SAMPLE_ID' nor 'drop SAMPLE_ID'")
            if words[1] in wanted:
                raise UserError(f"{path}, line {number}: {words[1]} is named twice; say it once")
            wanted[words[1]] = words[0]
    names = list(wanted)
    flags = {word: np.zeros(len(index), dtype=bool) for word in ("keep", "drop")}
    if names:
        places = pc.index_in(pa.array(names), read_table(index.samples, ["sample_id"])["sample_id"]).to_pylist()
        for name, place in zip(names, places, strict=True):
            if place is None:
                raise UserError(f"{path}: no sample {name}; 'vxl data why' and decisions.parquet name them")
            flags[wanted[name]][place] = True
    return flags["keep"], flags["drop"]

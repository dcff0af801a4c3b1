"""The ``frames`` stage: `frames.look` at every video, in a process that is killed when it takes too long."""

from functools import cache
from pathlib import Path

import pyarrow as pa

from vxl_lightning.curation.frames import look
from vxl_lightning.curation.recipe import FrameSettings
from vxl_lightning.curation.schema import FRAMES
from vxl_lightning.parallel import CallFailed, Killable


def looking(media: pa.Table, settings: FrameSettings, media_root: str) -> pa.Table:
    """The `FRAMES` row of every row of a table with media, kind, keyframe_times and duration."""
    rows = []
    for item in media.to_pylist():
        path = Path(media_root) / item["media"]
        arguments = (path, item["kind"], item["keyframe_times"], item["duration"], settings, item["media"])
        try:
            rows.append(_child()(*arguments, timeout=settings.timeout))
        except CallFailed as error:
            problem = "timeout" if "took over" in str(error) else "crash"
            rows.append({"media": item["media"], "problem": problem, "detail": f"looking at its frames {error}"})
    return pa.Table.from_pylist(rows, FRAMES)


@cache
def _child() -> Killable:
    return Killable(look)

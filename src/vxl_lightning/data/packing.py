"""Annotations and media as they lie in folders, into shards."""

from pathlib import Path

from vxl_lightning.data.files import inside
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.data.schema import Sample, read_annotations
from vxl_lightning.data.writer import ShardWriter
from vxl_lightning.errors import UserError


def pack_videos(annotations: str | Path, videos: str | Path, out: str | Path) -> Manifest:
    """Annotations, and the folder their media paths are relative to, into shards; the media's bytes are copied.

    Videos, images and folders of frames. All records of one media become one entry, where its first record stands;
    its key is that record's id.

    Raises:
        UserError: a wrong record, media that are missing or outside ``videos``, two media whose first records share an
            id, or a folder that holds a dataset.
    """
    shown: dict[Path, list[Sample]] = {}
    for sample in read_annotations(annotations):
        path = inside(Path(videos), sample.video, f"{annotations} (id {sample.id!r})")
        if not path.exists():
            raise UserError(
                f"{annotations} (id {sample.id!r}): no video file {path}; check the folder given for videos"
            )
        shown.setdefault(path, []).append(sample)
    with ShardWriter(out, "video") as writer:
        for path, samples in shown.items():
            writer.add_video(samples, path)
    return Manifest.load(Path(out))[0]

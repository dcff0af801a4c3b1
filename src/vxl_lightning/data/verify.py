"""Check a dataset against its manifest: hashes, tar members, annotations, and one decoded media a shard."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from vxl_lightning.data.decoding import probe, stream_frames
from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.frame_index import frame_index, unpacked
from vxl_lightning.data.manifest import NAME, TABLE, Shard
from vxl_lightning.data.media import IndexedVideo
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError


def verify(root: str | Path, media_root: str | Path | None = None) -> Iterator[tuple[str, str | None]]:
    """For every table and every shard its name and what is wrong with it, or None.

    Of a shard: its hash and members, every annotation, every file that it refers to (hashed) and every frame index
    (made again), and its first media decoded.

    Args:
        root: folder of the shards.
        media_root: folder that media kept by reference are relative to; needed where there are such.

    Raises:
        UserError: the manifest itself cannot be read or a shard is missing.
    """
    reader = ShardReader(root, media_root)
    for name, digest in reader.manifest.tables.items():
        path = reader.root / name
        if name == TABLE:
            continue  # nothing is read by one that does not match
        good = path.is_file() and sha256_of(path) == digest
        yield name, None if good else f"{path}: missing or not the one that {NAME} records; copy it again"
    first = 0
    for shard in reader.manifest.shards:
        numbers = range(first, first + len(shard.entries))
        try:
            problem = _members(reader.root, shard) or _media(reader, numbers)
        except UserError as error:
            problem = str(error)
        yield shard.name, problem
        first = numbers.stop


def _members(root: Path, shard: Shard) -> str | None:
    path = root / shard.name
    if (digest := sha256_of(path)) != shard.sha256:
        return f"{path}: SHA-256 is {digest[:16]}..., the manifest records {shard.sha256[:16]}...; copy it again"
    expected = {f"{e.key}.{x}": place for e in shard.entries for x, place in e.members.items()}
    with tarfile.open(path) as tar:
        found = {m.name: (m.offset_data, m.size) for m in tar if m.isreg()}
        count = len(tar.getmembers())
    if found != expected or count != len(expected):
        odd = sorted(found.keys() ^ expected.keys()) or sorted(k for k in expected if found[k] != expected[k])
        name = odd[0] if odd else "a member that is not a file"
        return f"{path}: members differ from the manifest, first {name!r}; write the dataset again"
    return None


def _media(reader: ShardReader, numbers: range) -> str | None:
    for number in numbers:
        for index in reader.samples_of(number):
            reader.sample(index)
        where = reader.where_media(number)
        if (reference := reader.reference(number)) is not None:
            path = reference.resolve(reader.media_root, where)
            if sha256_of(path) != reference.sha256:
                return f"{where}: refers to {path}, whose content was changed; bring it back or write the dataset again"
        if reader.is_indexed(number):
            media = reader.media(number)
            assert isinstance(media, IndexedVideo)
            if unpacked(media.index) != unpacked(frame_index(media.video)):
                return f"{where}.idx: not the frame index of its video; write the dataset again"
    _decode(reader, numbers[0])
    return None


def _decode(reader: ShardReader, number: int) -> None:
    if reader.manifest.kind == "features":
        reader.features(reader.samples_of(number)[0])
        return
    name, media = reader.where_media(number), reader.media(number)
    info = probe(media, name=name)
    for _ in stream_frames(media, [0.0, info.duration / 2], name=name):
        pass

"""Check a dataset against its manifest: hashes, tar members, annotations, and one decoded sample a shard."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from vxl_lightning.data.decoding import probe, stream_frames
from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.manifest import Shard
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError


def verify(root: str | Path) -> Iterator[tuple[str, str | None]]:
    """For every shard its name and what is wrong with it, or None.

    Raises:
        UserError: the manifest itself cannot be read or a shard is missing.
    """
    reader = ShardReader(root)
    first = 0
    for shard in reader.manifest.shards:
        try:
            problem = _members(reader.root, shard)
            if problem is None:
                for index in range(first, first + len(shard.samples)):
                    reader.sample(index)
                _decode(reader, first)
        except UserError as error:
            problem = str(error)
        yield shard.name, problem
        first += len(shard.samples)


def _members(root: Path, shard: Shard) -> str | None:
    path = root / shard.name
    if (digest := sha256_of(path)) != shard.sha256:
        return f"{path}: SHA-256 is {digest[:16]}..., the manifest records {shard.sha256[:16]}...; copy it again"
    expected = {f"{e.key}.{x}": place for e in shard.samples for x, place in e.members.items()}
    with tarfile.open(path) as tar:
        found = {m.name: (m.offset_data, m.size) for m in tar if m.isreg()}
        count = len(tar.getmembers())
    if found != expected or count != len(expected):
        odd = sorted(found.keys() ^ expected.keys()) or sorted(k for k in expected if found[k] != expected[k])
        name = odd[0] if odd else "a member that is not a file"
        return f"{path}: members differ from the manifest, first {name!r}; write the dataset again"
    return None


def _decode(reader: ShardReader, index: int) -> None:
    if reader.manifest.kind == "features":
        reader.features(index)
        return
    name = reader.where(index)
    data = reader.video(index)
    info = probe(data, name=name)
    for _ in stream_frames(data, [0.0, info.duration / 2], name=name):
        pass

"""Write and read shards: plain WebDataset tars, ``KEY.json`` with ``KEY.mp4`` or ``KEY.safetensors``.

The same samples give the same bytes. A shard appears under its name only when it is complete and flushed, and
`dataset.json` last of all. Reading goes by the recorded offsets, so any sample is one ``pread`` away; nothing is
unpickled.
"""

import bisect
import itertools
import json
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import safetensors.torch
import torch
import webdataset
from torch import Tensor

from vxl_lightning.data.files import inside, published, sha256_of
from vxl_lightning.data.manifest import MEDIA, NAME, Encoding, Entry, Kind, Manifest, Shard, safe_key
from vxl_lightning.data.schema import Sample, read_annotations
from vxl_lightning.errors import UserError


class ShardWriter:
    """Packs samples into shards; use as a context manager, which publishes the manifest at the end.

    Args:
        root: folder to write; created. A folder that already holds a dataset is refused, one left by an interrupted
            writer is written over.
        kind: ``video`` or ``features``.
        encoding: how features were made.
        max_bytes: a shard is closed once it is this big.
        max_samples: a shard is closed once it holds this many samples.

    Raises:
        UserError: ``root`` holds a dataset, or two samples share an id.
    """

    def __init__(
        self,
        root: str | Path,
        kind: Kind,
        encoding: Encoding | None = None,
        max_bytes: int = 256 << 20,
        max_samples: int = 4096,
    ) -> None:
        self.root = Path(root)
        if (self.root / NAME).exists():
            raise UserError(f"{self.root}: already holds a dataset; name another folder or remove it first")
        if (kind == "features") != (encoding is not None):
            raise UserError(f"kind={kind!r}: an encoding belongs to features and to features alone")
        self.root.mkdir(parents=True, exist_ok=True)
        for stale in itertools.chain(self.root.glob("shard-??????.tar"), self.root.glob(".*.shard-??????.tar")):
            stale.unlink()
        self.kind: Kind = kind
        self.encoding = encoding
        self._max_bytes = max_bytes
        self._max_samples = max_samples
        self._shards: list[Shard] = []
        self._keys: set[str] = set()
        self._stack: ExitStack | None = None

    def add_video(self, sample: Sample, video: bytes | Path) -> None:
        """One sample and the bytes of its mp4, unchanged."""
        assert self.kind == "video"
        self._add(sample, "mp4", video if isinstance(video, bytes) else video.read_bytes())

    def add_features(self, sample: Sample, features: Tensor, times: Tensor, importance: Tensor | None = None) -> None:
        """One sample, its features ``[T,H,W,D]`` (stored as bfloat16), times ``[T]`` and importance ``[T,H,W]``."""
        assert self.kind == "features"
        tensors = {
            "features": features.to(torch.bfloat16).cpu().contiguous(),
            "times": times.float().cpu().contiguous(),
        }
        if importance is not None:
            tensors["importance"] = importance.to(torch.bfloat16).cpu().contiguous()
        self._add(sample, "safetensors", safetensors.torch.save(tensors))

    def _add(self, sample: Sample, extension: str, media: bytes) -> None:
        key = safe_key(sample.id)
        if key in self._keys:
            raise UserError(f"{self.root}: two samples have the id {sample.id!r}; ids must be unique")
        self._keys.add(key)
        if self._stack is None:
            self._open()
        record = json.dumps(sample.to_record(), sort_keys=True, ensure_ascii=False).encode()
        self._tar.write({"__key__": key, "json": record, extension: media})
        self._pending.append(key)
        if self._file.tell() >= self._max_bytes or len(self._pending) >= self._max_samples:
            self._close()

    def _open(self) -> None:
        self._stack = ExitStack()
        self._name = f"shard-{len(self._shards):06d}.tar"
        self._temporary = self._stack.enter_context(published(self.root / self._name))
        self._file = self._stack.enter_context(self._temporary.open("wb"))
        self._tar = self._stack.enter_context(webdataset.TarWriter(self._file, encoder=False, mtime=0))
        self._pending: list[str] = []

    def _close(self) -> None:
        assert self._stack is not None
        self._tar.close()
        self._file.close()
        # Read back rather than computed: the offsets are then those a reader of the tar sees.
        with tarfile.open(self._temporary) as tar:
            where = {m.name: (m.offset_data, m.size) for m in tar}
        digest, size = sha256_of(self._temporary), self._temporary.stat().st_size
        self._stack.close()
        self._stack = None
        extensions = sorted({"json", MEDIA[self.kind]})
        entries = tuple(Entry(k, {e: where[f"{k}.{e}"] for e in extensions}) for k in self._pending)
        self._shards.append(Shard(self._name, digest, size, entries))

    def finish(self) -> Manifest:
        """Close the last shard and publish the manifest."""
        if self._stack is not None:
            self._close()
        if not self._shards:
            raise UserError(f"{self.root}: no sample was given; a dataset needs at least one")
        manifest = Manifest(self.kind, self.encoding, tuple(self._shards))
        manifest.save(self.root)
        return manifest

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif self._stack is not None:
            self._stack.__exit__(kind, error, trace)


def pack_videos(annotations: str | Path, videos: str | Path, out: str | Path) -> Manifest:
    """Annotations and the folder their video paths are relative to, into video shards; the mp4 bytes are copied.

    Raises:
        UserError: a wrong record, a video that is missing or outside ``videos``, or a folder that holds a dataset.
    """
    with ShardWriter(out, "video") as writer:
        for sample in read_annotations(annotations):
            path = inside(Path(videos), sample.video, f"{annotations} (id {sample.id!r})")
            if not path.is_file():
                raise UserError(
                    f"{annotations} (id {sample.id!r}): no video file {path}; check the folder given for videos"
                )
            writer.add_video(sample, path)
    return Manifest.load(Path(out))[0]


class ShardReader:
    """Random access to a dataset. Can be pickled, and used by forked processes at once.

    Raises:
        UserError: no dataset, a damaged manifest, or a shard that is missing or of another size.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.manifest, self.hash = Manifest.load(self.root)
        for shard in self.manifest.shards:
            path = self.root / shard.name
            if not path.is_file() or path.stat().st_size != shard.size:
                raise UserError(
                    f"{path}: missing or not of the {shard.size} bytes that {NAME} records; "
                    "copy it again, then 'vxl data verify'"
                )
        self._starts = [0, *itertools.accumulate(len(s.samples) for s in self.manifest.shards)]
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)

    def _locate(self, index: int) -> tuple[int, Entry]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        return number, self.manifest.shards[number].samples[index - self._starts[number]]

    def key(self, index: int) -> str:
        """The sample's key."""
        return self._locate(index)[1].key

    def where(self, index: int) -> str:
        """Shard and key, as errors name them."""
        number, entry = self._locate(index)
        return f"{self.root / self.manifest.shards[number].name}: {entry.key}"

    def _read(self, index: int, extension: Literal["json", "mp4", "safetensors"]) -> bytes:
        number, entry = self._locate(index)
        if number not in self._files:
            self._files[number] = os.open(self.root / self.manifest.shards[number].name, os.O_RDONLY)
        offset, length = entry.members[extension]
        data = bytearray()
        # One pread returns 2 GiB at most.
        while len(data) < length and (piece := os.pread(self._files[number], length - len(data), offset + len(data))):
            data += piece
        if len(data) != length:
            raise UserError(
                f"{self.where(index)}: the shard ends early; copy it again, then 'vxl data verify {self.root}'"
            )
        return bytes(data)

    def sample(self, index: int) -> Sample:
        """The annotation."""
        where = self.where(index)
        try:
            record = json.loads(self._read(index, "json"))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{where}.json: not JSON ({error}); write the dataset again") from None
        return Sample.from_record(record, where)

    def video(self, index: int) -> bytes:
        """The bytes of the mp4."""
        return self._read(index, "mp4")

    def features(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cached features ``[T,H,W,D]`` bfloat16, times ``[T]``, and importance ``[T,H,W]`` or None."""
        encoding = self.manifest.encoding
        assert encoding is not None
        try:
            tensors = safetensors.torch.load(self._read(index, "safetensors"))
            features, times = tensors["features"], tensors["times"]
        except (KeyError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{self.where(index)}.safetensors: damaged ({error}); run 'vxl data encode' again"
            ) from None
        expected = (len(times), *encoding.grid, encoding.dim)
        if tuple(features.shape) != expected:
            raise UserError(
                f"{self.where(index)}.safetensors: features are {tuple(features.shape)}, {NAME} says {expected}; "
                "run 'vxl data encode' again"
            )
        return features, times, tensors.get("importance")

    def require(self, fingerprint: str) -> None:
        """Refuse features of another encoder.

        Raises:
            UserError: the cache is stale.
        """
        encoding = self.manifest.encoding
        if encoding is not None and encoding.fingerprint != fingerprint:
            raise UserError(
                f"{self.root}: stale features: made by encoder {encoding.encoder.get('name')!r} with fingerprint "
                f"{encoding.fingerprint}, the one asked for has {fingerprint}; "
                "run 'vxl data encode' again into another folder"
            )

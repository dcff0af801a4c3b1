"""Read shards: WebDataset tars in which an entry holds one media and every sample that shows it.

Reading goes by the recorded offsets, so any sample is one ``pread`` away; nothing is unpickled.
"""

import bisect
import itertools
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vxl_lightning.data.entries import FEATURES, INDEX, JSON, REFERENCE
from vxl_lightning.data.manifest import NAME, Manifest
from vxl_lightning.data.media import IMAGE_SUFFIXES, IndexedVideo, Media, Stills
from vxl_lightning.data.references import Reference
from vxl_lightning.data.schema import Sample
from vxl_lightning.data.tars import PackedEntry, write_shard
from vxl_lightning.data.writer import ShardWriter
from vxl_lightning.errors import UserError

__all__ = ["PackedEntry", "ShardReader", "ShardWriter", "write_shard"]


class ShardReader:
    """Random access to a dataset, by sample or by media. Can be pickled, and used by forked processes at once.

    Samples are counted through the entries in order: those of one media follow one another.

    Args:
        root: folder of the shards.
        media_root: folder that media kept by reference are relative to; needed where there are such.

    Raises:
        UserError: no dataset, a damaged manifest, or a shard that is missing or of another size.
    """

    def __init__(self, root: str | Path, media_root: str | Path | None = None) -> None:
        self.root = Path(root)
        self.media_root = None if media_root is None else Path(media_root)
        self.manifest, self.hash = Manifest.load(self.root)
        for shard in self.manifest.shards:
            path = self.root / shard.name
            if not path.is_file() or path.stat().st_size != shard.size:
                raise UserError(
                    f"{path}: missing or not of the {shard.size} bytes that {NAME} records; "
                    "copy it again, then 'vxl data verify'"
                )
        self._entries = [(s, e) for s in self.manifest.shards for e in s.entries]
        self._starts = [0, *itertools.accumulate(e.samples for _, e in self._entries)]
        self._files: dict[str, int] = {}
        self._records: tuple[int, list[Any]] | None = None
        """The records of the entry last read: with thousands in one entry, parsing them for each would be quadratic."""

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_records": None}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)

    @property
    def num_media(self) -> int:
        """Entries: media, each counted once however many samples show it."""
        return len(self._entries)

    def samples_of(self, number: int) -> range:
        """The samples that show media ``number``."""
        return range(self._starts[number], self._starts[number + 1])

    def media_of(self, index: int) -> int:
        """The number of the media that sample ``index`` shows."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return bisect.bisect_right(self._starts, index) - 1

    def key(self, index: int) -> str:
        """The key of the sample's entry; samples of one media share it."""
        return self._entries[self.media_of(index)][1].key

    def where(self, index: int) -> str:
        """Shard and key, as errors name them."""
        return self.where_media(self.media_of(index))

    def where_media(self, number: int) -> str:
        """Shard and key of media ``number``."""
        shard, entry = self._entries[number]
        return f"{self.root / shard.name}: {entry.key}"

    def sample(self, index: int) -> Sample:
        """The annotation."""
        number = self.media_of(index)
        where = self.where_media(number)
        if self._records is None or self._records[0] != number:
            self._records = (number, self._parse(number, where))
        # Read once: another thread may have put another entry there.
        held, records = self._records
        if held != number:
            records = self._parse(number, where)
        return Sample.from_record(records[index - self._starts[number]], where)

    def _parse(self, number: int, where: str) -> list[Any]:
        try:
            records = json.loads(self._read(number, JSON))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{where}.json: not JSON ({error}); write the dataset again") from None
        count = self._entries[number][1].samples
        if not isinstance(records, list) or len(records) != count:
            raise UserError(f"{where}.json: not a list of the {count} records it should hold; write the dataset again")
        return records

    def video(self, index: int) -> Media:
        """What the sample shows, as `decoding.stream_frames` takes it; the bytes of a video file as they were."""
        return self.media(self.media_of(index))

    def media(self, number: int) -> Media:
        """Media ``number``, as `decoding.stream_frames` takes it.

        Raises:
            UserError: the dataset holds features, the shard ends early, or a referred file is missing or was changed.
        """
        entry = self._entries[number][1]
        if self.manifest.kind != "video":
            raise UserError(f"{self.root}: holds {self.manifest.kind}, not videos; name the folder of the video shards")
        if frames := entry.frames:
            return Stills(tuple(self._read(number, f) for f in frames))
        if (reference := self.reference(number)) is not None:
            video: bytes | Path = reference.resolve(self.media_root, self.where_media(number))
        else:
            [suffix] = entry.members.keys() - {JSON, INDEX}
            video = self._read(number, suffix)
            if suffix in IMAGE_SUFFIXES:
                return Stills((video,))
        return IndexedVideo(video, self._read(number, INDEX)) if self.is_indexed(number) else video

    def reference(self, number: int) -> Reference | None:
        """Which file media ``number`` refers to, or None where the shard holds it."""
        if REFERENCE not in self._entries[number][1].members:
            return None
        return Reference.from_bytes(self._read(number, REFERENCE), self.where_media(number))

    def require_media_root(self) -> None:
        """Refuse media kept by reference where nobody said what they are relative to.

        Raises:
            UserError: there are such and no ``media_root``.
        """
        if self.media_root is None and any(REFERENCE in e.members for _, e in self._entries):
            raise UserError(
                f"{self.root}: refers to media outside the shards; give the folder they are in as media_root"
            )

    def is_indexed(self, number: int) -> bool:
        """Whether media ``number`` is a video with a frame index."""
        return INDEX in self._entries[number][1].members

    def find(self, key: str) -> int:
        """The number of the media with a key.

        Raises:
            KeyError: there is none.
        """
        for number, (_, entry) in enumerate(self._entries):
            if entry.key == key:
                return number
        raise KeyError(key)

    def _read(self, number: int, member: str) -> bytes:
        shard, entry = self._entries[number]
        if shard.name not in self._files:
            self._files[shard.name] = os.open(self.root / shard.name, os.O_RDONLY)
        offset, length = entry.members[member]
        data = bytearray()
        # One pread returns 2 GiB at most.
        while len(data) < length and (
            piece := os.pread(self._files[shard.name], length - len(data), offset + len(data))
        ):
            data += piece
        if len(data) != length:
            raise UserError(
                f"{self.where_media(number)}: the shard ends early; copy it again, then 'vxl data verify {self.root}'"
            )
        return bytes(data)

    def features(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cached features ``[T,H,W,D]`` bfloat16, times ``[T]``, and importance ``[T,H,W]`` or None."""
        encoding = self.manifest.encoding
        assert encoding is not None
        try:
            tensors = safetensors.torch.load(self._read(self.media_of(index), FEATURES))
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

    def require(self, fingerprint: str | None = None, fps: float | None = None, max_frames: int | None = None) -> None:
        """Refuse features of another encoder (its frame size is part of it) or of another sampling; None is any.

        Raises:
            UserError: the cache is stale; the message names what differs.
        """
        encoding = self.manifest.encoding
        if encoding is None:
            return
        if fingerprint is not None and encoding.fingerprint != fingerprint:
            raise UserError(
                f"{self.root}: stale features: made by encoder {encoding.encoder.get('name')!r} with fingerprint "
                f"{encoding.fingerprint}, the one asked for has {fingerprint}; "
                "run 'vxl data encode' again into another folder"
            )
        for name, asked in (("fps", fps), ("max_frames", max_frames)):
            if asked is not None and getattr(encoding, name) != asked:
                raise UserError(
                    f"{self.root}: stale features: made with {name}={getattr(encoding, name):g}, asked for is "
                    f"{name}={asked:g}; leave {name} out, or run 'vxl data encode' again into another folder"
                )

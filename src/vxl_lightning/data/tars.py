"""Write one shard: a plain tar that appears under its name complete or not at all.

Headers carry nothing but name and size (mtime 0, no owner), so the same members give the same bytes; a member past
8 GiB or with a long name gets a PAX header, as any tar reader expects. A second thread takes the hash and a third
flushes what is written while more is copied, so nothing is read twice and little is left to wait for at the end.
"""

import hashlib
import json
import os
import tarfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vxl_lightning.data.entries import JSON, Entry, Shard
from vxl_lightning.data.files import published
from vxl_lightning.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, frame_files, kind_of, suffix_of
from vxl_lightning.data.schema import Sample
from vxl_lightning.errors import UserError

# Bytes of a piece, and how many pieces the hash may be behind the copy: few enough to stay in the processor's cache.
_PIECE, _PIECES = 512 << 10, 8
# Bytes that are written before they are flushed.
_FLUSH = 16 << 20
_FLUSHED = getattr(os, "fdatasync", os.fsync)  # not everywhere


@dataclass(frozen=True)
class PackedEntry:
    """One media and what is asked about it, ready to be written.

    Attributes:
        key: unique in the dataset (`safe_key`).
        samples: at least one.
        members: by extension (see `data.entries`), content or the file that holds it; the json member is added.
    """

    key: str
    samples: Sequence[Sample]
    members: Mapping[str, bytes | Path]


def write_shard(path: Path, entries: Iterable[PackedEntry]) -> Shard:
    """Write a tar of entries and publish it under ``path``, flushed to the disk.

    Files are copied in pieces and never held whole. Several processes may write different shards of a folder.

    Raises:
        UserError: two entries share a key, or a member's file cannot be read.
    """
    with ShardFile(path) as file:
        for entry in entries:
            file.add(entry)
        return file.close()


class ShardFile:
    """A tar under way; a context manager that leaves nothing behind unless `close` was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.size = 0
        self._digest = hashlib.sha256()
        self._stack = ExitStack()
        temporary = self._stack.enter_context(published(path))
        self._file = self._stack.enter_context(temporary.open("wb"))
        self._hasher = self._stack.enter_context(ThreadPoolExecutor(1))
        self._flusher = self._stack.enter_context(ThreadPoolExecutor(1))
        self._flushing: Future[None] | None = None
        self._flushed = 0
        self._hashing: deque[tuple[Future[None], bytearray]] = deque()
        self._piece, self._filled = bytearray(_PIECE), 0
        self._keys: set[str] = set()

    def __enter__(self) -> "ShardFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind or RuntimeError, error or RuntimeError(f"{self.path} was not closed"), trace)

    def add(self, entry: PackedEntry) -> None:
        """Append an entry, its members sorted by extension.

        Raises:
            UserError: its key is there already, or a member's file cannot be read.
        """
        if entry.key in self._keys:
            raise UserError(f"{self.path}: two entries have the key {entry.key!r}; keys must be unique")
        self._keys.add(entry.key)
        records = [s.to_record() for s in entry.samples]
        listed = json.dumps(records, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        members = {**entry.members, JSON: listed}
        places = {m: self._member(f"{entry.key}.{m}", content) for m, content in sorted(members.items())}
        self.entries.append(Entry(entry.key, len(records), places))

    def close(self) -> Shard:
        """Publish the shard."""
        # Two empty blocks end a tar, and tar writers fill up to a record of 20.
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))
        self._push()
        self._hasher.shutdown()
        if self._flushing is not None:
            self._flushing.result()
        size, digest = self.size, self._digest.hexdigest()
        self._stack.close()
        return Shard(self.path.name, digest, size, tuple(self.entries))

    def _member(self, name: str, content: bytes | Path) -> tuple[int, int]:
        """Write one member and give its place."""
        info = tarfile.TarInfo(name)
        info.size = len(content) if isinstance(content, bytes) else _size(content)
        info.mode = 0o444
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        if isinstance(content, bytes):
            self._write(content)
        else:
            self._copy(content, info.size)
        self._write(bytes(-info.size % tarfile.BLOCKSIZE))
        return offset, info.size

    def _copy(self, source: Path, size: int) -> None:
        end = self.size + size
        try:
            handle = source.open("rb", buffering=0)
        except OSError as error:
            raise _unreadable(source, error) from None
        with handle:
            while self.size < end:
                room = memoryview(self._piece)[self._filled : self._filled + end - self.size]
                try:
                    count = handle.readinto(room)
                except OSError as error:
                    raise _unreadable(source, error) from None
                if not count:
                    raise UserError(f"{source}: became shorter while it was copied; run again once it is complete")
                self._took(count)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = min(len(rest), _PIECE - self._filled)
            self._piece[self._filled : self._filled + count] = rest[:count]
            self._took(count)
            rest = rest[count:]

    def _took(self, count: int) -> None:
        """``count`` bytes more are in the piece; a full one moves on."""
        self._filled += count
        self.size += count
        if self._filled == _PIECE:
            self._push()

    def _push(self) -> None:
        """Hash and write the piece, and go on with one that is hashed already."""
        full = memoryview(self._piece)[: self._filled]
        self._hashing.append((self._hasher.submit(self._digest.update, full), self._piece))
        self._file.write(full)
        if self.size - self._flushed >= _FLUSH and (self._flushing is None or self._flushing.done()):
            if self._flushing is not None:
                self._flushing.result()  # a disk that failed says so here
            self._file.flush()
            self._flushed = self.size
            self._flushing = self._flusher.submit(_FLUSHED, self._file.fileno())
        self._piece, self._filled = bytearray(_PIECE) if len(self._hashing) < _PIECES else self._hashed(), 0

    def _hashed(self) -> bytearray:
        future, piece = self._hashing.popleft()
        future.result()
        return piece


def members_of(path: Path) -> dict[str, bytes | Path]:
    """The members that hold a video, an image or a folder of frames, by extension.

    Raises:
        UserError: neither a video nor an image by its suffix, or a folder without images or with over a million.
    """
    kind = kind_of(path)
    if kind is None:
        allowed = ", ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise UserError(f"{path}: not a media file by its suffix; allowed are {allowed}, and folders of images")
    if kind != "frames":
        return {suffix_of(path): path}
    files = frame_files(path)
    if not 0 < len(files) <= 1_000_000:
        raise UserError(f"{path}: a folder of frames must hold 1 to 1,000,000 images, this one holds {len(files)}")
    return {f"{i:06d}.{suffix_of(f)}": f for i, f in enumerate(files)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions")

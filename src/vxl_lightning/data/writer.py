"""Write shards one entry after the other; the same entries give the same bytes.

A shard appears under its name only when it is complete and flushed, and `dataset.json` last of all.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import safetensors.torch
import torch
from torch import Tensor

from vxl_lightning.data.entries import FEATURES
from vxl_lightning.data.manifest import NAME, Encoding, Kind, Manifest, Shard, safe_key
from vxl_lightning.data.schema import Sample
from vxl_lightning.data.tars import PackedEntry, ShardFile, members_of
from vxl_lightning.errors import UserError


class ShardWriter:
    """Packs entries into shards; use as a context manager, which publishes the manifest at the end.

    Args:
        root: folder to write; created. A folder that already holds a dataset is refused, one left by an interrupted
            writer is written over.
        kind: ``video`` (media of any kind) or ``features``.
        encoding: how features were made.
        max_bytes: a shard is closed once it is this big.
        max_samples: a shard is closed once it holds this many samples.

    Raises:
        UserError: ``root`` holds a dataset, or two entries share a key.
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
        self._file: ShardFile | None = None
        self._samples = 0

    def add(self, entry: PackedEntry) -> None:
        """One media and every sample that shows it."""
        if entry.key in self._keys:
            raise UserError(
                f"{self.root}: two entries have the key {entry.key!r}; give unique ids, or pack the "
                "records of one media as one entry"
            )
        self._keys.add(entry.key)
        if self._file is None:
            self._file = ShardFile(self.root / f"shard-{len(self._shards):06d}.tar")
            self._samples = 0
        self._file.add(entry)
        self._samples += len(entry.samples)
        if self._file.size >= self._max_bytes or self._samples >= self._max_samples:
            self._close()

    def add_video(self, samples: Sample | Sequence[Sample], video: bytes | Path, key: str | None = None) -> None:
        """One media, unchanged, and the samples that show it.

        Args:
            samples: one or more.
            video: a video file, an image or a folder of frames; or the content of an mp4.
            key: of the entry; by default that of the first sample's id.
        """
        assert self.kind == "video"
        several = [samples] if isinstance(samples, Sample) else samples
        members = {"mp4": video} if isinstance(video, bytes) else members_of(video)
        self.add(PackedEntry(key or safe_key(several[0].id), several, members))

    def add_features(
        self,
        samples: Sample | Sequence[Sample],
        features: Tensor,
        times: Tensor,
        importance: Tensor | None = None,
        key: str | None = None,
    ) -> None:
        """Samples of one media, its features ``[T,H,W,D]`` (stored as bfloat16), times ``[T]``, importance ``[T,H,W]``.

        ``key`` is the entry's, by default that of the first sample's id.
        """
        assert self.kind == "features"
        several = [samples] if isinstance(samples, Sample) else samples
        tensors = {
            "features": features.to(torch.bfloat16).cpu().contiguous(),
            "times": times.float().cpu().contiguous(),
        }
        if importance is not None:
            tensors["importance"] = importance.to(torch.bfloat16).cpu().contiguous()
        self.add(PackedEntry(key or safe_key(several[0].id), several, {FEATURES: safetensors.torch.save(tensors)}))

    def _close(self) -> None:
        assert self._file is not None
        self._shards.append(self._file.close())
        self._file = None

    def finish(self) -> Manifest:
        """Close the last shard and publish the manifest."""
        if self._file is not None:
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
        elif self._file is not None:
            self._file.__exit__(kind, error, trace)

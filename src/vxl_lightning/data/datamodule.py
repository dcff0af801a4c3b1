"""Shards to batches under Lightning, resumed mid-epoch exactly.

Lightning 2.6's own resuming loses a batch, or starts over, or gives every rank the state of rank 0, depending on the
loader. Here the state is one number that is the same on every rank: the samples consumed, counted when a batch reaches
the training step and never read from a loader that runs ahead.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from vxl_lightning import registry
from vxl_lightning.data.batch import ClipBatch, FrameBatch, Position
from vxl_lightning.data.decoding import Limits
from vxl_lightning.data.failures import Failures
from vxl_lightning.data.loader import ClipDataset, ClipLoader, derived_seed, num_steps
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.tokens import VideoGrid

FPS, MAX_FRAMES = 2.0, 64
"""How videos are sampled where nobody says."""


class VideoDataModule(pl.LightningDataModule):
    """Training and validation batches from shards of videos or of cached features.

    An epoch is as many whole steps as fit into the dataset; the samples left over open the next epoch, so every sample
    is seen equally often (`data.loader`). Every training batch also seeds torch's global generator from the seed, the
    position and the rank: dropout after a resume is then what it would have been, and does not depend on what ran
    before. A checkpoint between two accumulated batches holds no gradients: save on optimizer steps.

    Args:
        train: folder of the training shards.
        val: folder of the validation shards.
        batch_size: clips a rank and step.
        num_workers: loading processes a rank; the batches do not depend on it.
        seed: of the order and of the training steps' randomness.
        encoder: for video shards, what encodes them on the training device; for features, the one they must come from.
        fps: frames sampled a second, of video shards (default 2); features must have been made with it, if it is given.
        max_frames: most frames sampled of one video (default 64); likewise.
        allow_reshard: accept a checkpoint written at another world size or batch size. The samples go on exactly where
            they stopped; the steps of an epoch change.
        decode_timeout: seconds that decoding one video may take.
        max_failed: share of a dataset's samples that may turn out unreadable; 0 stops at the first. Such a sample is
            left out of its batch and nothing takes its place: the stream goes on as if it had been there, so resuming
            stays exact. It is logged once, by key. When the distinct samples that failed since this process began,
            over all ranks, exceed ``max_failed`` times the size of the dataset, every rank stops in the same step.
        media_root: folder that media kept by reference are relative to; needed where shards refer to such.

    Raises:
        UserError: no dataset, stale features, video shards without an encoder, or a checkpoint of another dataset, seed
            or world size; while iterating, samples that cannot be read.
    """

    def __init__(
        self,
        train: str | Path | None = None,
        val: str | Path | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        encoder: str | dict[str, Any] | Encoder | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        allow_reshard: bool = False,
        decode_timeout: float = 600.0,
        max_failed: float = 0.0,
        media_root: str | Path | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise UserError(
                f"batch_size={batch_size}, num_workers={num_workers}: at least one clip a step, at least 0 workers"
            )
        if not 0 <= max_failed <= 1:
            raise UserError(f"max_failed={max_failed} is a share of the samples and must be between 0 and 1")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.encoder = encoder
        self.fps = fps
        self.max_frames = max_frames
        self.allow_reshard = allow_reshard
        self.limits = Limits(timeout=decode_timeout)
        self.max_failed = max_failed
        roots = {"train": train, "val": val}
        self._readers = {n: ShardReader(p, media_root) for n, p in roots.items() if p is not None}
        self._failures = {n: Failures(r, max_failed) for n, r in self._readers.items()}
        self._model: Encoder | None = None
        self._current = Position(0, 0)
        """The batch last handed to a training step."""

    def setup(self, stage: str | None = None) -> None:
        """Build the encoder and check the features against it; a new run starts at the first sample."""
        if stage == "fit" and self.trainer and self.trainer.global_step == 0:
            self._current = Position(0, 0)
        if self._model is None and self.encoder is not None:
            built = self.encoder if isinstance(self.encoder, Encoder) else registry.build("encoder", self.encoder)
            self._model = built.eval().requires_grad_(False)
        for reader in self._readers.values():
            reader.require_media_root()
            reader.require(fps=self.fps, max_frames=self.max_frames)
            if reader.manifest.kind == "video" and self._model is None:
                raise UserError(
                    f"{reader.root}: holds videos; name an encoder, or cache features with 'vxl data encode'"
                )
            if self._model is not None:
                reader.require(self._model.fingerprint())
        made = {r.manifest.encoding.fingerprint for r in self._readers.values() if r.manifest.encoding is not None}
        if len(made) > 1:
            folders = " and ".join(str(r.root) for r in self._readers.values())
            raise UserError(f"{folders} come from different encoders; run 'vxl data encode' on both with one encoder")

    def reader(self, name: str) -> ShardReader:
        """The shards of ``train`` or ``val``."""
        if name not in self._readers:
            raise UserError(f"{name}: no dataset was given; pass the folder of its shards as '{name}'")
        return self._readers[name]

    def steps_per_epoch(self, world_size: int = 1) -> int:
        """Training steps of an epoch, from the manifest alone."""
        return num_steps(self._clips("train"), self.batch_size, world_size, training=True)

    def train_dataloader(self) -> ClipLoader:
        return self._loader("train", self.seed)

    def val_dataloader(self) -> ClipLoader | list[Any]:
        return self._loader("val", None) if "val" in self._readers else []

    def _clips(self, name: str) -> ClipDataset:
        size = None if self._model is None else self._model.frame_size
        return ClipDataset(self.reader(name), self.fps or FPS, self.max_frames or MAX_FRAMES, size, self.limits)

    def _loader(self, name: str, seed: int | None) -> ClipLoader:
        rank, world_size = self._place()
        consumed = self._consumed if seed is not None else int
        leave_out = self.max_failed > 0
        clips = self._clips(name)
        return ClipLoader(clips, self.batch_size, seed, consumed, rank, world_size, self.num_workers, leave_out)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batch as it reaches the training step, and what failed of it, and seed that step."""
        if self.max_failed and isinstance(batch, ClipBatch | FrameBatch) and batch.position:
            self._count_failed(batch.position)
        if self.trainer and self.trainer.training and isinstance(batch, ClipBatch | FrameBatch) and batch.position:
            self._current = batch.position
            torch.manual_seed(derived_seed("step", self.seed, batch.position.start, self._place()[0]))
        return batch

    def _count_failed(self, position: Position) -> None:
        """Every rank learns what failed on any, so that all of them stop in the same step or none does."""
        indices = [f.index for f in position.failed]
        if self.trainer and self.trainer.world_size > 1:
            padded = torch.tensor(indices + [-1] * (self.batch_size - len(indices)))
            gathered = self.trainer.strategy.all_gather(padded.to(self.trainer.strategy.root_device))
            indices = [i for i in gathered.flatten().tolist() if i >= 0]
        training = self.trainer is None or self.trainer.training
        self._failures["train" if training else "val"].add(indices, {f.index: f.reason for f in position.failed})

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Encode decoded frames, where they are now."""
        return self.encode(batch) if isinstance(batch, FrameBatch) else batch

    def encode(self, batch: FrameBatch) -> ClipBatch:
        """Frames to a grid, padding frames left out and zero."""
        assert self._model is not None
        encoded = self._model.to(batch.frames.device)(batch.frames[batch.frame_mask])
        features = encoded.features.float()
        shape = batch.frame_mask.shape
        grid = features.new_zeros(*shape, *features.shape[1:])
        grid[batch.frame_mask] = features
        importance = None
        if encoded.importance is not None:
            importance = features.new_zeros(*shape, *encoded.importance.shape[1:])
            importance[batch.frame_mask] = encoded.importance.float()
        video = VideoGrid(grid, batch.times, batch.frame_mask, importance)
        return ClipBatch(video, batch.samples, batch.keys, batch.position)

    def _consumed(self) -> int:
        """Samples that training steps are done with, over all ranks."""
        if self.trainer and self.trainer.training:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            # The step died or still runs: its batch comes again.
            if progress.ready > progress.processed:
                return self._current.start
        return self._current.stop

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: plain numbers, the same on every rank."""
        if "train" not in self._readers:
            return {}
        return {
            "dataset": self.reader("train").hash,
            "seed": self.seed,
            "samples": self._consumed(),
            "batch_size": self.batch_size,
            "world_size": self._place()[1],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            UserError: another dataset or seed; another world size or batch size without ``allow_reshard``.
        """
        if not state_dict:
            return
        reader = self.reader("train")
        if state_dict["dataset"] != reader.hash:
            raise UserError(
                f"{reader.root}: not the dataset of the checkpoint (dataset.json hashes to {reader.hash[:12]}, the "
                f"checkpoint has {state_dict['dataset'][:12]}); resume on the same shards or start a new run"
            )
        if state_dict["seed"] != self.seed:
            raise UserError(
                f"seed={self.seed}: the checkpoint was trained with seed={state_dict['seed']}, which decides the order "
                "of the samples; resume with that seed or start a new run"
            )
        here = {"batch_size": self.batch_size, "world_size": self._place()[1]}
        for name, value in here.items():
            if state_dict[name] != value and not self.allow_reshard:
                raise UserError(
                    f"{name}={value}: the checkpoint was trained with {name}={state_dict[name]}; resume with the same, "
                    "or set allow_reshard=true to go on from the same sample with other steps"
                )
        self._current = Position(state_dict["samples"], state_dict["samples"])

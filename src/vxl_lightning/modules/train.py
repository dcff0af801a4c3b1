"""One training run from a configuration: data, module, Trainer, checkpoints, and what it leaves behind."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from vxl_lightning import registry
from vxl_lightning.config import component, to_plain
from vxl_lightning.data.datamodule import FPS, VideoDataModule
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import VideoLMConfig
from vxl_lightning.models.pretrained import save_pretrained
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.pretraining import PretrainingConfig, ReconstructivePretraining
from vxl_lightning.modules.tuning import InstructionTuning, TuningConfig, auto_precision
from vxl_lightning.reporting.manifest import manifest, write_manifest

MODULES = ("pretraining", "tuning")
LAST = "last.ckpt"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What `VideoDataModule` reads."""

    train: str = ""
    """Folder of the training shards."""
    val: str = ""
    """Folder of the validation shards; empty for none."""
    batch_size: int = 8
    """Clips a rank and step."""
    num_workers: int = 0
    """Loading processes a rank; the batches do not depend on it."""
    encoder: dict[str, Any] = component("encoder", None)
    """Encodes video shards; for feature shards, the encoder they must come from (empty: any)."""
    fps: float | None = None
    """Frames sampled a second, of video shards (2 where it is null); features must have been made with it, if given."""
    max_frames: int | None = None
    """Most frames sampled of one video (64 where it is null); likewise."""
    allow_reshard: bool = False
    """Resume at another world size or batch size: exact in samples, not in steps."""
    max_failed: float = 0.0
    """Share of the samples that may be unreadable: each is left out and logged once. 0 stops at the first."""
    media_root: str = ""
    """Folder that media kept by reference are relative to; needed where shards refer to such."""


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What Lightning's Trainer is told; how many steps is the module's ``optim.steps``."""

    accelerator: str = "auto"
    """``cpu``, ``gpu``, or what there is."""
    devices: int = 1
    """Devices, or processes on CPU."""
    strategy: str = "auto"
    """``auto``, ``ddp``, or ``fsdp2`` (the language model's layers sharded over all devices)."""
    precision: str = "auto"
    """``auto`` is bf16-mixed where the device multiplies bf16 natively, else 32-true."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which ``--resume`` goes on; 0 keeps none."""
    validate_every: int = 0
    """Steps between validations; 0 validates at the end alone."""
    log_every: int = 10
    """Steps between rows of the metrics."""
    accumulate: int = 1
    """Batches an optimiser step."""

    def __post_init__(self) -> None:
        for name, least in {
            "devices": 1,
            "checkpoint_every": 0,
            "validate_every": 0,
            "log_every": 1,
            "accumulate": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"trainer.{name}={getattr(self, name)} must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run of ``vxl train``."""

    module: str = "pretraining"
    """``pretraining`` trains a compressor by reconstruction; ``tuning`` tunes a video language model."""
    out: str = "runs/train"
    """Folder the run leaves: manifest.json, metrics/version_N/metrics.csv, checkpoints/, model/."""
    seed: int = 0
    """Seed of the weights, the order of the samples and the masks."""
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    pretraining: PretrainingConfig = field(default_factory=lambda: PretrainingConfig(dim=0))
    """Read with module=pretraining. ``dim=0`` takes the channels of the data."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Read with module=tuning."""
    model: VideoLMConfig = field(default_factory=lambda: VideoLMConfig(dim=0))
    """Read with module=tuning. ``dim=0`` takes the channels of the data."""
    compressor_from: str = ""
    """Read with module=tuning: folder of a pretrained compressor to start from."""
    model_from: str = ""
    """Read with module=tuning: folder of a tuned model to go on from, whose parts ``model`` names again; a selector or
    cache that it does not have starts fresh."""

    def __post_init__(self) -> None:
        if self.module not in MODULES:
            raise ValueError(f"module={self.module!r} is not one of {', '.join(MODULES)}")

    @property
    def optim(self) -> OptimConfig:
        return self.pretraining.optim if self.module == "pretraining" else self.tuning.optim


def train(config: TrainConfig, resume: bool = False) -> Path:
    """Run or resume a training.

    Returns:
        The folder of the trained model, for `load_pretrained`.

    Raises:
        UserError: no data, a folder that holds another run, nothing to resume, or a run of another configuration.
    """
    out = Path(config.out)
    last = out / "checkpoints" / LAST
    if resume and not last.is_file():
        raise UserError(f"--resume: {last} does not exist; leave --resume out to start, or correct out=")
    left = last.is_file() or (out / "model").exists()  # a run that ended before either may start anew
    if not resume and left:
        raise UserError(f"out={out} already holds a run; add --resume to go on with it, or name another out=")
    L.seed_everything(config.seed, workers=True)
    data = _data(config)
    data.setup()
    encoding = data.reader("train").manifest.encoding
    encoder = (encoding.encoder if encoding else None) or config.data.encoder or None
    dim = encoding.dim if encoding else registry.build("encoder", config.data.encoder).dim
    module, resolved = _module(config, dim)
    trainer = _trainer(config, out)
    if resume:
        _check_same(resolved, out / "manifest.json", last)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_manifest(out / "manifest.json", _describe(resolved, data))
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if resume else None, weights_only=True)
    if config.data.val and not config.trainer.validate_every:
        trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        _save(module, resolved, out / "model", encoder, encoding.fps if encoding else config.data.fps or FPS)
    return out / "model"


def _check_same(config: TrainConfig, path: Path, checkpoint: Path) -> None:
    """What is resumed must be the run that was begun; where and how fast it runs may change."""
    try:
        began = json.loads(path.read_text())["config"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--resume: {path} cannot be read ({error}); start anew with another out=") from None
    plain = to_plain(config)
    for key in (
        "module",
        "seed",
        config.module,
        *(("model", "compressor_from", "model_from") if config.module == "tuning" else ()),
    ):
        for name, value in _leaves(key, plain[key]):
            if (before := dict(_leaves(key, began.get(key))).get(name)) != value:
                raise UserError(
                    f"--resume: {name}={value}, but the run in {path.parent} began with {before}; "
                    "leave it as it was, or start another run with another out="
                )
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # empty, cut short or another kind of file: torch raises whatever it stumbles over
        raise UserError(f"--resume: {checkpoint} is damaged ({type(error).__name__}); start anew with out=") from None


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def check(config: TrainConfig) -> str:
    """What `train` would do, in one line, once data and plugins are found to be there."""
    data = _data(config)
    data.setup()
    clips, steps = data.reader("train").manifest.num_samples, config.optim.steps
    per_step = config.data.batch_size * config.trainer.devices * config.trainer.accumulate
    return (
        f"{config.module}: {steps} steps of {per_step} clips, {steps * per_step / clips:.1f} passes over {clips} clips"
    )


def _data(config: TrainConfig) -> VideoDataModule:
    data = config.data
    if not data.train:
        raise UserError("data.train is empty; name the folder of the training shards, as 'vxl data synth' writes them")
    return VideoDataModule(
        train=data.train,
        val=data.val or None,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        seed=config.seed,
        encoder=data.encoder or None,
        fps=data.fps,
        max_frames=data.max_frames,
        allow_reshard=data.allow_reshard,
        max_failed=data.max_failed,
        media_root=data.media_root or None,
    )


def _module(config: TrainConfig, dim: int) -> tuple[L.LightningModule, TrainConfig]:
    """The module, and the configuration with the data's channels filled in."""
    if config.module == "pretraining":
        pretraining = replace(config.pretraining, dim=config.pretraining.dim or dim, seed=config.seed)
        return ReconstructivePretraining(pretraining), replace(config, pretraining=pretraining)
    model = replace(config.model, dim=config.model.dim or dim)
    module = InstructionTuning(config.tuning, model, config.compressor_from or None, config.model_from or None)
    return module, replace(config, model=model)


def _trainer(config: TrainConfig, out: Path) -> L.Trainer:
    settings = config.trainer
    callbacks: list[Any] = []
    if settings.checkpoint_every:
        every = settings.checkpoint_every
        callbacks.append(
            ModelCheckpoint(
                out / "checkpoints", filename="last", every_n_train_steps=every, enable_version_counter=False
            )
        )
    strategy: Any = settings.strategy
    if strategy == "fsdp2":
        from lightning.pytorch.strategies import ModelParallelStrategy

        # Lightning's defaults would shard within a node by tensor; these layers are sharded by data.
        strategy = ModelParallelStrategy(data_parallel_size=settings.devices, tensor_parallel_size=1)
    precision: Any = auto_precision() if settings.precision == "auto" else settings.precision
    return L.Trainer(
        max_steps=config.optim.steps,
        max_epochs=-1,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=strategy,
        precision=precision,
        accumulate_grad_batches=settings.accumulate,
        val_check_interval=settings.validate_every or None,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if config.data.val else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        logger=CSVLogger(out, name="metrics"),  # a new version a resume: Lightning deletes the file it would go on
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        deterministic=True,
        gradient_clip_val=1.0,
    )


def _describe(config: TrainConfig, data: VideoDataModule) -> dict[str, Any]:
    spec = config.pretraining if config.module == "pretraining" else config.model
    plugins = [
        registry.provenance(kind, getattr(spec, kind)["name"])
        for kind in ("compressor", "masker", "selector", "cache")
        if getattr(spec, kind, None)
    ]
    roles = ["train"] + (["val"] if config.data.val else [])
    return manifest(config, [config.seed], plugins, {role: data.reader(role).hash for role in roles})


def _save(
    module: L.LightningModule, config: TrainConfig, folder: Path, encoder: dict[str, Any] | None, fps: float
) -> None:
    if isinstance(module, ReconstructivePretraining):
        save_pretrained(
            folder, module.model.compressor, to_plain(config.pretraining.compressor), encoder=encoder, fps=fps
        )
    elif isinstance(module, InstructionTuning):
        save_pretrained(folder, module.model, config.model, encoder=encoder, fps=fps)

"""Reconstructive pretraining of a compressor (ReCoT) as a thin LightningModule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, get_args

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vxl_lightning import registry
from vxl_lightning.config import component, to_plain
from vxl_lightning.data.batch import stands_in
from vxl_lightning.errors import UserError
from vxl_lightning.maskers.base import Masker
from vxl_lightning.models.copies import copies
from vxl_lightning.models.recot import (
    DecoderConfig,
    Fill,
    Reconstruction,
    ReCoT,
    Target,
    reconstruction_loss,
    sampling_loss,
)
from vxl_lightning.modules.optim import OptimConfig, build_optimizer
from vxl_lightning.tokens import VideoGrid

Objective = Literal["masked", "autoencode"]
COPIES = ("mean", "window_mean", "previous")


class GridBatch(Protocol):
    """What a step needs of a batch; the datamodule's batches have more."""

    grid: VideoGrid


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Everything that decides a pretraining run but the data."""

    dim: int
    """Channels of the grid's cells."""
    compressor: dict[str, Any] = component("compressor", "dts")
    """What is trained."""
    masker: dict[str, Any] = component("masker", "semantic")
    """What is hidden while it is trained; measured with, too, when the objective hides nothing."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder, which is thrown away afterwards."""
    objective: Objective = "masked"
    """``masked`` hides cells; ``autoencode`` hides none, for comparison."""
    target: Target = "features"
    """``features`` or ``layer_norm``: the space in which cells are compared."""
    fill: Fill = "previous"
    """``previous`` or ``embedding``: what hidden cells look like to the compressor."""
    visible_weight: float = 0.2
    """Weight of the visible cells' error beside the hidden cells'."""
    masker_weight: float = 1e-4
    """Weight of the loss that a masker which learns is trained by (`sampling_loss`); others have none."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3))
    """Optimiser and schedule."""
    seed: int = 0
    """Seed of the masks."""

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise ValueError(f"objective={self.objective!r} is not one of {', '.join(get_args(Objective))}")
        if self.visible_weight < 0:
            raise ValueError(f"visible_weight={self.visible_weight} must not be negative")
        if self.masker_weight < 0:
            raise ValueError(f"masker_weight={self.masker_weight} must not be negative; 0 teaches the masker nothing")


class RelativeError(Metric):
    """Summed squared error over the summed squared error of a reference; summed over batches and ranks first."""

    error: Tensor
    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("reference", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, error: Tensor, reference: Tensor) -> None:
        self.error += error.detach().double()
        self.reference += reference.detach().double()

    def compute(self) -> Tensor:
        return self.error / self.reference


class ReconstructivePretraining(L.LightningModule):
    """Trains ``model`` (a `ReCoT`) to rebuild hidden cells; logs its error beside that of three copies.

    Logged for training and validation, on hidden cells: ``loss``, and ``error_over_<copy>``, the squared error
    divided by that of the copy (see `Copies`). Below 1 the tokens know more than the copy, which reads the
    visible cells uncompressed. ``gain`` is 1 minus the larger of the ratios to ``mean`` and ``window_mean``.

    Masks are drawn from (seed, global step, rank), so a resumed run draws the masks of an uninterrupted one.

    Args:
        config: a `PretrainingConfig` or the mapping of one, which is what a YAML file holds.

    Raises:
        UserError: an unknown plugin or parameter.
        ValueError: a value out of range.
    """

    def __init__(self, config: PretrainingConfig) -> None:
        super().__init__()
        if isinstance(config, Mapping):  # what `load_from_checkpoint` finds in the saved hyperparameters
            config = from_plain(config)
        self.save_hyperparameters({"config": to_plain(config)})
        self.config = config
        compressor = registry.build("compressor", config.compressor, dim=config.dim)
        if not compressor.trainable:
            raise UserError(
                f"compressor={config.compressor['name']} has nothing to train; choose a trainable one, such as dts"
            )
        self.masker: Masker = registry.build("masker", config.masker, dim=config.dim)
        self.model = ReCoT(compressor, config.decoder, config.target, config.fill)
        self.metrics = nn.ModuleDict({f"{s}_{c}": RelativeError() for s in ("train", "val") for c in COPIES})

    def training_step(self, batch: GridBatch, batch_idx: int) -> Tensor:
        micro = batch_idx % self.trainer.accumulate_grad_batches
        return self._step(batch, "train", self._generator(0, self.global_step, micro))

    def validation_step(self, batch: GridBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "val", self._generator(1, batch_idx, 0))

    def on_validation_epoch_end(self) -> None:
        ratios = [cast(RelativeError, self.metrics[f"val_{c}"]).compute() for c in ("mean", "window_mean")]
        self.log("val/gain", 1 - torch.stack(ratios).max())

    def configure_optimizers(self) -> Any:
        return build_optimizer({"model": self.model, "masker": self.masker}, self.config.optim)

    def _step(self, batch: GridBatch, stage: str, generator: torch.Generator) -> Tensor:
        grid, weight = batch.grid, 0.0 if stands_in(batch) else 1.0
        mask = self.masker(grid, generator)
        # Measured under the mask whatever it was trained for: who sees the hidden cells has nothing to guess.
        shown = mask.hidden if self.config.objective == "masked" or stage == "val" else None
        result = self.model(grid, shown)
        loss = reconstruction_loss(result, grid, shown, self.config.visible_weight)
        if mask.log_prob is not None:
            loss = loss + self.config.masker_weight * sampling_loss(result, mask.hidden, mask.log_prob)
        if mask.aux_loss is not None:
            loss = loss + mask.aux_loss
        self.log(f"{stage}/loss", loss, prog_bar=stage == "train", batch_size=grid.shape[0])
        self._measure(stage, result, grid, mask.hidden, weight)
        return loss * weight

    @torch.no_grad()
    def _measure(self, stage: str, result: Reconstruction, grid: VideoGrid, hidden: Tensor, weight: float) -> None:
        """Log the error on hidden cells relative to each copy."""
        for name, (error, reference) in squared_errors(result, grid, hidden, self.model.decoder.window).items():
            metric = cast(RelativeError, self.metrics[f"{stage}_{name}"])
            metric.update(weight * error, weight * reference)
            self.log(f"{stage}/error_over_{name}", metric, on_step=False, on_epoch=True, batch_size=grid.shape[0])

    def _generator(self, stage: int, step: int, micro: int) -> torch.Generator:
        """The only source of chance in a step, on the CPU so that every device draws alike."""
        key = (self.config.seed, stage, step, micro, self.global_rank)
        return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def squared_errors(
    result: Reconstruction, grid: VideoGrid, hidden: Tensor, window: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each copy, the summed squared error of the reconstruction on hidden cells and that of the copy."""
    visible = grid.frame_mask[:, :, None, None] & ~hidden
    target = result.target
    error = (result.predicted - target)[hidden].square().sum()
    references = copies(target, visible, window)
    return {name: (error, (getattr(references, name) - target)[hidden].square().sum()) for name in COPIES}


def from_plain(values: Mapping[str, Any]) -> PretrainingConfig:
    """The configuration that `to_plain` wrote."""
    nested = {"decoder": DecoderConfig, "optim": OptimConfig}
    return PretrainingConfig(**{k: nested[k](**v) if k in nested else v for k, v in values.items()})

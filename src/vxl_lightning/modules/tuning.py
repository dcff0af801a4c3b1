"""Instruction tuning of a video language model as a thin LightningModule."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import lightning as L
import torch
from torch import Tensor

from vxl_lightning.config import to_plain
from vxl_lightning.data.batch import stands_in
from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.schema import Sample
from vxl_lightning.errors import UserError
from vxl_lightning.models.alignment import alignment_loss, events, spoken, vocabulary
from vxl_lightning.models.build import VideoLMConfig, build_video_lm
from vxl_lightning.models.haystacks import HaystackConfig, haystacks
from vxl_lightning.models.prefix import Projected
from vxl_lightning.models.pretrained import load_compressor, load_video_lm
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.modules.optim import OptimConfig, build_optimizer
from vxl_lightning.tokens import VideoGrid

Objective = Literal["align", "answer"]
PARTS = ("compressor", "projector", "selector", "cache", "adapter")


class InstructionBatch(Protocol):
    """What a step needs of a batch."""

    grid: VideoGrid
    samples: list[Sample]


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Everything that decides one stage of tuning but the model and the data."""

    objective: Objective = "answer"
    """``align``: tokens learn to point at words, no language model in the loop. ``answer``: questions are answered."""
    align_weight: float = 0.3
    """Weight of the alignment loss beside the answers' loss; 0 where samples have no needles."""
    rates: dict[str, float] = field(
        default_factory=lambda: {
            "compressor": 1e-3,
            "projector": 5e-4,
            "selector": 1e-3,
            "cache": 1e-4,
            "adapter": 1e-3,
        }
    )
    """Peak learning rate of each part; 0 freezes it."""
    from_words: int = 0
    """Tokens a group of a video that is told in the words of its needles instead of shown: the warm-up of a language
    model, with no compressor in it. 0 shows the video."""
    haystack: HaystackConfig = field(default_factory=HaystackConfig)
    """Make each clip seem a part of a long video of which a selector left ``groups``, and train the selector to find
    them; ``groups=0`` shows clips as they are."""
    selection_weight: float = 1.0
    """Weight of the selector's loss beside the answers' loss, in haystacks."""
    dialogue: bool = False
    """Questions about a video continue one another. By default each stands alone, all packed after one prefix."""
    gradient_checkpointing: bool = False
    """Recompute the language model's activations in the backward pass: less memory, a third more time."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule; its ``lr`` is used by no part."""

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise ValueError(f"objective={self.objective!r} is not one of {', '.join(get_args(Objective))}")
        unknown = sorted(set(self.rates) - set(PARTS))
        if unknown:
            raise ValueError(f"rates: unknown part {unknown[0]!r}; parts: {', '.join(PARTS)}")
        for part, rate in self.rates.items():
            if not (math.isfinite(rate) and rate >= 0):
                raise ValueError(f"rates.{part}={rate} must be a finite number, at least 0")
        if self.objective == "align" and self.from_words:
            raise ValueError(
                f"from_words={self.from_words} leaves nothing to align: words are aligned; use objective=answer"
            )
        if min(self.align_weight, self.from_words, self.selection_weight) < 0:
            raise ValueError(
                f"align_weight={self.align_weight}, from_words={self.from_words} and "
                f"selection_weight={self.selection_weight} must not be negative"
            )
        if self.haystack.groups and (self.objective != "answer" or self.from_words or self.dialogue):
            raise ValueError(
                f"haystack with objective={self.objective}, from_words={self.from_words} and dialogue={self.dialogue}: "
                "haystacks are for answers about videos that are shown, each question by itself; set objective=answer, "
                "from_words=0 and dialogue=false, or haystack.groups=0"
            )


class InstructionTuning(L.LightningModule):
    """Trains compressor, projector, selector, cache and adapter; the rest of the language model stays frozen.

    Nothing in a step is random but haystacks, which follow the seed of their batch: a resumed run repeats the
    uninterrupted one. Parts whose rate is 0, and those
    the objective does not reach, are frozen, so that every trainable parameter gets a gradient under DDP.
    Under ``ModelParallelStrategy(data_parallel_size=N, tensor_parallel_size=1)`` the language model's layers are
    sharded (FSDP2); the other parts are small and stay whole.

    Args:
        config: a `TuningConfig` or the mapping of one.
        model: what to build, as a `VideoLMConfig` or the mapping of one; or a `VideoLM` that exists already and
            is tuned in place (then a checkpoint does not record how to build it).
        compressor_from: folder of a pretrained compressor to start from.
        model_from: folder of a tuned model to go on from; a selector or cache that it does not have starts fresh.

    Raises:
        UserError: an unknown plugin or parameter, or weights that do not fit.
        ValueError: a value out of range.
    """

    def __init__(
        self,
        config: TuningConfig | Mapping[str, Any],
        model: VideoLM | VideoLMConfig | Mapping[str, Any],
        compressor_from: str | None = None,
        model_from: str | None = None,
    ) -> None:
        super().__init__()
        self.config = config if isinstance(config, TuningConfig) else tuning_from_plain(config)
        if isinstance(model, Mapping):
            model = VideoLMConfig.from_plain(model)
        self.model_config = None if isinstance(model, VideoLM) else model
        plain = None if self.model_config is None else to_plain(self.model_config)
        began = {"compressor_from": compressor_from, "model_from": model_from}
        self.save_hyperparameters({"config": to_plain(self.config), "model": plain} | began)
        self.model = model if isinstance(model, VideoLM) else build_video_lm(model)
        if model_from is not None:
            load_video_lm(model_from, self.model)
        if compressor_from is not None:
            load_compressor(compressor_from, self.model.compressor)
        self._sharded = False
        self._group: Any = None
        self._check_cache()
        self._freeze()

    def _check_cache(self) -> None:
        """What does not go together with a cache compressor, which reads a video in several passes."""
        cache, config = self.model.cache, self.config
        if cache is None or config.objective != "answer":
            return
        if config.gradient_checkpointing:
            raise UserError(
                "gradient_checkpointing=true: transformers drops the keys and values that a cache compressor hands on; "
                "set gradient_checkpointing=false, or model.cache=null"
            )
        if config.dialogue and cache.needs_query:
            raise UserError("dialogue=true: what this cache recalls depends on the question; set dialogue=false")
        cache.train()  # a model that was loaded is in evaluation mode, in which no ratios are drawn

    def _freeze(self) -> None:
        """Only what this stage trains has gradients."""
        reached = set(PARTS) if self.config.objective == "answer" else {"compressor", "projector"}
        if self.config.from_words:
            reached = {"adapter"}
        for name, parameters in self._parts().items():
            on = name in reached and self.config.rates.get(name, 0.0) > 0
            for parameter in parameters:
                parameter.requires_grad_(on)

    def _parts(self) -> dict[str, list[torch.nn.Parameter]]:
        model = self.model
        return {
            "compressor": list(model.compressor.parameters()),
            "projector": list(model.projector.parameters()),
            "selector": [] if model.selector is None else list(model.selector.parameters()),
            "cache": [] if model.cache is None else list(model.cache.parameters()),
            "adapter": list(model.adapter.values()),
        }

    def configure_model(self) -> None:
        """Shard the language model under FSDP2; recompute activations where asked."""
        if self.config.gradient_checkpointing and self.config.objective == "answer":
            self.model.plain.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.language_model.train()  # transformers recomputes in training mode only; there is no dropout
        mesh = self.device_mesh
        if mesh is None or self._sharded:
            return
        if self.model.cache is not None:
            raise UserError(
                "a cache compressor reads a video in several passes, which sharded layers do not allow; "
                "train with strategy=ddp, or set model.cache=null"
            )
        from torch.distributed.fsdp import fully_shard

        self._group = mesh["data_parallel"].get_group()
        for parameter in self._trained():  # what was initialised at random starts alike
            torch.distributed.broadcast(parameter.data, group_src=0, group=self._group)
        for layer in self.model.plain.base_model.layers:
            fully_shard(layer, mesh=mesh["data_parallel"])
        self._sharded = True

    def on_after_backward(self) -> None:
        """Average the gradients of the small parts, which are not sharded; FSDP2 looks after the layers' own."""
        if not self._sharded:
            return
        from torch.distributed.tensor import DTensor

        for parameter in self._trained():
            if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
                torch.distributed.all_reduce(parameter.grad, group=self._group)
                parameter.grad /= torch.distributed.get_world_size(self._group)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def training_step(self, batch: InstructionBatch, batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        return loss * 0.0 if stands_in(batch) else loss

    def validation_step(self, batch: InstructionBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        parts = {"adapter" if n == "language_model" else n: m for n, m in self.model.named_children()}
        rates = {name: rate for name, rate in self.config.rates.items() if name in parts}
        return build_optimizer(parts, self.config.optim, rates)

    def _step(self, batch: InstructionBatch, stage: str) -> Tensor:
        config, size = self.config, len(batch.samples)
        if config.from_words:
            projected = spoken(self.model, batch.samples, batch.grid.times, config.from_words)
        else:
            projected = self._project(batch.grid)
        loss = projected.features.new_zeros((), dtype=torch.float32)
        if self._aligns:
            seen = [events(sample) for sample in batch.samples]
            aligned = alignment_loss(self.model, projected, seen, vocabulary(batch.samples))
            self.log(f"{stage}/align_loss", aligned, batch_size=size)
            loss = loss + aligned * (1.0 if config.objective == "align" else config.align_weight)
        if config.objective == "answer":
            pairs = _pairs(batch.samples)
            if config.haystack.groups:
                made = haystacks(self.model, projected, batch.samples, config.haystack, self._chance(stage))
                projected, pairs = made.projected, made.pairs
                if made.selection is not None:
                    self.log(f"{stage}/selection_loss", made.selection, batch_size=size)
                    loss = loss + config.selection_weight * made.selection
            answered = self.model.loss(projected, pairs, config.dialogue, select=not config.haystack.groups)
            self.log(f"{stage}/answer_loss", answered, batch_size=size)
            loss = loss + answered
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=size)
        return loss

    def _project(self, grid: VideoGrid) -> Projected:
        """Where nothing of it learns, in float32 and without a graph: short matrix products gain nothing from less."""
        learns = any(p.requires_grad for part in ("compressor", "projector") for p in self._parts()[part])
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            if learns:
                return self.model.project(grid)
            with torch.autocast(self.device.type, enabled=False):
                return self.model.project(grid)

    def _chance(self, stage: str) -> torch.Generator:
        """What haystacks are drawn from: on the CPU, so that every device draws alike. In training it follows the
        generator that the datamodule seeds for every batch and rank; in validation it is always the same."""
        seed = int(torch.randint(2**31, ())) if stage == "train" else 0
        return torch.Generator().manual_seed(seed)

    @property
    def _aligns(self) -> bool:
        """Whether a step has an alignment loss that anything can learn from."""
        trains = any(p.requires_grad for n in ("compressor", "projector") for p in self._parts()[n])
        return trains and (self.config.objective == "align" or self.config.align_weight > 0)


def _pairs(samples: Iterable[Sample]) -> list[list[tuple[str, str]]]:
    return [[(pair.question, pair.answer) for pair in exchanges(sample)] for sample in samples]


def tuning_from_plain(values: Mapping[str, Any]) -> TuningConfig:
    """The configuration that `config.to_plain` wrote."""
    return TuningConfig(**settings_from_plain(values))


def settings_from_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Its fields, those that are configurations themselves as such."""
    nested = {"optim": OptimConfig, "haystack": HaystackConfig}
    return {k: nested[k](**v) if k in nested and isinstance(v, Mapping) else v for k, v in values.items()}


def auto_precision() -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the device multiplies it natively, else float32; float16 never."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return "bf16-mixed"
    return "32-true"

"""A video language model from a plain configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vxl_lightning import registry
from vxl_lightning.caches.base import CacheCompressor, LanguageShape
from vxl_lightning.config import component
from vxl_lightning.errors import UserError
from vxl_lightning.models.language import load_language_model
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.projector import Projector
from vxl_lightning.models.released.video_xl_pro import VideoXLPro
from vxl_lightning.models.video_lm import VideoLM


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What may change in the language model: LoRA (arXiv 2106.09685), through peft, or some layers themselves."""

    rank: int = 8
    """Rank of LoRA; 0 adds none."""
    alpha: int = 16
    """Scale: the update counts alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    """Names of the linear layers that get one."""
    whole: list[str] = field(default_factory=list)
    """Names of layers that are trained themselves, such as self_attn. It costs a copy of them in every saved model;
    a small language model learns to look things up in fewer steps than through LoRA."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha < 1:
            raise ValueError(f"adapter rank={self.rank} must be at least 0 and alpha={self.alpha} at least 1")


@dataclass(frozen=True, kw_only=True)
class VideoLMConfig:
    """Everything a `VideoLM` is built from but its weights."""

    dim: int
    """Channels of the grid's cells."""
    language_model: str = "smollm2"
    """A packaged model's name or the folder of a local transformers model."""
    compressor: dict[str, Any] = component("compressor", "dts")
    selector: dict[str, Any] = component("selector", None)
    cache: dict[str, Any] = component("cache", None)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    released: bool = False
    """Put together as Video-XL-Pro's release is, quirks included; for weights that vxl convert read."""

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "VideoLMConfig":
        """The configuration that `config.to_plain` wrote."""
        nested = {"prompt": PromptConfig, "adapter": AdapterConfig}
        return cls(**{k: nested[k](**v) if k in nested else v for k, v in values.items()})


def build_video_lm(
    config: VideoLMConfig, language_model: tuple[Any, Any] | None = None, cache: Path | None = None
) -> VideoLM:
    """Build with fresh compressor, projector, selector and adapters; the language model itself is frozen.

    Args:
        language_model: a loaded model and tokenizer, instead of the one ``config`` names; adapters are put into it.
        cache: see `load_language_model`.

    Raises:
        UserError: an unknown language model, plugin or adapter target.
    """
    model, tokenizer = language_model or load_language_model(config.language_model, cache)
    model.requires_grad_(False)
    hidden = model.config.hidden_size
    compressor = registry.build("compressor", config.compressor, dim=config.dim)
    cached = fresh_cache(model, config.cache) if config.cache else None  # before adapters wrap the model
    video = (VideoXLPro if config.released else VideoLM)(
        language_model=add_adapter(model, config.adapter),
        tokenizer=tokenizer,
        projector=Projector(compressor.out_dim, hidden),
        compressor=compressor,
        selector=registry.build("selector", config.selector, dim=hidden) if config.selector else None,
        prompt=config.prompt,
        whole=config.adapter.whole,
        cache=cached,
    )
    unknown = [name for name in config.adapter.whole if not any(name in n.split(".") for n in video.adapter)]
    if unknown:
        raise UserError(
            f"adapter.whole: {config.language_model} has no layer {unknown[0]!r}; self_attn and mlp are usual"
        )
    return video


def fresh_cache(model: Any, spec: Mapping[str, Any]) -> CacheCompressor:
    """A cache compressor for a language model, its weights where it has any begun from the model's."""
    cache: CacheCompressor = registry.build("cache", spec, shape=LanguageShape.of(model))
    cache.start_from(model)
    return cache


def add_adapter(model: Any, config: AdapterConfig) -> Any:
    """The model with trainable LoRA matrices, which start as no change; as it is for rank 0."""
    if config.rank == 0:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0, bias="none"
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"adapter.targets={config.targets}: {str(error).splitlines()[0]}") from None

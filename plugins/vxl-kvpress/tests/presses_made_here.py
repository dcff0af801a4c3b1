"""Presses with what the adapter relies on of kvpress's, and a model and prompts to try them on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vxl_kvpress import PressedCache

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Memory, Passage

HIDDEN = 32


@dataclass
class BasePress:
    """Listens to every attention as kvpress does, and asks of its arguments what kvpress asks."""

    compression_ratio = 0.0

    def forward_hook(self, module: Any, given: Any, kwargs: dict[str, Any], output: Any) -> Any:
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        assert int(kwargs["cache_position"][-1]) + 1 == kwargs["hidden_states"].shape[1]
        if self.compression_ratio == 0:
            return output
        keep = self.keep(module, layer.values)[..., None].expand(-1, -1, -1, module.head_dim)
        layer.keys, layer.values = layer.keys.gather(2, keep), layer.values.gather(2, keep)
        return output

    def keep(self, module: Any, values: Tensor) -> Tensor:
        raise NotImplementedError

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        hooks = []
        try:
            for layer in model.model.layers:
                layer.self_attn.rotary_emb = model.model.rotary_emb
                hooks.append(layer.self_attn.register_forward_hook(self.forward_hook, with_kwargs=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass
class LongestPress(BasePress):
    """Keeps the longest values of every head."""

    compression_ratio: float = 0.0
    least: int = 0
    n_sink: int = 0

    def keep(self, module: Any, values: Tensor) -> Tensor:
        n = values.shape[2]
        assert n > self.least, f"Input should contain more tokens than least={self.least}"
        count = max(1, int(n * (1 - self.compression_ratio)))
        return torch.topk(values.norm(dim=-1), count).indices


@dataclass
class AnyPress(LongestPress):
    """Keeps what a draw says."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return super().keep(module, torch.rand(*values.shape[:3], 1))


@dataclass
class UnevenPress(LongestPress):
    """Keeps one more in every layer than in the one before."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return torch.topk(values.norm(dim=-1), 2 + module.layer_idx).indices


@dataclass
class MaskingPress(LongestPress):
    """Keeps all, and leaves marks in the model for what is not to be attended to."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        module.masked_key_indices = (torch.tensor([0]),) * 3
        return super().keep(module, values)


@dataclass
class AroundPress(BasePress):
    """Around another press, which it lets decide."""

    press: LongestPress

    @property
    def compression_ratio(self) -> float:
        return self.press.compression_ratio

    @compression_ratio.setter
    def compression_ratio(self, value: float) -> None:
        self.press.compression_ratio = value

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return self.press.keep(module, values)


PRESSES = (BasePress, LongestPress, AnyPress, UnevenPress, MaskingPress, AroundPress)


def language_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def prompt(n: int, head: int = 3, seed: int = 0) -> Passage:
    """A chat's head, then stretches of one place of time text and four visual ones."""
    place = torch.arange(n) - head
    stretch = place.clamp(min=-5).div(5, rounding_mode="floor")
    embeds = torch.randn(n, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return Passage(embeds, (place >= 0) & (place % 5 > 0), stretch)


def built(model: Any, press: str = "LongestPress", **config: Any) -> PressedCache:
    return PressedCache(PressedCache.Config(press=press, **config), LanguageShape.of(model))


def remembered(cache: PressedCache, model: Any, passage: Passage) -> Memory:
    return cache.recall(model, cache.read(model, passage))


def whole(model: Any, passage: Passage) -> Memory:
    return forward(model, passage.embeds, None, torch.arange(len(passage)))[1]


def same(a: Memory, b: Memory) -> bool:
    pairs = zip((*a.keys, *a.values), (*b.keys, *b.values), strict=True)
    return a.position == b.position and all(torch.equal(x, y) for x, y in pairs)

"""kvpress's presses against `press`, which runs the installed kvpress.

The checkout's are asked layer by layer, about keys and values of a pass that nothing listened to.
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor
from vxl_kvpress import PressedCache
from vxl_kvpress.choice import library

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.forward import attentions, forward
from vxl_lightning.caches.memory import Passage

REPOSITORY = Repository("NVIDIA/kvpress", "8bb29b9c3078452a86d692f29123fa6c793e2b05", "Apache-2.0")

RETENTION = 0.3
PRESSES: dict[str, dict[str, Any]] = {
    "SnapKVPress": {"window_size": 16},
    "ExpectedAttentionPress": {},
    "KnormPress": {},
    "StreamingLLMPress": {},
    "TOVAPress": {},
    "KeyDiffPress": {},
    "LagKVPress": {"lag_size": 16},
    "NonCausalAttnPress": {},
}


@cache
def language_model(layers: int, hidden: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=16,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=hidden // 8,
            initializer_range=0.2,
        )
        return Qwen3ForCausalLM(config).eval().requires_grad_(False)


def make(shape: tuple[int, ...], seed: int) -> tuple[Any, Tensor]:
    """A language model of so many layers and channels, and ``[n, hidden]`` embeddings."""
    layers, n, hidden = shape
    return language_model(layers, hidden), torch.randn(n, hidden, generator=torch.Generator().manual_seed(seed))


def stacked(keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Of all layers, in the order of what each head holds: a press gives keys in the order of their scores."""
    both = torch.stack([torch.cat([k, v], -1) for k, v in zip(keys, values, strict=True)])
    order = both[..., 0].argsort(dim=-1, stable=True)
    return both.gather(-2, order[..., None].expand_as(both))


def ours(name: str, given: tuple[Any, Tensor]) -> Tensor:
    model, embeds = given
    config = PressedCache.Config(press=name, parameters=PRESSES[name], retention=RETENTION)
    n = len(embeds)
    passage = Passage(embeds, torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.long))
    pressed = PressedCache(config, LanguageShape.of(model))
    memory = pressed.recall(model, pressed.read(model, passage))
    return stacked(memory.keys, memory.values)


@cache
def checkout(folder: Path) -> Any:
    """The checkout's kvpress; the installed one stays what others import."""
    installed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "kvpress"}
    try:
        with importing(folder):
            return library()
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "kvpress"]:
            del sys.modules[name]
        sys.modules.update(installed)


def theirs(name: str, folder: Path, given: tuple[Any, Tensor]) -> Tensor:
    model, embeds = given
    seen: list[dict[str, Any]] = []

    def listen(_module: Any, _given: Any, kwargs: dict[str, Any], _output: Any) -> None:
        seen.append(kwargs)

    layers = attentions(model)
    hooks = [layer.register_forward_hook(listen, with_kwargs=True) for layer in layers]
    memory = forward(model, embeds, None, torch.arange(len(embeds)))[1]
    for hook in hooks:
        hook.remove()
    keys, values = [], []
    press = getattr(checkout(folder), name)(compression_ratio=1 - RETENTION, **PRESSES[name])
    for layer, k, v, kwargs in zip(layers, memory.keys, memory.values, seen, strict=True):
        layer.rotary_emb = model.model.rotary_emb
        k, v = press.compress(layer, kwargs["hidden_states"], k, v, None, kwargs)
        keys.append(k)
        values.append(v)
        del layer.rotary_emb
    return stacked(keys, values)


def comparison(name: str) -> Comparison:
    asked: Callable[[Any], Tensor] = partial(ours, name)
    return Comparison(
        kind="cache",
        method="press",
        what=f"{name}: keys and values of all layers at retention={RETENTION}",
        shapes=((2, 61, 64), (3, 200, 128), (4, 333, 64)),
        make=make,
        ours=asked,
        theirs=partial(theirs, name),
    )


COMPARISONS = tuple(comparison(name) for name in PRESSES)

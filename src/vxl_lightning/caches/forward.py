"""One forward pass over embeddings with given keys and values before them, and what hooks see on the way."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from vxl_lightning.caches.memory import Memory


def attentions(model: Any) -> list[Any]:
    """The attention of every layer.

    Raises:
        ValueError: the model's layers are laid out otherwise than Llama's and Qwen's.
    """
    layers = getattr(model.base_model, "layers", None)
    found = [getattr(layer, "self_attn", None) for layer in layers or []]
    if not found or any(not all(hasattr(a, f"{p}_proj") for p in "qkv") for a in found):
        raise ValueError(
            f"{type(model).__name__}: a cache compressor needs layers[i].self_attn with q_proj, k_proj and v_proj, "
            "as the Llama, Mistral, Qwen2, Qwen3 and SmolLM families have"
        )
    return found


def forward(
    model: Any, embeds: Tensor, before: Memory | None, position: Tensor, sees: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """Run embeddings through all layers, after what is remembered.

    Args:
        model: a transformers causal language model.
        embeds: ``[n, hidden]``.
        before: attended to by every place, or None.
        position: ``[n]`` of the places, or ``[3, n]`` of time, height and width.
        sees: ``[n, n]`` bool, which of the new places each attends to; None is causal.

    Returns:
        ``[n, hidden]`` last hidden states, and the new places' keys and values alone.

    Raises:
        ValueError: more places than a sliding window of the model's shows.
    """
    states, whole = _forward(model, embeds, before, position, sees)
    old = 0 if before is None else len(before)
    # To the end, wherever it is: what listens to the pass may leave another number in every layer.
    return states, Memory([k[:, :, old:] for k in whole.keys], [v[:, :, old:] for v in whole.values], whole.position)


def _forward(
    model: Any, embeds: Tensor, before: Memory | None, position: Tensor, sees: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """`forward`, with what was remembered before the new places' keys and values."""
    from transformers import DynamicCache

    n, old = len(embeds), 0 if before is None else len(before)
    window = sliding_window(model.config)
    if window is not None and old + n > window:
        raise ValueError(
            f"{type(model).__name__}: sliding_window={window}, but {n} places are read after {old} that are "
            f"remembered, {old + n} in all, and layers with a window would not see the first of them; at most {window} "
            "are allowed. Let fewer tokens reach the cache (fewer frames, lower retention, smaller windows or blocks), "
            "or take a language model without a sliding window"
        )
    cache = DynamicCache()
    if before is not None and old:
        for i, (k, v) in enumerate(zip(before.keys, before.values, strict=True)):
            cache.update(k, v, i)
    mask = None  # the model's own is causal
    if sees is not None:
        mask = torch.zeros(1, 1, n, old + n, dtype=embeds.dtype, device=embeds.device)
        mask[0, 0, :, old:].masked_fill_(~sees, torch.finfo(embeds.dtype).min)
    given = {cache_name(type(model.base_model).forward): cache}
    out = model.base_model(
        inputs_embeds=embeds[None], attention_mask=mask, position_ids=position.unsqueeze(-2), use_cache=True, **given
    )
    layers = cache.layers
    states: Tensor = out.last_hidden_state[0]
    return states, Memory([x.keys for x in layers], [x.values for x in layers], int(position.max()) + 1)


def sliding_window(config: Any) -> int | None:
    """How many places the layers of a language model see that see the fewest, or None where all see everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)  # without it, the window is every layer's
    slides = getattr(config, "use_sliding_window", True) if kinds is None else "sliding_attention" in kinds
    return int(window) if window and slides else None


def extended(model: Any, embeds: Tensor, memory: Memory | None, position: Tensor | None = None) -> Memory:
    """What is remembered with ``embeds [n, hidden]`` read after it: plain causal attention, at ``position`` where one
    is given."""
    if position is None:
        begin = 0 if memory is None else memory.position
        position = torch.arange(begin, begin + len(embeds), device=embeds.device)
    # The pass has joined what it remembers to what it read.
    return _forward(model, embeds, memory, position)[1]


@lru_cache
def cache_name(function: Callable[..., Any]) -> str:
    """What a model's ``forward`` calls its cache, which newer versions of transformers renamed."""
    return "cache" if "cache" in inspect.signature(function).parameters else "past_key_values"


def turned(model: Any, keys: list[Tensor], by: Tensor) -> list[Tensor]:
    """Keys moved along the positions: rotated on by ``by [m]`` places each.

    Raises:
        ValueError: the model's positions are not rotations of the head's halves, the same in every layer.
    """
    if model not in _TURNS:
        _check_turning(model)
        _TURNS.add(model)
    return _turned(model.base_model.rotary_emb, keys, by)


_TURNS: WeakSet[Any] = WeakSet()
"""Models whose keys were seen to turn as `turned` turns them."""


def _turned(rotary: Any, keys: list[Tensor], by: Tensor) -> list[Tensor]:
    cos, sin = rotary(keys[0].float(), by[None])  # in float32: the keys were rounded once already
    scale = getattr(rotary, "attention_scaling", 1.0)  # is in the keys already
    cos, sin = (cos / scale).unsqueeze(1), (sin / scale).unsqueeze(1)
    size = cos.shape[-1]

    def turn(k: Tensor) -> Tensor:
        part = k[..., :size].float()
        a, b = part.chunk(2, -1)
        moved = part * cos + torch.cat([-b, a], -1) * sin
        return torch.cat([moved.to(k.dtype), k[..., size:]], -1)

    return [turn(k) for k in keys]


@torch.no_grad()
def _check_turning(model: Any) -> None:
    """Hold keys of a tiny pass, turned, against those of the same pass at other positions.

    Families differ here in ways that no config names in one word: pairs of neighbours rotate instead of halves, some
    layers do not rotate, or each kind of layer has a base of its own.

    Raises:
        ValueError: a layer's keys are not what turning makes of them.
    """
    name = type(model).__name__
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        raise ValueError(f"{name} has no rotary_emb; its keys cannot be moved to other positions. {_ALLOWED}")
    arguments = list(inspect.signature(type(rotary).forward).parameters.values())[3:]  # after self, x and positions
    needed = [a.name for a in arguments if a.default is a.empty and a.kind is not a.VAR_KEYWORD]
    if needed:
        raise ValueError(
            f"{name}: its rotary_emb also asks for {', '.join(needed)}, so layers rotate differently; its keys cannot "
            f"be moved to other positions. {_ALLOWED}"
        )
    device, generator = model.device, torch.Generator().manual_seed(0)
    embeds = torch.randn(3, model.config.hidden_size, generator=generator).to(device, model.dtype)
    position, far = torch.arange(3, device=device), 7
    passes = []
    for begin in (0, far):
        # Both passes begin in one random state, and leave it: dropout is the same in them.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            passes.append(forward(model, embeds, None, position + begin)[1].keys)
    here, there = passes
    moved = _turned(rotary, here, torch.full_like(position, far))
    otherwise = [
        str(layer)
        for layer, (a, b, c) in enumerate(zip(here, moved, there, strict=True))
        # Rounding leaves a small part of the way; a layer that does otherwise leaves all of it, or more.
        if not bool((b.float() - c.float()).norm() <= (b.float() - a.float()).norm() / 2)
    ]
    if otherwise:
        raise ValueError(
            f"{name}: turning its keys does not give its keys at other positions in layers {', '.join(otherwise)}. "
            f"{_ALLOWED}"
        )


_ALLOWED = (
    "Every layer must rotate the two halves of a head by one rotary_emb, as Llama, Mistral, Qwen2, Qwen3 and SmolLM2 "
    "do; caches that move no keys, such as full, work without"
)


@contextmanager
def watched(model: Any, part: str) -> Iterator[list[Tensor]]:
    """Collects what ``q_proj`` or ``k_proj`` of every layer gives in the next pass: ``[1, n, heads * head_dim]`` each,
    before any rotation and without gradient.

    Where the attention normalises it (``q_norm`` or ``k_norm``, as in Qwen3), what the norm gives, as that rotates.
    """
    seen: list[Tensor] = []

    def collect(_module: Any, given: Any, out: Tensor) -> None:
        if out.ndim == 4:
            # One head at a time: [1, n, heads, d], or [1, heads, n, d] as a view of it, as its strides tell.
            out = out.transpose(1, 2) if given[0].stride(1) < given[0].stride(2) else out
            out = out.flatten(2)
        seen.append(out.detach())

    with ExitStack() as stack:
        for attention in attentions(model):
            norm = getattr(attention, f"{part[0]}_norm", None)
            hook = (getattr(attention, part) if norm is None else norm).register_forward_hook(collect)
            stack.callback(hook.remove)
        yield seen

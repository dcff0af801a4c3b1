"""A pass in which some places attend to more than the others do, and only these places cost more."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.forward import attentions, forward
from vxl_lightning.caches.memory import Memory

_NAME = "vxl_further"


@dataclass(frozen=True, eq=False)
class _Further:
    """What a pass's attention is to do besides its own.

    Attributes:
        places: ``[m]`` of the pass that attend to more.
        memory: all of what they attend to before the pass.
        sees: ``[1, 1, m, len(memory) + n]`` bool.
    """

    places: Tensor
    memory: Memory
    sees: Tensor


_FURTHER: ContextVar[_Further] = ContextVar(_NAME)


def forward_further(
    model: Any, embeds: Tensor, before: Memory | None, position: Tensor, places: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory]:
    """`forward`, causal, but ``places`` attend to all of ``memory`` where the others attend to ``before``.

    Args:
        model: a transformers causal language model.
        embeds: ``[n, hidden]``.
        before: part of ``memory``.
        position: ``[n]`` of the places.
        places: ``[m]``, indices into ``embeds``.
        memory: all that came before, or None.

    Returns:
        As `forward`.

    Raises:
        ValueError: the model's attention cannot be replaced.
    """
    if memory is None or not len(places) or (before is not None and len(before) == len(memory)):
        return forward(model, embeds, before, position)
    n = len(embeds)
    causal = torch.ones(n, n, dtype=torch.bool, device=embeds.device).tril()
    own = causal[places]
    sees = torch.cat([own.new_ones(len(places), len(memory)), own], 1)[None, None]
    with _attending(model, _Further(places, memory, sees)):
        return forward(model, embeds, before, position, causal)


@contextmanager
def _attending(model: Any, further: _Further) -> Iterator[None]:
    from transformers import AttentionInterface

    if not all(getattr(model.base_model, f"_supports_{what}", False) for what in ("attention_backend", "sdpa")):
        raise ValueError(
            f"{type(model).__name__}: its attention cannot be replaced for a pass, so time text cannot read what its "
            "block does not see; let every block be visible (previous=-1), or take a language model that has "
            "transformers' attention interface and sdpa, as Llama, Mistral, Qwen2, Qwen3 and SmolLM2 have"
        )
    AttentionInterface.register(_NAME, _attend)
    config = attentions(model)[0].config
    before, token = config._attn_implementation, _FURTHER.set(further)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _FURTHER.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Transformers' attention of one layer: ``query [1, heads, n, d]``, the answer ``[1, n, heads, d]``."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    further, attend = _FURTHER.get(), ALL_ATTENTION_FUNCTIONS["sdpa"]
    answer: Tensor = attend(module, query, key, value, attention_mask, **kwargs)[0]
    n, layer = query.shape[2], module.layer_idx
    keys = torch.cat([further.memory.keys[layer], key[:, :, -n:]], 2)
    values = torch.cat([further.memory.values[layer], value[:, :, -n:]], 2)
    more = attend(module, query[:, :, further.places], keys, values, further.sees, **kwargs)[0]
    return answer.index_copy(1, further.places, more), None

"""How a press listens to one forward pass, whichever version of transformers runs it, and what is left afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vxl_lightning.caches.forward import attentions

_LEFT = ("rotary_emb", "masked_key_indices")
"""What kvpress leaves in every attention: the model's rotary embedding, and which keys a press has masked."""


@contextmanager
def listening(press: Any, model: Any, seed: int) -> Iterator[None]:
    """The next prefill of ``model`` is compressed by ``press``; then the model is as it was.

    A press reads ``past_key_values`` and ``cache_position`` of an attention's arguments. Newer versions of transformers
    renamed the first and pass the second no more, so it is given both. Random numbers, where it
    draws any, are those of ``seed``: the same prompt leaves the same memory, and the caller's generators are unmoved.

    Raises:
        ValueError: on leaving, the press has masked keys in the model.
    """
    layers = attentions(model)
    had = [{name: getattr(layer, name) for name in _LEFT if hasattr(layer, name)} for layer in layers]
    hook = press.forward_hook

    def told(module: Any, given: Any, kwargs: dict[str, Any], output: Any) -> Any:
        states = kwargs["hidden_states"]
        position = torch.arange(states.shape[1], device=states.device)
        kwargs = {"past_key_values": kwargs.get("cache"), "cache_position": position, **kwargs}
        with _drawing(seed + module.layer_idx, states.device):
            return hook(module, given, kwargs, output)

    press.forward_hook = told  # kvpress registers what it finds on the press
    try:
        with press(model):
            yield
        if any(getattr(layer, "masked_key_indices", None) is not None for layer in layers):
            raise ValueError(f"{type(press).__name__} masks keys inside the model, which no memory can hand on")
    finally:
        del press.forward_hook
        for layer, before in zip(layers, had, strict=True):
            for name in _LEFT:
                if name in before:
                    setattr(layer, name, before[name])
                elif hasattr(layer, name):
                    delattr(layer, name)


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of a seed; the generators are as they were afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield

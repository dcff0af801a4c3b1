"""How a press listens to one forward pass, whichever version of transformers runs it, and what is left afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vxl_lightning.caches.forward import attentions


@contextmanager
def listening(press: Any, model: Any, seed: int) -> Iterator[None]:
    """The next prefill of ``model`` is compressed by ``press``; then the model is as it was.

    A press reads ``past_key_values`` and ``cache_position`` of an attention's arguments. Newer versions of transformers
    renamed the first and pass the second no more, so it is given both. It draws random numbers, where it does, from a
    generator of its own: the same prompt leaves the same memory, and the caller's randomness is not disturbed.

    Raises:
        ValueError: on leaving, the press has masked keys in the model.
    """
    layers = attentions(model)
    had_rotary = [hasattr(layer, "rotary_emb") for layer in layers]
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
        for layer, had in zip(layers, had_rotary, strict=True):
            vars(layer).pop("masked_key_indices", None)
            if not had and hasattr(layer, "rotary_emb"):  # kvpress leaves the model's in every layer
                del layer.rotary_emb


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

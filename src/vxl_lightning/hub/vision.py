"""What a model's vision gives its language: computed once for a video, and read as often as something is asked."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, make_dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import Family

READ = ("pooler_output", "deepstack_features")
"""What language models read of a vision tower's output; the rest, such as every layer's states, is not kept."""


@dataclass(frozen=True, eq=False)
class Vision:
    """The videos of one prompt, as they stand at the boundary between vision and language.

    Attributes:
        read: by name, what the language model reads of the output of the model's own method: projected features and,
            with DeepStack, those of deeper layers.
        encoded: shape of the pixels that it was made of.
    """

    read: Mapping[str, Any]
    encoded: tuple[int, ...]

    def output(self) -> Any:
        """As the method gives it, but made anew, as ``generate`` writes into what it is given; tensors are the same."""
        return _class()(**self.read)


def encoded(core: Any, family: Family, tensors: Mapping[str, Tensor]) -> Vision:
    """Run the vision tower as the model itself would.

    Args:
        core: the model without its head.
        family: its own.
        tensors: what the processor gave beside the prompt, on the model's device and of its type.
    """
    encode = getattr(core, family.encodes)
    taken = inspect.signature(encode).parameters
    more = {name: tensor for name, tensor in tensors.items() if name in taken and not _is_pixels(name)}
    pixels = _pixels(tensors)  # the first argument of every version, which do not all name it alike
    output = encode(pixels, **more, return_dict=True)
    found = {name: getattr(output, name, None) for name in READ}
    return Vision({name: value for name, value in found.items() if value is not None}, tuple(pixels.shape))


def unseen(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same inputs with pixels that are there in shape alone, and take no memory: a model is told of a video by
    them, though its vision has seen it already."""

    def blank(tensor: Tensor) -> Tensor:
        return torch.full((), torch.nan, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)

    return {name: blank(tensor) if _is_pixels(name) else tensor for name, tensor in tensors.items()}


@contextmanager
def watching(
    core: Any, family: Family, hear: Callable[[dict[str, Any]], None], vision: Vision | None
) -> Iterator[None]:
    """Within this context it is heard what videos are encoded, or they are those of ``vision`` and nothing is computed.

    ``forward`` and ``generate`` both call the model's own method for it, which is stood in for; no hook can do that.

    Args:
        core: the model without its head.
        family: its own.
        hear: is told what else the method was given, such as how large videos are.
        vision: what it gives; None runs it.

    Raises:
        UserError: on a call for other pixels than those of ``vision``.
    """
    before, encode = vars(core).get(family.encodes), getattr(core, family.encodes)
    signature = inspect.signature(encode)

    @functools.wraps(encode)  # generate goes by its parameters
    def heard(*given: Any, **kwargs: Any) -> Any:
        told = signature.bind(*given, **kwargs).arguments
        hear({name: value for name, value in told.items() if isinstance(value, Tensor) and not _is_pixels(name)})
        if vision is None:
            return encode(*given, **kwargs)
        if (shape := tuple(_pixels(told).shape)) != vision.encoded:
            raise UserError(
                f"pixels of shape {shape} where those of {vision.encoded} were encoded: this context is for one video; "
                "leave it for another, and keep num_beams of generation_config.json at 1"
            )
        return vision.output()

    setattr(core, family.encodes, heard)
    try:
        yield
    finally:
        delattr(core, family.encodes)
        if before is not None:
            setattr(core, family.encodes, before)


@functools.cache
def _class() -> type[Any]:
    """An output of transformers with what is read alone: those of the models differ in what they must hold."""
    from transformers.utils import ModelOutput

    return make_dataclass("Read", [(name, Any, None) for name in READ], bases=(ModelOutput,))


def _is_pixels(name: str) -> bool:
    return name.startswith("pixel_values")


def _pixels(given: Mapping[str, Any]) -> Any:
    found: Tensor = next(value for name, value in given.items() if _is_pixels(name))
    return found

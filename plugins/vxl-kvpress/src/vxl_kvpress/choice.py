"""Which press it is, and how it is built. kvpress is imported here, when a press is first built, and nowhere else."""

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vxl_lightning.errors import UserError
from vxl_lightning.registry import did_you_mean

INSTALL = "pip install --no-deps kvpress==0.5.5 && pip install 'cachetools<6' 'fire<0.7' datasets"

_BASE = "it is the base of others and compresses nothing by itself"
_HEADS = "it keeps another number of keys in every head, all of them held and some masked inside the model"
_LAYERS = "it keeps another number of keys in every layer"
_CHUNKS = "how many keys it keeps depends on where its chunks end; EntropyGatedChunkKVPress keeps an exact number"
_SEVERAL = "it multiplies the ratios of several presses, and their rounding is not announced"
_CHANNELS = "it leaves out channels of the keys and keeps every one of them"
_DECODING = "it compresses while an answer is written, not what was read before"
_WORDS = "it needs the token ids of the prompt, and places of a video have none"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("BasePress", "ScorerPress"), _BASE),
    **dict.fromkeys(("AdaKVPress", "CriticalAdaKVPress", "DMSPress", "DuoAttentionPress", "LUKVPress"), _HEADS),
    **dict.fromkeys(("FastKVzipPress", "KVComposePress"), _HEADS),
    **dict.fromkeys(("PyramidKVPress", "SimLayerKVPress", "PerLayerCompressionPress"), _LAYERS),
    **dict.fromkeys(("ChunkPress", "ChunkKVPress"), _CHUNKS),
    "ComposedPress": _SEVERAL,
    "ThinKPress": _CHANNELS,
    **dict.fromkeys(("DecodingPress", "CompressionRatioDecodingPress", "PrefillDecodingPress", "CAMPress"), _DECODING),
    **dict.fromkeys(("KVzipPress", "KVgradPress", "RestoreKVPress", "FinchPress"), _WORDS),
}
"""Presses whose memory cannot be announced or handed on, and why."""


def refuse(name: str) -> None:
    """Raises `UserError` for a press of `REFUSED`; asks nothing of kvpress."""
    if name in REFUSED:
        raise UserError(f"press={name} cannot be used here: {REFUSED[name]}; SnapKVPress or KnormPress, for two, can")


def made(name: str, parameters: Mapping[str, Any]) -> Any:
    """A press.

    Args:
        name: of a class of kvpress.
        parameters: its arguments without ``compression_ratio``. One that is named ``press`` is a press itself, by name
            or as ``{"name": ..., **parameters}``.

    Raises:
        UserError: kvpress is missing, or there is no such press, or it is refused, or it refuses its parameters.
    """
    refuse(name)
    kvpress = library()
    cls: Any = getattr(kvpress, name, None)
    if not (isinstance(cls, type) and issubclass(cls, kvpress.BasePress)):
        there = sorted(n for n, c in vars(kvpress).items() if isinstance(c, type) and issubclass(c, kvpress.BasePress))
        usable = [n for n in there if n not in REFUSED]
        raise UserError(f"press={name!r} is not in kvpress{did_you_mean(name, usable)}; usable: {', '.join(usable)}")
    if "compression_ratio" in parameters:
        raise UserError(f"press={name}: parameters.compression_ratio is 1 - retention; set retention and leave it out")
    given = {key: _inner(name, value) if key == "press" else value for key, value in parameters.items()}
    allowed = [key for key in inspect.signature(cls).parameters if key != "compression_ratio"]
    unknown = [key for key in given if key not in allowed]
    if unknown:
        raise UserError(
            f"press={name}: unknown parameters.{unknown[0]}{did_you_mean(unknown[0], allowed)}; "
            f"allowed: {', '.join(allowed) or 'none'}"
        )
    try:
        return cls(**given)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"press={name} with parameters={dict(parameters)}: {error}") from None


def _inner(outer: str, spec: Any) -> Any:
    """The press inside a press."""
    parameters = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = parameters.pop("name", None)
    if name is None:
        raise UserError(f"press={outer}: parameters.press.name is missing; write press: {{name: SnapKVPress}}")
    return made(name, parameters)


def held(press: Any) -> int:
    """Places that a press, or the press in it, keeps whatever they are; a prompt no longer than that it refuses."""
    inner = getattr(press, "press", None)
    own = max(getattr(press, "window_size", 0), getattr(press, "n_sink", 0))
    return own if inner is None else max(own, held(inner))


def library() -> Any:
    """kvpress, imported.

    It wraps all attention functions of transformers when it is imported, for the presses that mask per head. Those are
    refused here, so the functions are put back; whoever imported kvpress before wants what it did, and keeps it.

    Raises:
        UserError: it is not installed, or something that it imports is not.
    """
    if sys.modules.get("kvpress") is not None:
        return sys.modules["kvpress"]
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as TABLE

    before = dict(TABLE)
    try:
        module = import_module("kvpress")
    except ImportError as error:
        raise UserError(f"the cache 'press' needs kvpress, which does not import ({error}): {INSTALL}") from None
    for name, function in before.items():
        if TABLE[name] is not function:
            del TABLE[name]  # shows what the table had underneath
            if TABLE.get(name) is not function:
                TABLE[name] = function
    return module

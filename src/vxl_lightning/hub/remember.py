"""A prompt inside a wrapped model is read by a cache compressor; what follows the video is left for the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, Memory, Passage
from vxl_lightning.errors import UserError


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a language model is about to read.

    Attributes:
        embeds: ``[B, L, hidden]``.
        mask: ``[B, L]`` bool, False at padding.
        position: ``[B, L]``, or ``[3, B, L]`` of time, height and width.
        visual: ``[B, L]`` bool, True on visual tokens.
        frame: ``[B, L]`` int64, the frame of every visual token, counted through the row's videos.
        questions: ``[q, hidden]`` of every row, the text after its videos, or None where there is none.
        following: ``[B]`` position of the token after the prompt.
    """

    embeds: Tensor
    mask: Tensor
    position: Tensor
    visual: Tensor
    frame: Tensor
    questions: Sequence[Tensor | None]
    following: Tensor


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model itself reads of a prompt, behind the keys and values in its cache.

    Attributes:
        embeds: ``[B, R, hidden]``.
        position: of them, as in `Prompt`.
        mask: ``[B, M + R]`` bool, of the M places in the cache and of them.
        following: as in `Prompt`.
    """

    embeds: Tensor
    position: Tensor
    mask: Tensor
    following: Tensor


def remember(cache: CacheCompressor, text_model: Any, prompt: Prompt, into: Any) -> Reading:
    """Read every row up to its last visual token and put what is recalled of it into a transformers cache.

    Rows are read alone. Those that recall less, or have less to read after it, are padded on the left.

    Args:
        cache: it must keep positions, where the prompt's are not one after another.
        text_model: whose hooks let this reading pass.
        prompt: of the batch.
        into: a ``DynamicCache`` that is empty.

    Raises:
        UserError: positions that the method cannot keep, or no text after a video.
    """
    parts = [_read(cache, text_model, prompt, row) for row in range(len(prompt.embeds))]
    width = max(0 if p.memory is None else len(p.memory) for p in parts)
    memories = [p.memory for p in parts if p.memory is not None]
    for layer in range(len(memories[0].keys) if memories else 0):
        like = memories[0].keys[layer]
        keys = [_left(None if p.memory is None else p.memory.keys[layer], like, width) for p in parts]
        values = [_left(None if p.memory is None else p.memory.values[layer], like, width) for p in parts]
        into.update(torch.cat(keys), torch.cat(values), layer)
    rest = max(len(p.rest) for p in parts)
    mask = torch.zeros(len(parts), width + rest, dtype=torch.bool, device=prompt.mask.device)
    embeds, positions = [], []
    for row, p in enumerate(parts):
        held = 0 if p.memory is None else len(p.memory)
        mask[row, width - held : width] = True
        mask[row, width + rest - len(p.rest) :] = True
        index = (torch.arange(rest, device=mask.device) - (rest - len(p.rest))).clamp(min=0)  # padding repeats a place
        embeds.append(prompt.embeds[row, p.rest[index]])
        positions.append(p.position[..., index])
    following = torch.stack([p.following for p in parts])
    return Reading(torch.stack(embeds), torch.stack(positions, -2), mask, following)


@dataclass(frozen=True, eq=False)
class _Row:
    """One row: what is recalled, the places left to read, where they stand, and what position follows."""

    memory: Memory | None
    rest: Tensor
    position: Tensor
    following: Tensor


def _read(cache: CacheCompressor, text_model: Any, prompt: Prompt, row: int) -> _Row:
    place = prompt.mask[row].nonzero()[:, 0]
    position, visual = prompt.position[..., row, place], prompt.visual[row, place]
    if not bool(visual.any()):
        return _Row(None, place, position, prompt.following[row])
    end = int(visual.nonzero()[-1]) + 1
    if end == len(place):
        raise UserError(f"row {row} of the prompt ends with a video; put the question after it")
    keeps = cache.keeps_positions
    if not keeps and (position.ndim == 2 or bool(((position[1:] - position[:-1]) != 1).any())):
        raise UserError(
            f"cache={type(cache).__name__} reads places one after another, but those of this prompt are "
            f"{'of time, height and width' if position.ndim == 2 else 'further apart where tokens were left out'}; "
            "choose a cache that keeps positions, such as full, or leave out "
            f"{'the cache' if position.ndim == 2 else 'the compressor and the selector'}"
        )
    passage = Passage(
        prompt.embeds[row, place[:end]],
        visual[:end],
        _stretches(prompt.frame[row, place[:end]], visual[:end]),
        position[..., :end] if keeps else None,
    )
    memory = cache.recall(text_model, cache.read(text_model, passage), prompt.questions[row])
    if keeps:
        return _Row(memory, place[end:], position[..., end:], prompt.following[row])
    rest = torch.arange(memory.position, memory.position + len(place) - end, device=place.device)
    return _Row(memory, place[end:], rest, rest[-1] + 1)


def _stretches(frame: Tensor, visual: Tensor) -> Tensor:
    """``[n]`` the frame that each place belongs to: text belongs to the frame that follows, all before the first one
    to none (-1)."""
    late = torch.where(visual, frame, torch.iinfo(torch.long).max)
    nearest = late.flip(0).cummin(0).values.flip(0)
    return torch.where(visual.long().cumsum(0) == 0, -1, nearest)


def _left(held: Tensor | None, like: Tensor, width: int) -> Tensor:
    """``[1, heads, width, d]`` with zeros before what is held."""
    held = like[:, :, :0] if held is None else held
    return torch.cat([held.new_zeros(*held.shape[:2], width - held.shape[2], held.shape[3]), held], 2)

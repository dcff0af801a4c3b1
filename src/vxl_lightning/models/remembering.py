"""How a language model with a cache compressor reads a video once and is asked afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, Memory
from vxl_lightning.caches.forward import forward
from vxl_lightning.errors import UserError
from vxl_lightning.models.packing import Packed, Segment

if TYPE_CHECKING:
    from vxl_lightning.models.prefix import Prefix
    from vxl_lightning.models.video_lm import VideoLM


@dataclass(frozen=True, eq=False)
class Row:
    """Questions of one video that are read in one tree.

    Attributes:
        video: index of the video.
        questions: indices of its questions.
        root: what the questions follow: the whole prefix, or nothing where it is remembered.
        memory: what is remembered of the prefix, or None where it is read with the questions.
    """

    video: int
    questions: list[int]
    root: Segment
    memory: Memory | None


def rows(model: "VideoLM", prefixes: Sequence["Prefix"], questions: Sequence[Sequence[str]]) -> list[Row]:
    """The trees of a batch: one a video, or one a question where what is recalled depends on it."""
    found = []
    for b, (prefix, asked) in enumerate(zip(prefixes, questions, strict=True)):
        everything = list(range(len(asked)))
        if model.cache is None:
            found.append(Row(b, everything, Segment(prefix.embeds, -1), None))
        elif asked:
            nothing = Segment(prefix.embeds[:0], -1)
            state = model.cache.read(model.plain, prefix.passage)
            for part in [[i] for i in everything] if model.cache.needs_query else [everything]:
                query = query_of(model, asked[part[0]]) if model.cache.needs_query else None
                found.append(Row(b, part, nothing, model.cache.recall(model.plain, state, query)))
    return found


def remember(model: "VideoLM", cache: CacheCompressor, prefix: "Prefix", question: str) -> Memory:
    """What a question about a video attends to: what the model's cache compressor leaves."""
    state = cache.read(model.plain, prefix.passage)
    return cache.recall(model.plain, state, query_of(model, question) if cache.needs_query else None)


def check_length(model: "VideoLM", begin: int, question: str, room: int) -> None:
    """Beyond its context a language model answers nonsense without a word.

    Args:
        begin: positions that what precedes the question takes.
        room: longest answer.

    Raises:
        UserError: they do not fit.
    """
    limit = getattr(model.plain.config, "max_position_embeddings", None)
    needed = begin + len(model.layout.chat.question(question)) + room
    if limit is not None and needed > limit:
        raise UserError(
            f"video and question take {needed:,} positions and the language model has {limit:,}; look at fewer frames "
            "(--fps, --max-frames), keep fewer tokens (retention, a selector, a cache), or shorten the question"
        )


def hidden_after(plain: Any, packed: Packed, memories: Sequence[Memory]) -> Tensor:
    """``[B, L, hidden]`` last hidden states of packed trees, each after its own memory; zero at padding."""
    states = []
    for b, memory in enumerate(memories):
        n = packed.last[b][-1] + 1
        sees, position = packed.mask[b, 0, :n, :n], packed.position[b, :n] + memory.position
        states.append(forward(plain, packed.embeds[b, :n], memory, position, sees)[0])
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True)


@torch.no_grad()
def generate(model: "VideoLM", memory: Memory, question: str, most: int) -> list[int]:
    """The likeliest tokens after a memory and a question, one after another, without the end of the turn."""
    chat = model.layout.chat
    ends = {int(model.tokenizer.eos_token_id), *chat.end()[:1]}
    fed = model.ids(chat.question(question))
    said: list[int] = []
    while len(said) < most:
        position = torch.arange(memory.position, memory.position + len(fed), device=fed.device)
        states, new = forward(model.plain, model.embedding(fed), memory, position)
        token = int(model.logits(states[-1]).argmax())
        if token in ends:
            break
        said.append(token)
        memory, fed = Memory.joined([memory, new], new.position), model.ids([token])
    return said


def query_of(model: "VideoLM", question: str) -> Tensor:
    """``[q, hidden]``: the question as the language model reads it."""
    embedded: Tensor = model.embedding(model.ids(model.layout.chat.question(question)))
    return embedded

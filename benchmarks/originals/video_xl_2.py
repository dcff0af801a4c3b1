"""Video-XL-2's blocks and two levels of detail, with the same random weights and the same choice of chunks.

The release needs an older transformers: VIDEO_XL_PYTHON names an interpreter that has it (`parity.py` lists how to make
one). Its language models are run from the folders ``w_chunk`` and ``w_chunk_bilevel`` of the checkout, with embeddings
given. It reads from files which chunks a question is about; here both are told, by `CHOSEN`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from _interpreter import asked
from _originals import Comparison
from originals import video_xl
from originals.video_xl import HEAD, QUESTION, SIZES, language_model, layers
from torch import Tensor

from vxl_lightning.caches import chunked
from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.chunked import ChunkedPrefill
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Memory, Passage

REPOSITORY = video_xl.REPOSITORY

SHAPES = [(12, 8, 3, 2, 1), (13, 4, 2, 4, 3), (9, 12, 1, 2, 2), (7, 4, 5, 3, 1), (3, 8, 2, 4, 3)]
"""(stretches, visual tokens and time tokens of one, stretches of a block, blocks seen before it)."""
LEVELS = [(12, 8, 3, 2, 2), (13, 4, 2, 4, 4), (21, 12, 1, 2, 4), (16, 8, 2, 4, 2)]
"""Likewise, the last number being the stretches of a chunk."""
POOL = 4
CHOSEN = 1
"""Chunks that the question is about; beside them the first and the last are recalled in full."""


@dataclass(frozen=True, eq=False)
class Case:
    """A prompt and how it is read; the question is the last `QUESTION` of ``embeds``."""

    model: Any
    embeds: Tensor
    stretch: Tensor
    visual: Tensor
    block: int
    previous: int
    chunk: int
    about: list[int]


def case(shape: tuple[int, ...], seed: int, previous: int, chunk: int) -> Case:
    stretches, visual, time, block = shape[:4]
    torch.manual_seed(seed)
    one = torch.cat([torch.zeros(time), torch.ones(visual)]).bool()
    stretch = torch.cat([torch.full((HEAD,), -1), torch.arange(stretches).repeat_interleave(len(one))])
    embeds = torch.randn(len(stretch) + QUESTION, SIZES["hidden_size"])
    chunks = -(-stretches // chunk)
    about = (1 + torch.randperm(max(chunks - 2, 0))[:CHOSEN]).sort().values.tolist()
    shown = torch.cat([torch.zeros(HEAD), one.repeat(stretches)]).bool()
    return Case(language_model(), embeds, stretch, shown, block, previous, chunk, about)


def make(shape: tuple[int, ...], seed: int) -> Case:
    return case(shape, seed, previous=shape[4], chunk=2)


def make_levels(shape: tuple[int, ...], seed: int) -> Case:
    return case(shape, seed, previous=1, chunk=shape[4])


def cache(case: Case) -> ChunkedPrefill:
    """One that recalls in full as many chunks as the question is told to be about, and the first and the last."""
    sizes = torch.bincount(case.stretch[case.visual] // case.chunk).tolist()
    full = {0, len(sizes) - 1, *case.about}
    held = sum(n if i in full else -(-n // POOL) for i, n in enumerate(sizes))
    config = ChunkedPrefill.Config(
        retention=held / sum(sizes), block=case.block, previous=case.previous, chunk=case.chunk, pool=POOL
    )
    return ChunkedPrefill(config, LanguageShape.of(case.model))


def passage(case: Case) -> Passage:
    return Passage(case.embeds[:-QUESTION], case.visual, case.stretch)


def our_prefilled(case: Case) -> Memory:
    memory = cache(case).read(case.model, passage(case)).memory
    assert memory is not None
    return memory


def our_recalled(case: Case) -> Memory:
    module = cache(case)
    state = module.read(case.model, passage(case))
    wanted = torch.zeros(1, int(case.stretch[-1]) // case.chunk + 1)
    wanted[:, case.about] = 1
    with patch.object(chunked, "group_scores", lambda *_: wanted):
        return module.recall(case.model, state, case.embeds[-QUESTION:])


def logits(case: Case, memory: Memory) -> Tensor:
    position = torch.arange(memory.position, memory.position + QUESTION)
    found: Tensor = case.model.lm_head(forward(case.model, case.embeds[-QUESTION:], memory, position)[0])
    return found


def theirs(folder: Path, case: Case, levels: bool, what: str) -> Tensor:
    begin = [int((case.stretch == i).nonzero()[0]) for i in range(int(case.stretch[-1]) + 1)]
    end = [*begin[1:], len(case.stretch)]
    seen = [int(case.visual[b:e].nonzero()[0]) + b for b, e in zip(begin, end, strict=True)]
    # A unit of the release's is two stretches.
    units = [i * case.chunk // 2 for i in case.about] if levels else None
    numbers: dict[str, Any] = {"block": case.block, "previous": case.previous, "chunk": case.chunk, "pool": POOL}
    groups = [list(group) for group in zip(begin, seen, end, strict=True)]
    given = {f"weights.{name}": x for name, x in case.model.state_dict().items()} | {"embeds": case.embeds}
    request = numbers | {"groups": groups, "units": units, "sizes": SIZES, "what": "video_xl_2"}
    return asked(REPOSITORY, "_video_xl_release.py", folder, given, **request)[what]


@torch.no_grad()
def our_blocks(case: Case) -> Tensor:
    return layers(our_prefilled(case))


@torch.no_grad()
def our_block_logits(case: Case) -> Tensor:
    return logits(case, our_prefilled(case))


@torch.no_grad()
def our_levels(case: Case) -> Tensor:
    return layers(our_recalled(case))


@torch.no_grad()
def our_level_logits(case: Case) -> Tensor:
    return logits(case, our_recalled(case))


def their_blocks(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, False, "kept")


def their_block_logits(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, False, "logits")


def their_levels(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, True, "kept")


def their_level_logits(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, True, "logits")


LEFT = (
    "a stretch's tokens are no multiple of pool: the release averages within each stretch and drops those left at its "
    "end; ours averages on within the chunk and drops none"
)

COMPARISONS: Sequence[Comparison] = [
    Comparison("cache", "chunked", "keys and values after the prefill", SHAPES, make, our_blocks, their_blocks),
    Comparison("cache", "chunked", "logits after the prefill", SHAPES, make, our_block_logits, their_block_logits),
    Comparison("cache", "chunked", "keys and values recalled", LEVELS, make_levels, our_levels, their_levels),
    Comparison(
        "cache", "chunked", "logits after the recall", LEVELS, make_levels, our_level_logits, their_level_logits
    ),
    Comparison(
        "cache",
        "chunked",
        "logits, stretches of broken pool",
        [(13, 6, 2, 4, 4)],
        make_levels,
        our_level_logits,
        their_level_logits,
        LEFT,
    ),
]

"""What the laws of cache compressors run on: tiny prompts and a random language model of two layers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.caches.base import CacheState, LanguageShape
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.testing.case import Case, Outputs, expect

HIDDEN, HEAD, TIME_TEXT, PER_STRETCH, QUESTION = 32, 5, 2, 4, 6
"""Sizes of the prompts that ``get_test_params`` is written for."""

STRETCHES, LONG = 9, 24
"""Stretches of an ordinary prompt, and of the one that the announced length is held against ``retention`` on."""


@cache
def language_model(dtype: torch.dtype = torch.float32) -> Any:
    """A Llama of two layers with random weights that bfloat16 holds exactly; the same at every call."""
    if dtype != torch.float32:
        model = copy.deepcopy(language_model()).to(dtype)
        model.base_model.rotary_emb = copy.deepcopy(language_model().base_model.rotary_emb)  # stays in float32
        return model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.data = p.data.bfloat16().float()
    return model


def prompt(counts: Sequence[int], head: int = HEAD, text: int = TIME_TEXT, seed: int = 0, first: int = 0) -> Passage:
    """A chat's head, and stretches of time text and visual tokens.

    Args:
        counts: visual tokens of each stretch.
        head: places of the head.
        text: places of each time text.
        seed: of the embeddings.
        first: number of the first stretch.
    """
    visual, stretch = [False] * head, [-1] * head
    for number, count in enumerate(counts, first):
        visual += [False] * text + [True] * count
        stretch += [number] * (text + count)
    embeds = torch.randn(len(visual), HIDDEN, generator=torch.Generator().manual_seed(seed))
    return Passage(embeds, torch.tensor(visual, dtype=torch.bool), torch.tensor(stretch, dtype=torch.long))


@dataclass(frozen=True)
class CacheInput:
    """A prompt to read and a question.

    Attributes:
        passage: read, then recalled.
        question: ``[q, hidden]``, read after what is recalled.
        query: what is recalled by, or None.
    """

    passage: Passage
    question: Tensor
    query: Tensor | None


class CacheCase(Case):
    kind: ClassVar[str] = "cache"

    @property
    def runtime(self) -> dict[str, Any]:
        return {"shape": LanguageShape.of(language_model())}

    def of(self, passage: Passage) -> CacheInput:
        question = torch.randn(QUESTION, HIDDEN, generator=torch.Generator().manual_seed(7))
        return CacheInput(passage, question, question if self.example.needs_query else None)

    def sample(self, seed: int = 0) -> CacheInput:
        return self.of(prompt([PER_STRETCH] * STRETCHES, seed=seed))

    def features_of(self, sample: CacheInput) -> Tensor:
        return sample.passage.embeds

    def with_features(self, sample: CacheInput, features: Tensor) -> CacheInput:
        return replace(sample, passage=replace(sample.passage, embeds=features))

    def without(self, sample: CacheInput, need: str) -> CacheInput:
        return replace(sample, query=None)

    def memory(self, module: Any, sample: CacheInput, state: CacheState | None = None) -> Memory:
        """What a question attends to after a prompt, or after the last part of one."""
        model = language_model(sample.passage.embeds.dtype)
        found = module.recall(model, module.read(model, sample.passage, state), sample.query)
        expect(isinstance(found, Memory), f"recall returned {type(found).__name__}, not Memory")
        return found  # type: ignore[no-any-return]

    def call(self, module: nn.Module, sample: CacheInput) -> Outputs:
        return told(self.memory(module, sample), sample)


def told(memory: Memory, sample: CacheInput) -> Outputs:
    """A memory as tensors, and what a question makes of it: ``states [q, hidden]``."""
    keys = {f"keys of layer {i}": k for i, k in enumerate(memory.keys)}
    values = {f"values of layer {i}": v for i, v in enumerate(memory.values)}
    position = torch.arange(memory.position, memory.position + len(sample.question))
    states = forward(language_model(sample.question.dtype), sample.question, memory, position)[0]
    return {"states": states, "position": position, **keys, **values}

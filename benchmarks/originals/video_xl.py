"""Video-XL's summary tokens, with the same random weights for the language model and for the summary tokens' own.

The release needs an older transformers: VIDEO_XL_PYTHON names an interpreter that has it (`parity.py` lists how to make
one). Its language model and its memory are run from the folder ``Video-XL`` of the checkout, without the vision tower:
visual tokens are given. There is no time text, as the release has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _interpreter import asked
from _originals import Comparison, Repository
from torch import Tensor

from vxl_lightning.caches.base import CacheState, LanguageShape
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.caches.vst import VisualSummarization

REPOSITORY = Repository(
    "VectorSpaceLab/Video-XL",
    "6e3dc89dad54f9322496dcb13494891ce558d243",
    "Apache-2.0",
    python="VIDEO_XL_PYTHON",
    packages="torch==2.13.0 transformers==4.43.4 safetensors",
)

HEAD, QUESTION = 5, 7
"""Tokens before and after the video."""
SIZES = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SHAPES = [(6, 8, 2, 2), (7, 8, 4, 3), (10, 12, 4, 3), (5, 16, 8, 2), (9, 8, 8, 4), (3, 16, 2, 10)]
"""(frames, tokens of one, ratio, frames of a window): an odd number of windows, a broken last one, that alone."""


@dataclass(frozen=True, eq=False)
class Case:
    """A language model, summary tokens and a prompt; ``visual [frames, tokens, hidden]``."""

    model: Any
    cache: VisualSummarization
    head: Tensor
    visual: Tensor
    question: Tensor


@cache
def language_model(base: float = 1e4) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rope = {"rope_type": "default", "rope_theta": base}
        config = Qwen2Config(**SIZES, rope_parameters=rope, tie_word_embeddings=False, initializer_range=0.2)  # type: ignore[arg-type]
        model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
        for layer in model.model.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                projection.bias.normal_(std=0.5)
    return model


def make(shape: tuple[int, ...], seed: int) -> Case:
    frames, tokens, ratio, window = shape
    model = language_model()
    torch.manual_seed(seed)
    # At retention=1 ours has no weights, but the release does.
    ratios = [2] if ratio == 1 else []
    config = VisualSummarization.Config(retention=1 / ratio, window=window, ratios=ratios)
    cache = VisualSummarization(config, LanguageShape.of(model)).eval().requires_grad_(False)
    for weight in cache.parameters():
        weight.normal_(std=0.2)
    cache.token.normal_()
    head, question = torch.randint(SIZES["vocab_size"], (HEAD,)), torch.randint(SIZES["vocab_size"], (QUESTION,))
    return Case(model, cache, head, torch.randn(frames, tokens, SIZES["hidden_size"]), question)


def passage(case: Case) -> Passage:
    frames, tokens, _ = case.visual.shape
    embeds = torch.cat([case.model.get_input_embeddings()(case.head), case.visual.flatten(0, 1)])
    stretch = torch.cat([torch.full((HEAD,), -1), torch.arange(frames).repeat_interleave(tokens)])
    return Passage(embeds, stretch >= 0, stretch)


def layers(memory: Memory) -> Tensor:
    """``[layers, kv_heads, m, 2 * head_dim]``."""
    return torch.stack([torch.cat([k[0], v[0]], -1) for k, v in zip(memory.keys, memory.values, strict=True)])


def our_memory(case: Case) -> Memory:
    state: CacheState = case.cache.read(case.model, passage(case))
    return case.cache.recall(case.model, state)


@torch.no_grad()
def our_kept(case: Case) -> Tensor:
    return layers(our_memory(case))


@torch.no_grad()
def our_logits(case: Case) -> Tensor:
    memory = our_memory(case)
    embeds = case.model.get_input_embeddings()(case.question)
    position = torch.arange(memory.position, memory.position + QUESTION)
    logits: Tensor = case.model.lm_head(forward(case.model, embeds, memory, position)[0])
    return logits


def weights(case: Case) -> dict[str, Tensor]:
    """By the names that the release gives them."""
    named = dict(case.model.state_dict())
    named["model.beacon_embed_tokens.weight"] = case.cache.token.data[None]
    for i, layer in enumerate(case.cache.projections):
        prefix = f"model.layers.{i}.self_attn"
        for name in "qkv":
            # Nothing reads what a summary token asks for in the last layer, so ours has no query there.
            own = layer[name] if name in layer else case.model.get_submodule(f"{prefix}.{name}_proj")  # type: ignore[index,operator]
            named |= {f"{prefix}.beacon_{name}_proj.{key}": x for key, x in own.state_dict().items()}
    return {f"weights.{name}": x for name, x in named.items()}


def theirs(folder: Path, case: Case, what: str) -> Tensor:
    frames, tokens, _ = case.visual.shape
    given = weights(case) | {"head": case.head, "visual": case.visual.flatten(0, 1), "question": case.question}
    config = case.cache.config
    numbers = {"ratio": round(1 / config.retention), "window": config.window * tokens, "sizes": SIZES}
    return asked(REPOSITORY, "_video_xl_release.py", folder, given, what="video_xl", **numbers)[what]


def their_kept(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, "kept")


def their_logits(folder: Path, case: Case) -> Tensor:
    return theirs(folder, case, "logits")


NOT_WHOLE = (
    "a window's tokens are no multiple of the ratio: the release forgets those behind the last summary token unread "
    "and puts the next window's first summary token that much earlier; ours gives them one of their own"
)
ONE = (
    "retention=1 is plain causal attention; the release would put a summary token after every token and forget the "
    "token itself"
)

COMPARISONS: Sequence[Comparison] = [
    Comparison("cache", "vst", "keys and values that stay", SHAPES, make, our_kept, their_kept),
    Comparison("cache", "vst", "logits of the question", SHAPES, make, our_logits, their_logits),
    Comparison(
        "cache", "vst", "logits, windows of broken ratio", [(5, 7, 4, 2)], make, our_logits, their_logits, NOT_WHOLE
    ),
    Comparison("cache", "vst", "logits, ratio 1", [(6, 8, 1, 2)], make, our_logits, their_logits, ONE),
]

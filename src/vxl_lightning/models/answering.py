"""One question about one video: the answer, the time it rests on, and what it cost."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vxl_lightning.caches.base import Memory
from vxl_lightning.models import scoring
from vxl_lightning.models.packing import Segment, pack
from vxl_lightning.models.prefix import Prefix, Projected, stretches
from vxl_lightning.models.remembering import check_length, generate, remember
from vxl_lightning.tokens import VideoGrid, VideoTokens

if TYPE_CHECKING:
    from vxl_lightning.models.video_lm import VideoLM

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer.

    Attributes:
        text: the answer.
        scores: log-likelihood of every choice, or None where the answer was generated.
        span: seconds of the group whose tokens the answer depends on most (gradient times input), or
            None where the prefix has no visual token, and behind a cache compressor, which not every gradient passes.
        tokens: what the compressor gave for this video.
        kept: ``[m]`` those of them that reached the language model.
        counts: ``grid_tokens``, ``visual_tokens``, ``text_tokens`` (time, chat and question),
            ``kv_length`` and ``kv_bytes`` when the first answer token is decoded, ``flops`` of the language model's
            prefill by 2 x parameters x tokens.
        milliseconds: wall clock of ``compress``, ``select``, ``read`` where a cache compressor does, ``answer``
            and, apart, the backward pass for ``span``.
    """

    text: str
    scores: dict[str, float] | None
    span: tuple[float, float] | None
    tokens: VideoTokens
    kept: Tensor
    counts: dict[str, int] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)


def answer(
    model: "VideoLM", grid: VideoGrid, question: str, choices: Sequence[str] | None, max_new_tokens: int
) -> Answer:
    """What `VideoLM.answer` does."""
    if grid.shape[0] != 1:
        raise ValueError(f"answer takes one video, got a batch of {grid.shape[0]}; use answers for several")
    spent: dict[str, float] = {}
    shown = grid.frames(0, int(grid.num_frames[0]))
    with torch.no_grad():
        projected = _timed(spent, "compress", lambda: model.project(shown, question))
    return answer_about(model, projected, question, choices, max_new_tokens, spent)


def answer_about(
    model: "VideoLM",
    projected: Projected,
    question: str,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 16,
    spent: dict[str, float] | None = None,
    evidence: bool = True,
) -> Answer:
    """Answer one question about a video that was compressed and projected before, alone in its batch.

    Args:
        spent: milliseconds of the steps before, to be told with the rest.
        evidence: find the span that the answer rests on, which costs a pass and its gradient.
    """
    spent = {} if spent is None else spent
    with torch.no_grad():
        prefix = _timed(spent, "select", lambda: model.prefix(projected, 0, question))
        memory = None
        if (cache := model.cache) is not None:
            memory = _timed(spent, "read", lambda: remember(model, cache, prefix, question))
        check_length(model, len(prefix.embeds) if memory is None else memory.position, question, max_new_tokens)
        scores: dict[str, float] | None = None
        if choices is None:
            text = _timed(spent, "answer", lambda: generated(model, prefix, memory, question, max_new_tokens))
        else:
            scores = found = _timed(spent, "answer", lambda: _scores(model, prefix, memory, question, choices))
            text = max(found, key=lambda choice: found[choice])
    span = None
    if evidence:
        span = _timed(spent, "span", lambda: _evidence(model, projected, prefix, question, text))
    counts = _counts(model, projected, prefix, question, memory)
    return Answer(text, scores, span, projected.tokens, prefix.token, counts, spent)


def _scores(
    model: "VideoLM", prefix: Prefix, memory: Memory | None, question: str, choices: Sequence[str]
) -> dict[str, float]:
    if memory is not None:
        return scoring.scored(model, memory, question, choices)
    found = model.choice_scores([prefix], [[question]], [[choices]])[0][0]
    return dict(zip(choices, found.tolist(), strict=True))


def generated(model: "VideoLM", prefix: Prefix, memory: Memory | None, question: str, max_new_tokens: int) -> str:
    """What a model says by itself, greedily, after a prefix or after what is remembered of it."""
    if memory is not None:
        return model.layout.chat.decode(generate(model, memory, question, max_new_tokens))
    asked: Tensor = model.embedding(model.ids(model.layout.chat.question(question)))
    embeds = torch.cat([prefix.embeds, asked])[None]
    ends = {int(model.tokenizer.eos_token_id), *model.layout.chat.end()[:1]}
    out = model.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=int(model.tokenizer.eos_token_id),
    )
    return model.layout.chat.decode(out[0].tolist())


def _evidence(
    model: "VideoLM", projected: Projected, prefix: Prefix, question: str, text: str
) -> tuple[float, float] | None:
    """Span of the group whose tokens move the answer's likelihood most, by gradient times input."""
    if not len(prefix.place) or not text or model.cache is not None:
        return None
    with torch.enable_grad():
        embeds = prefix.embeds.detach().requires_grad_()
        tree = [
            Segment(embeds, -1),
            Segment(model.ids(model.layout.chat.question(question)), 0),
            Segment(model.ids(model.layout.chat.answer(text)), 1, True),
        ]
        likelihood = model.log_likelihood(pack([tree], model.embedding)).sum()
        (gradient,) = torch.autograd.grad(likelihood, embeds)
    force = (gradient * embeds.detach()).sum(-1).abs()[prefix.place]
    tokens = projected.tokens
    stretch = stretches(tokens.position[prefix.token], model.prompt.frames_per_time)
    total = torch.zeros(int(stretch.max()) + 1, device=force.device).index_add_(0, stretch, force.float())
    best = tokens.span[prefix.token[stretch == total.argmax()]]
    return float(best[:, 0].min()), float(best[:, 1].max())


def _counts(
    model: "VideoLM", projected: Projected, prefix: Prefix, question: str, memory: Memory | None
) -> dict[str, int]:
    length = len(prefix.embeds) + len(model.layout.chat.question(question))
    held = length if memory is None else length - len(prefix.embeds) + len(memory)
    config = model.plain.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_each = 2 * config.num_hidden_layers * heads * size * prefix.embeds.element_size()
    inner = sum(p.numel() for p in model.plain.base_model.parameters()) - sum(
        p.numel() for p in model.embedding.parameters()
    )
    return {
        "grid_tokens": projected.tokens.source[0].numel(),
        "visual_tokens": len(prefix.place),
        "text_tokens": length - len(prefix.place),
        "kv_length": held,
        "kv_bytes": held * bytes_each,
        "flops": 2 * inner * length,
    }


def _timed(spent: dict[str, float], name: str, work: Callable[[], R]) -> R:
    start = time.perf_counter()
    result = work()
    spent[name] = (time.perf_counter() - start) * 1e3
    return result

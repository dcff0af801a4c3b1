"""Questions about a video, asked of a Hugging Face model as it stands, with fewer visual tokens."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vxl_lightning.caches.base import CacheCompressor
from vxl_lightning.caches.forward import cache_name
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.errors import UserError
from vxl_lightning.hub.boundary import Boundary, compressing
from vxl_lightning.hub.family import family_of
from vxl_lightning.hub.processing import Processing
from vxl_lightning.hub.report import Report
from vxl_lightning.hub.vision import Vision, encoded, unseen
from vxl_lightning.models.answering import Answer
from vxl_lightning.selectors.base import Selector
from vxl_lightning.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Look:
    """A video as a model sees it, whatever is asked about it, and whatever stands behind its vision.

    Attributes:
        times: ``[T]`` seconds of its frames.
        text: what stands in a prompt for it.
        tensors: what the model is given beside the prompt; of pixels no more than their shape is left.
        vision: what came out of its vision.
        milliseconds: wall clock of ``prepare``, decoding included where frames were decoded meanwhile, and ``encode``.
    """

    times: Tensor
    text: str
    tensors: Mapping[str, Tensor]
    vision: Vision
    milliseconds: Mapping[str, float]


class HubVideoLM:
    """A model, what makes its inputs, and what stands between its vision and its language.

    Args:
        model: of one of the families of `vxl_lightning.hub.families`, in evaluation mode.
        processing: makes its inputs, see `vxl_lightning.hub.processing`.
        compressor: None keeps every cell.
        selector: keeps frames, or tokens, of what the compressor gives.
        select: how many of them.
        select_share: the same as a share, where ``select`` is 0.
        cache: reads the video inside the language model.
    """

    def __init__(
        self,
        model: Any,
        processing: Processing,
        *,
        compressor: Compressor | None = None,
        selector: Selector | None = None,
        select: int = 0,
        select_share: float = 0.0,
        cache: CacheCompressor | None = None,
    ) -> None:
        self.model, self.processing = model, processing
        self.family = family_of(model.base_model)
        self.text_model = self.family.language_model(model.base_model)
        self.compressor, self.selector, self.cache = compressor, selector, cache
        self.select, self.select_share = select, select_share
        for part in (compressor, selector, cache):
            if isinstance(part, nn.Module):
                part.to(model.device).eval()

    def inputs(self, frames: Tensor, times: Tensor, question: str) -> dict[str, Tensor]:
        """What the model is given: frames as they are, and none left out.

        Args:
            frames: uint8 RGB ``[T, 3, H, W]``.
            times: ``[T]`` ascending seconds.
            question: the user's turn, after the video.
        """
        return self._onto(self.processing([frames], [times], [question]))

    def _onto(self, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same where the model is, pixels in its type."""
        given = {name: tensor.to(self.model.device) for name, tensor in made.items()}
        return {k: v.to(self.model.dtype) if k.startswith("pixel_values") else v for k, v in given.items()}

    def compressing(
        self, times: Sequence[Tensor] | None = None, vision: Vision | None = None
    ) -> AbstractContextManager[Boundary]:
        """`vxl_lightning.hub.compressing` with what this model was put together from."""
        return compressing(
            self.model,
            self.compressor,
            selector=self.selector,
            select=self.select,
            select_share=self.select_share,
            cache=self.cache,
            times=times,
            vision=vision,
        )

    @torch.inference_mode()
    def look(self, frames: Tensor | Iterable[Tensor], times: Tensor) -> Look:
        """See a video once, for any number of questions and any model that shares these weights.

        Args:
            frames: uint8 RGB ``[T, 3, H, W]``, or parts ``[t, 3, H, W]`` of it as they are decoded, which are not held
                together.
            times: ``[T]`` ascending seconds.

        Raises:
            UserError: frames or times that cannot be used.
        """
        start = time.perf_counter()
        parts = map(_checked, [frames] if isinstance(frames, Tensor) else frames)
        if times.ndim != 1 or not len(times) or bool((times[1:] < times[:-1]).any()):
            raise UserError(f"times must be [T] ascending seconds, at least one, got {tuple(times.shape)}")
        video = self.processing.prepared(parts, times)
        tensors = self._onto(self.processing.preparation.joined([video.tensors]))
        prepared = time.perf_counter()
        vision = encoded(self.model.base_model, self.family, tensors)
        if self.model.device.type == "cuda":  # or the first answer would wait for it
            torch.cuda.synchronize(self.model.device)
        spent = {"prepare": (prepared - start) * 1e3, "encode": (time.perf_counter() - prepared) * 1e3}
        return Look(times, video.text, unseen(tensors), vision, spent)

    def answer(
        self,
        frames: Tensor,
        times: Tensor,
        question: str,
        choices: Sequence[str] | None = None,
        max_new_tokens: int = 64,
    ) -> Answer:
        """Answer one question about one video.

        Args:
            frames: uint8 RGB ``[T, 3, H, W]``.
            times: ``[T]`` ascending seconds.
            question: such as "Which shape?".
            choices: allowed answers, of which the likeliest is given; free text by default.
            max_new_tokens: longest free answer.

        Raises:
            UserError: frames, times or choices that cannot be used.
        """
        _different(choices)
        look = self.look(frames, times)
        found = self.answer_about(look, question, choices, max_new_tokens)
        return replace(found, milliseconds={**look.milliseconds, **found.milliseconds})

    @torch.inference_mode()
    def answer_about(
        self, look: Look, question: str, choices: Sequence[str] | None = None, max_new_tokens: int = 64
    ) -> Answer:
        """Answer one question about a video that was looked at.

        Args:
            look: from `look` of this model, or of another with the same weights and processing.
            question: such as "Which shape?".
            choices: allowed answers, of which the likeliest is given; free text by default.
            max_new_tokens: longest free answer.

        Returns:
            With the milliseconds of ``answer``; those of the look are its own.

        Raises:
            UserError: a question or choices that cannot be used, a video that does not suit a method.
        """
        _different(choices)
        start = time.perf_counter()
        given = self._onto(self.processing.prompts([look.text], [question])) | dict(look.tensors)
        shown = [v.size[0] for v in self.family.videos(self.model.base_model, given)]
        if not shown:
            name = self.family.placeholder
            raise UserError(
                f"{name}={getattr(self.model.config, name)} is no token of the prompt; config.json and the tokenizer "
                "must belong together: fetch the whole folder again"
            )
        # A frame of cells may be several of the video; it stands where the first of them does.
        at = look.times[:: -(-len(look.times) // shown[0])][: shown[0]]
        with self.compressing([at] if len(shown) == 1 else None, look.vision) as boundary:
            scores = None
            if choices is None:
                out = self.model.generate(**given, max_new_tokens=max_new_tokens, do_sample=False)
                text = self._decoded(out[0, given["input_ids"].shape[1] :])
            else:
                scores = self._scores(boundary, given, choices)
                text = max(scores, key=lambda choice: scores[choice])
        spent = {"answer": (time.perf_counter() - start) * 1e3}
        assert boundary.last is not None  # there was a video
        return self._answer(boundary.last, text, scores, spent)

    def _scores(self, boundary: Boundary, given: dict[str, Any], choices: Sequence[str]) -> dict[str, float]:
        """Log-likelihood of every choice: the prompt is read once, each choice after it."""
        out = self.model(**given, use_cache=True)
        name = cache_name(type(self.model).forward)
        cache, likely = out[name], out.logits[0, -1].float().log_softmax(-1)
        assert boundary.last is not None
        position = boundary.last.position_ids[..., :1, -1:]
        found = {}
        for choice, ids in zip(choices, self._choice_ids(choices), strict=True):
            score = likely[ids[0, 0]]
            if ids.shape[1] > 1:
                place = position + torch.arange(1, ids.shape[1], device=ids.device)
                said = self.model(input_ids=ids[:, :-1], position_ids=place, use_cache=True, **{name: cache})
                score = score + said.logits[0].float().log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
                cache.crop(1 - ids.shape[1])
            found[choice] = float(score)
        return found

    def _choice_ids(self, choices: Sequence[str]) -> list[Tensor]:
        """``[1, n]`` of every choice, with the end of the answer where one is the beginning of another."""
        words = self.processing.tokenizer
        listed = [words.encode(choice, add_special_tokens=False) for choice in choices]
        if not all(listed):
            raise UserError(f"choices={list(choices)!r}: each must be at least one token; leave out empty ones")
        if any(a != b and b[: len(a)] == a for a in listed for b in listed):
            listed = [[*ids, words.eos_token_id] for ids in listed]
        return [torch.tensor([ids], device=self.model.device) for ids in listed]

    def _decoded(self, ids: Tensor) -> str:
        text: str = self.processing.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def _answer(self, report: Report, text: str, scores: dict[str, float] | None, spent: dict[str, float]) -> Answer:
        config = self.text_model.config
        counts = report.counts
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        table = self.model.get_input_embeddings()
        inner = sum(p.numel() for p in self.text_model.parameters()) - sum(p.numel() for p in table.parameters())
        told = {
            "grid_tokens": counts.grid_tokens[0],
            "visual_tokens": counts.visual_tokens[0],
            "text_tokens": counts.text_tokens[0],
            "kv_length": report.cache_length,
            "kv_bytes": 2 * report.cache_length * config.num_hidden_layers * heads * size * self.model.dtype.itemsize,
            "flops": 2 * inner * counts.sequence_length,
        }
        tokens: VideoTokens = report.tokens[0]
        kept = torch.arange(len(tokens.features), device=tokens.features.device)
        return Answer(text, scores, None, tokens, kept, told, spent)


def _checked(frames: Tensor) -> Tensor:
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8 or not len(frames):
        raise UserError(f"frames must be uint8 RGB [T, 3, H, W], got {frames.dtype} {tuple(frames.shape)}")
    return frames


def _different(choices: Sequence[str] | None) -> None:
    if choices is not None and (not choices or len(set(choices)) != len(choices)):
        raise UserError(f"choices={list(choices)!r} must be different answers, at least one")

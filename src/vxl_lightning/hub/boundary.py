"""Fewer visual tokens between vision and language of a model as it stands: hooks that are gone afterwards."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor
from vxl_lightning.caches.forward import cache_name
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import Family, Video, family_of, with_times
from vxl_lightning.hub.prompt import attended, deepened, fewer, frames, positions, questions
from vxl_lightning.hub.reduce import Reducer
from vxl_lightning.hub.remember import Prompt, Reading, remember
from vxl_lightning.hub.report import Counts, Report
from vxl_lightning.hub.shorten import margins
from vxl_lightning.hub.vision import Vision, watching
from vxl_lightning.selectors.base import Selector

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def compressing(
    model: Any,
    compressor: Compressor | None = None,
    *,
    selector: Selector | None = None,
    select: int = 0,
    select_share: float = 0.0,
    cache: CacheCompressor | None = None,
    times: Sequence[Tensor] | None = None,
    vision: Vision | None = None,
) -> Iterator["Boundary"]:
    """Within this context the language model inside ``model`` reads fewer visual tokens; nothing else changes.

    ``forward`` and ``generate`` are called as always, with what the model's own processor gives. Tokens that are left
    stand at the cell nearest to their centroid and have its position ids; all text, time and newline tokens stay, with
    theirs. A method sees the cells as the language model would: projected, in its own channels. The model is not
    changed; a cache that was filled in the context is of use only in it.

    Args:
        model: a transformers video model of one of the families of `vxl_lightning.hub.families`.
        compressor: built with ``dim`` the hidden size of the language model; None keeps every cell.
        selector: keeps some frames, or tokens, of what the compressor gives; None keeps all.
        select: how many frames (tokens, for a selector of level token) the selector may keep of a video.
        select_share: the same as a share of them, where ``select`` is 0.
        cache: reads each row up to its last visual token, by itself; the model then reads what follows. Logits are of
            what follows alone.
        times: seconds of the frames of every video, ``[T]`` each, for methods that use them; by default as far as the
            inputs tell, or a second apart.
        vision: what the model's vision gave for the videos of every prompt in this context, see
            `vxl_lightning.hub.vision.encoded`; by default it is run.

    Raises:
        UserError: the model is of no such family, or a method cannot work in it.
    """
    core = (model.get_base_model() if hasattr(model, "peft_config") else model).base_model
    family = family_of(core)
    text_model = family.language_model(core)
    reducer = Reducer(compressor, selector, select, select_share, text_model.config.hidden_size)
    boundary = Boundary(core, family, reducer, cache, times)
    with ExitStack() as stack:
        for module, hook in ((core, boundary._look), (text_model, boundary._enter)):
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.enter_context(watching(core, family, boundary._hear, vision))
        yield boundary


@dataclass(frozen=True, eq=False)
class _Laid:
    """What later steps need of a prompt.

    Attributes:
        length: places that it had.
        mask: ``[B, m]`` bool, of the keys that are left of it.
        following: ``[B]`` position of the token after it.
        shift: ``[B]`` by how much what follows stands elsewhere than it would without a cache compressor.
        spatial: positions are of time, height and width.
    """

    length: int
    mask: Tensor
    following: Tensor
    shift: Tensor
    spatial: bool


class Boundary:
    """What stands between vision and language inside `compressing`.

    Attributes:
        last: what happened to the last prompt, or None where it had no video.
    """

    def __init__(
        self, core: Any, family: Family, reducer: Reducer, cache: CacheCompressor | None, times: Sequence[Tensor] | None
    ) -> None:
        self.last: Report | None = None
        self._core, self._family, self._reducer, self._cache, self._times = core, family, reducer, cache, times
        self._text_model = family.language_model(core)
        self._cache_name = cache_name(type(self._text_model).forward)
        self._inputs: dict[str, Any] = {}
        self._heard: dict[str, Any] = {}
        self._laid: WeakKeyDictionary[Any, _Laid] = WeakKeyDictionary()
        self._reading = False

    def announced(self, inputs: Mapping[str, Any]) -> Counts:
        """Lengths of a batch as the processor made it, before any feature is seen.

        What a cache compressor leaves of them is told by its own ``kv_length``.
        """
        return self._counts(self._videos(inputs), attended(inputs.get("attention_mask"), inputs["input_ids"]))

    # --- hooks ------------------------------------------------------------------------------------------------------

    def _look(self, module: Any, given: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the model without its head: what it is given."""
        names = list(inspect.signature(type(module).forward).parameters)[1:]
        self._inputs = dict(zip(names, given, strict=False)) | kwargs

    def _hear(self, told: dict[str, Any]) -> None:
        """Before the vision tower: how large videos are, which ``generate`` does not tell the model later."""
        self._heard |= told

    def _enter(self, module: Any, given: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Before the language model: a prompt is shortened, and what comes later goes on behind it."""
        if self._reading:
            return None
        inputs = self._heard | {name: value for name, value in self._inputs.items() if value is not None}
        self._inputs = {}
        cache = kwargs.get(self._cache_name)
        if cache is not None and cache.get_seq_length():
            return given, kwargs | self._later(kwargs, inputs, cache)
        self._heard, self.last = {}, None
        videos = self._videos(inputs)
        return (given, kwargs | self._prompt(kwargs, inputs["input_ids"], videos)) if videos else None

    # --- a prompt ---------------------------------------------------------------------------------------------------

    def _videos(self, inputs: Mapping[str, Any]) -> list[Video]:
        if inputs.get("input_ids") is None:
            raise UserError("inputs_embeds without input_ids does not tell where a video stands; pass input_ids")
        videos = self._family.videos(self._core, inputs)
        return videos if self._times is None else with_times(videos, self._times, len(inputs["input_ids"]))

    def _counts(self, videos: Sequence[Video], mask: Tensor, left: Sequence[int] | None = None) -> Counts:
        """Lengths of a batch, of whose videos ``left`` is left, or what the method says will be."""
        margin = margins(mask)[1]
        text = (mask.shape[1] - margin).tolist()
        grid, visual, exact = [0] * len(text), [0] * len(text), True
        for i, video in enumerate(videos):
            count, known = self._reducer.announced(video.size) if left is None else (left[i], True)
            grid[video.row] += video.place.numel()
            text[video.row] -= video.place.numel()
            visual[video.row] += count
            exact = exact and known
        return Counts(grid, visual, text, int(margin.min()), exact)

    def _prompt(self, kwargs: Mapping[str, Any], ids: Tensor, videos: Sequence[Video]) -> dict[str, Any]:
        """The language model's arguments, as far as they are new."""
        embeds, mask = kwargs["inputs_embeds"], attended(kwargs.get("attention_mask"), ids)
        position = positions(kwargs.get("position_ids"), mask)
        asked = questions(self._family, self._core, embeds, ids, mask, videos)
        reduced = [self._reducer(embeds[video.row], video, asked[video.row]) for video in videos]
        short = fewer(mask, videos, reduced)
        prompt = Prompt(
            embeds=short.filled(embeds, torch.cat([left.tokens.features for left in reduced])),
            mask=short.mask,
            position=short.take(position),
            visual=short.token >= 0,
            frame=short.take(frames(videos, mask)),
            questions=asked,
            following=position.movedim(-2, 0).flatten(1).amax(1) + 1,
        )
        new: dict[str, Any] = {}
        if kwargs.get("deepstack_visual_embeds") is not None:
            new = deepened(kwargs, short, videos, reduced)
            if self._cache is not None:
                raise UserError(
                    f"cache={type(self._cache).__name__}: this model adds features of its vision tower behind its "
                    "first layers (DeepStack), which no cache compressor reads; choose a compressor or a selector"
                )
        cache = kwargs.get(self._cache_name)
        if cache is None and (self._cache is not None or self._caches(kwargs)):
            from transformers import DynamicCache

            cache = DynamicCache(config=self._text_model.config)
        read = self._read(prompt, cache)
        new |= {"inputs_embeds": read.embeds, "attention_mask": read.mask.long(), "position_ids": read.position}
        if cache is not None:
            shift = read.following - prompt.following
            self._laid[cache] = _Laid(mask.shape[1], read.mask, read.following, shift, position.ndim == 3)
            new[self._cache_name] = cache
        counts = self._counts(videos, mask, [len(left.place) for left in reduced])
        tokens = [left.tokens for left in reduced]
        self.last = Report(counts, tokens, prompt.position, prompt.mask, read.mask.shape[1])
        return new | self._counted(kwargs, read.mask.shape[1], read.embeds.shape[1])

    def _read(self, prompt: Prompt, cache: Any) -> Reading:
        """The whole prompt, or what follows the video where a cache compressor reads that."""
        if self._cache is None:
            return Reading(prompt.embeds, prompt.position, prompt.mask, prompt.following)
        self._reading = True
        try:
            return remember(self._cache, self._text_model, prompt, cache)
        finally:
            self._reading = False

    def _caches(self, kwargs: Mapping[str, Any]) -> bool:
        uses = kwargs.get("use_cache")
        return bool(self._text_model.config.use_cache if uses is None else uses)

    def _counted(self, kwargs: Mapping[str, Any], held: int, fed: int) -> dict[str, Any]:
        """For versions of transformers that still number what is fed to the cache."""
        if kwargs.get("cache_position") is None:
            return {}
        return {"cache_position": torch.arange(held - fed, held, device=kwargs["inputs_embeds"].device)}

    # --- afterwards -------------------------------------------------------------------------------------------------

    def _later(self, kwargs: Mapping[str, Any], inputs: Mapping[str, Any], cache: Any) -> dict[str, Any]:
        """The language model's arguments for what comes after a prompt, as far as they are new."""
        embeds, mask, laid = kwargs["inputs_embeds"], kwargs.get("attention_mask"), self._laid.get(cache)
        held = int(cache.get_seq_length()) + embeds.shape[1]
        pixels = [inputs.get(name) for name in ("pixel_values", "pixel_values_videos")]
        if any(seen is not None for seen in [*pixels, *(inputs.get("mm_encoder_outputs") or {}).values()]):
            raise UserError(
                "pictures or videos after a prompt that is cached already: only what is read at once can be "
                "compressed; pass the whole conversation without a cache"
            )
        if laid is None:
            if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] != held:
                raise UserError(
                    f"attention_mask of length {mask.shape[1]} with a cache of {held} places: this cache was filled in "
                    "another context, and where its tokens stand is not known here; read the prompt again"
                )
            return {}
        new = held - laid.mask.shape[1]
        tail = torch.ones(len(embeds), new, dtype=torch.bool, device=embeds.device)
        if mask is not None:
            if mask.ndim != 2 or mask.shape[1] != laid.length + new:
                raise UserError(
                    f"attention_mask of shape {tuple(mask.shape)} does not go on from a prompt of {laid.length} places "
                    f"with {new} after it; allowed is [batch, {laid.length + new}], of the sequence before compression"
                )
            tail = mask[:, laid.length :].bool()
        told = inputs.get("position_ids")
        if told is not None:  # of the sequence as it was, as generate counts on
            position = positions(told, tail[:, new - embeds.shape[1] :]) + laid.shift[:, None]
        else:  # the model itself would count what is left
            position = laid.following[:, None] + torch.arange(new - embeds.shape[1], new, device=embeds.device)
            position = position.expand(3, *position.shape) if laid.spatial else position
        mask = torch.cat([laid.mask, tail], 1).long()
        return {"attention_mask": mask, "position_ids": position} | self._counted(kwargs, held, embeds.shape[1])

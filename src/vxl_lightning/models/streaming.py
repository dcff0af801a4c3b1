"""A video without end: frames come in as they are shot, questions are answered at any time, memory stays bounded."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheState, Memory, Passage
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.models import scoring
from vxl_lightning.models.prefix import in_order, shortened
from vxl_lightning.models.remembering import check_length, generate, query_of
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid


@dataclass(frozen=True, eq=False)
class StreamAnswer:
    """One answer.

    Attributes:
        text: the answer.
        scores: log-likelihood of every choice, or None where it was generated.
        seconds: time of the last frame that it knows of.
        kv_length: keys of a layer that it attended to, the question's own left out.
    """

    text: str
    scores: dict[str, float] | None
    seconds: float
    kv_length: int


@dataclass(frozen=True, eq=False)
class _Reading:
    """How far a stream has been read; never changed, so that a question can read on for itself.

    Attributes:
        compressor: what the compressor carries on.
        cache: what the language model remembers, or None before the chat's head was read.
        frames: frames that the compressor has consumed.
        times: seconds of frame ``first`` and those after it.
        first: number of the first frame whose stretch is not laid out yet.
        tokens: ``[m, hidden]`` of stretches that are not complete.
        stretch: ``[m]`` theirs.
    """

    compressor: Any = None
    cache: CacheState | None = None
    frames: int = 0
    times: Tensor | None = None
    first: int = 0
    tokens: Tensor | None = None
    stretch: Tensor | None = None


class StreamingVideo:
    """Reads a stream with a causal compressor and a cache compressor, and answers questions about all of it so far.

    What is held is the compressor's state, the last frames added, and what the cache compressor remembers: bounded
    where that is (``quantized`` with a ``store``). A question reads on to the newest frame for itself and leaves the
    stream as it was.

    Args:
        model: with a compressor that has ``step``, a cache compressor, and no selector.
        encoder: for frames; without one, only grids can be added.

    Raises:
        UserError: a model that cannot stream; the message says which part.
    """

    def __init__(self, model: VideoLM, encoder: Encoder | None = None) -> None:
        name = type(model.compressor).__name__
        if not model.compressor.causal or model.compressor.needs_query:
            raise UserError(f"{name} cannot stream: choose a causal compressor that needs no query, such as dts")
        if model.cache is None:
            raise UserError("a stream needs a cache compressor: set cache=quantized, or cache=full to keep everything")
        if model.training:
            raise UserError("a model in training mode answers otherwise every time; call model.eval() first")
        if model.selector is not None:
            raise UserError("a stream has no selector, which needs the whole video; set selector=null")
        self.model = model
        self.encoder = encoder
        self.seconds = float("-inf")
        """Time of the newest frame."""
        self._reading = _Reading()
        # The newest frames wait: the compressor can be told that they are the last ones only while it is given them.
        self._held: VideoGrid | None = None

    def add(self, frames: Tensor, times: Tensor) -> None:
        """Add the next frames.

        Args:
            frames: ``[n, 3, height, width]``, as the encoder takes them.
            times: ``[n]`` seconds since the stream began; float32 tells frames of 30 a second apart for six days.

        Raises:
            UserError: no encoder, or times that do not go on rising.
        """
        if self.encoder is None:
            raise UserError("this stream has no encoder: pass one to StreamingVideo, or add grids with add_grid")
        with torch.no_grad():
            encoded = self.encoder(frames.to(self.model.device))
        side = {} if encoded.importance is None else {"importance": encoded.importance.float()[None]}
        self.add_grid(VideoGrid.of(encoded.features.float()[None], times.float()[None].to(self.model.device), **side))

    def add_grid(self, grid: VideoGrid) -> None:
        """Add the next frames, encoded: a batch of one without padding. What is refused leaves the stream as it was.

        Raises:
            UserError: times that do not go on rising, or a grid that the compressor cannot take.
        """
        compressor = self.model.compressor
        if grid.shape[0] != 1 or not bool(grid.frame_mask.all()) or grid.shape[-1] != compressor.dim:
            raise UserError(
                f"a stream takes one video, frames without padding, of {compressor.dim} channels; got {grid.shape[0]} "
                f"videos of {grid.shape[-1]} channels, {int((~grid.frame_mask).sum())} frames of padding"
            )
        if compressor.needs_importance and grid.importance is None:
            raise UserError(f"{type(compressor).__name__} needs importance; choose an encoder that provides it")
        try:
            grid.check()
        except ValueError as error:  # the frames are refused, and the stream goes on
            raise UserError(str(error)) from None
        times = grid.times[0]
        if float(times[0]) <= self.seconds or bool((times[1:] <= times[:-1]).any()):
            raise UserError(
                f"times must go on rising: the newest frame was at {self.seconds:g} s, "
                f"and these begin at {float(times[0]):g} s"
            )
        if self._held is not None:
            self._reading = self._read(self._reading, self._held, last=False)
        self._held, self.seconds = grid, float(times[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and tokens that are held for the language model."""
        reading = self._reading
        assert self.model.cache is not None
        remembered = 0 if reading.cache is None else self.model.cache.nbytes(reading.cache)
        return remembered + (0 if reading.tokens is None else reading.tokens.nbytes)

    @torch.no_grad()
    def ask(self, question: str, choices: list[str] | None = None, max_new_tokens: int = 16) -> StreamAnswer:
        """Answer a question about everything seen so far.

        Args:
            question: what to ask.
            choices: allowed answers, scored by likelihood; None generates greedily.
            max_new_tokens: longest generated answer.

        Raises:
            UserError: nothing was added yet.
        """
        if self._held is None:
            raise UserError("nothing was seen yet: add frames before asking")
        model = self.model
        assert model.cache is not None
        state = self._read(self._reading, self._held, last=True).cache
        assert state is not None
        query = query_of(model, question) if model.cache.needs_query else None
        memory: Memory = model.cache.recall(model.plain, state, query)
        check_length(model, memory.position, question, max_new_tokens)
        if choices is None:
            text = model.layout.chat.decode(generate(model, memory, question, max_new_tokens))
            return StreamAnswer(text, None, self.seconds, len(memory))
        scores = scoring.scored(model, memory, question, choices)
        return StreamAnswer(max(scores, key=lambda c: scores[c]), scores, self.seconds, len(memory))

    @torch.no_grad()
    def _read(self, reading: _Reading, grid: VideoGrid, last: bool) -> _Reading:
        """Compress frames, lay out the stretches that are complete, and have the language model read them."""
        model, frames = self.model, self.model.prompt.frames_per_time
        tokens, state = model.compressor.step(grid, reading.compressor, last=last)  # type: ignore[operator]
        features = shortened(model.projector(tokens.features), model.silence)
        # The number of frames stays out of the fraction: float32 would lose its places in a long stream.
        stretch = ((tokens.position[:, 0] + reading.frames % frames) / frames).floor().long() + reading.frames // frames
        times = grid.times[0]
        if reading.tokens is not None and reading.stretch is not None and reading.times is not None:
            features, stretch = torch.cat([reading.tokens, features]), torch.cat([reading.stretch, stretch])
            times = torch.cat([reading.times, times])
        consumed = reading.frames + tokens.source.shape[1]
        complete = int(stretch.max()) + 1 if last and len(stretch) else consumed // frames
        in_order(stretch)
        ready = stretch < complete
        passage = self._laid_out(features[ready], stretch[ready], times, reading)
        cache = reading.cache
        if len(passage) or last:
            assert model.cache is not None
            cache = model.cache.read(model.plain, passage, cache, last=last)
        first = max(reading.first, complete * frames)
        return replace(
            reading,
            compressor=state,
            cache=cache,
            frames=consumed,
            times=times[first - reading.first :].clone(),
            first=first,
            tokens=features[~ready],
            stretch=stretch[~ready],
        )

    def _laid_out(self, features: Tensor, stretch: Tensor, times: Tensor, reading: _Reading) -> Passage:
        """Time text and tokens of whole stretches; before the first one the chat's head."""
        layout, embedding = self.model.layout, self.model.embedding
        head = self.model.ids(layout.chat.head if reading.cache is None else [])
        parts = [Passage(embedding(head), head.bool() & False, torch.full_like(head, -1))]
        for number, of_stretch in zip(
            stretch.unique_consecutive().tolist(),
            features.split(stretch.unique_consecutive(return_counts=True)[1].tolist()),
            strict=True,
        ):
            visual = _passage(of_stretch.to(parts[0].embeds.dtype), True, number)
            pieces = [visual]
            if layout.time_text:
                seconds = float(times[number * layout.prompt.frames_per_time - reading.first])
                text = _passage(embedding(layout.time_text.ids(seconds).to(features.device)), False, number)
                pieces = [text, visual] if layout.prompt.time_place == "before" else [visual, text]
            parts += pieces
        return Passage.joined(parts)


def _passage(embeds: Tensor, visual: bool, stretch: int) -> Passage:
    n = len(embeds)
    where = torch.full((n,), stretch, device=embeds.device)
    return Passage(embeds, torch.full((n,), visual, device=embeds.device), where)

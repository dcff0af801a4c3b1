"""What precedes a question: the chat's head, then time text and visual tokens in turn."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vxl_lightning.caches.base import Passage
from vxl_lightning.data.chat import ChatFormat
from vxl_lightning.errors import UserError
from vxl_lightning.models.time_text import SHORT, TimeText
from vxl_lightning.selectors.base import Candidates, Selection, Selector
from vxl_lightning.tokens import VideoTokens

TimePlace = Literal["before", "after"]
Silent = Literal["keep", "drop"]


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a video is laid out for the language model."""

    time_format: str = SHORT
    """Text beside each group's tokens, a format string of the seconds; empty for none. Every token of it costs."""
    time_place: TimePlace = "before"
    """``before`` a group's tokens, as Video-XL-Pro has it, or ``after`` them: a small language model learns to say when
    something was seen in far fewer steps where the time follows it, since copying what follows is what it can do."""
    frames_per_time: int = 4
    """Frames that share one time text."""
    system: str = ""
    """System message."""
    silence: float = 0.0
    """Length that visual tokens lose before they are read, in mean lengths of the language model's embeddings; shorter
    ones fall silent. Tokens aligned in few steps murmur a little of every word, which a language model takes for words.
    A silent token has no gradient: for tuning by answers from scratch leave it at 0."""
    silent: Silent = "keep"
    """What becomes of tokens that fell silent: they ``keep`` their places, as nothing, or are left out (``drop``), and
    with them the time of a group that says nothing. What is left is read in a fraction of the time."""
    select: int = 0
    """What the selector may keep of a video: groups (level frame) or tokens (level token); 0 keeps all."""
    select_share: float = 0.0
    """The same as a share of them, in (0, 1], where ``select`` is 0."""

    def __post_init__(self) -> None:
        if self.time_place not in get_args(TimePlace):
            raise ValueError(f"time_place={self.time_place!r} is not one of {', '.join(get_args(TimePlace))}")
        if self.silent not in get_args(Silent):
            raise ValueError(f"silent={self.silent!r} is not one of {', '.join(get_args(Silent))}")
        if self.frames_per_time < 1 or self.select < 0:
            raise ValueError(
                f"frames_per_time={self.frames_per_time} must be at least 1 and select={self.select} at least 0"
            )
        if not 0 <= self.select_share <= 1:
            raise ValueError(f"select_share={self.select_share} must be a share of at most 1, such as 0.85; 0 is none")
        if self.select and self.select_share:
            raise ValueError(f"select={self.select} and select_share={self.select_share}: give one of them")
        if not (math.isfinite(self.silence) and self.silence >= 0):
            raise ValueError(f"silence={self.silence} must be a finite number, at least 0")


@dataclass(frozen=True, eq=False)
class Projected:
    """A batch of videos ready for the language model.

    Attributes:
        tokens: what the compressor gave.
        features: ``[N, hidden]``, the same tokens projected.
        times: ``[B, T]`` seconds of the source frames.
        silence: length that the features lose when they are laid out, in their own units.
    """

    tokens: VideoTokens
    features: Tensor
    times: Tensor
    silence: float = 0.0


@dataclass(frozen=True, eq=False)
class Prefix:
    """What precedes a question.

    Attributes:
        embeds: ``[n, hidden]``: the chat's head, then time text and visual tokens in turn.
        place: ``[m]`` where the visual tokens stand in it.
        token: ``[m]`` which of the video's tokens they are.
        stretch: ``[n]`` the stretch of frames that each place belongs to, time text included; -1 for the chat's head.
        selection: the selector's choice, where one ran.
    """

    embeds: Tensor
    place: Tensor
    token: Tensor
    stretch: Tensor
    selection: Selection | None = None

    @property
    def passage(self) -> Passage:
        """As a cache compressor reads it.

        Raises:
            UserError: tokens whose stretches are not in the order of time.
        """
        in_order(self.stretch)
        visual = torch.zeros(len(self.embeds), dtype=torch.bool, device=self.embeds.device)
        visual[self.place] = True
        return Passage(self.embeds, visual, self.stretch)


class Layout:
    """Lays out videos for one language model.

    Args:
        tokenizer: of the language model.
        prompt: time text, system message, selection budget.
    """

    def __init__(self, tokenizer: Any, prompt: PromptConfig) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.chat = ChatFormat(tokenizer, prompt.system)
        self.time_text = TimeText(tokenizer, prompt.time_format) if prompt.time_format else None

    def whole(self, projected: Projected, video: int, embedding: nn.Module) -> Prefix:
        """The prefix of one video with all of its tokens; ``embedding`` is the language model's table."""
        return self._lay_out(projected, video, embedding, None, None)

    def budget(self, candidates: int) -> int:
        """What a selector may keep of so many groups or tokens."""
        return self.prompt.select or max(1, int(candidates * self.prompt.select_share))

    def selected(
        self, projected: Projected, video: int, embedding: nn.Module, selector: Selector, question: str
    ) -> Prefix:
        """The prefix of one video with what a selector keeps for one question."""
        begin, end = projected.tokens.offsets[video : video + 2].tolist()
        features = projected.features[begin:end]
        times, counts, text, _ = self._groups(projected, video)
        if len(set(counts)) != 1:
            raise UserError(
                f"selector={type(selector).__name__} needs the same number of tokens in every group of "
                f"{self.prompt.frames_per_time} frames, but this compressor gives {min(counts)} to {max(counts)}; "
                "choose one that works in groups"
            )
        size, device = counts[0], features.device
        candidates = Candidates(
            features=features.unflatten(0, (-1, size)),
            times=torch.tensor(times, device=device),
            time_features=self._time_features(text, embedding, selector, device) if selector.needs_time else None,
        )
        query = embedding(torch.tensor(self.tokenizer.encode(question, add_special_tokens=False), device=device))
        budget = self.budget(len(times) if selector.level == "frame" else len(features))
        selection: Selection = selector(candidates, query, budget)
        index = selection.index
        if selector.level == "frame":
            index = (index[:, None] * size + torch.arange(size, device=device)).flatten()
        keep = torch.zeros(end - begin, dtype=torch.bool, device=device)
        keep[index] = True
        return self._lay_out(projected, video, embedding, keep, selection)

    def _time_features(
        self, text: list[Tensor], embedding: nn.Module, selector: Selector, device: torch.device
    ) -> Tensor:
        if len({len(ids) for ids in text}) != 1 or not len(text[0]):
            raise UserError(
                f"selector={type(selector).__name__} reads the time text, which must have the same number of tokens "
                f"at all times; time_format={self.prompt.time_format!r} does not: pad it, e.g. 'Time {{:06.1f}}s:'"
            )
        features: Tensor = embedding(torch.stack(text).to(device))
        return features

    def _groups(self, projected: Projected, video: int) -> tuple[list[float], list[int], list[Tensor], list[int]]:
        """Runs of tokens from the same stretch of ``frames_per_time`` frames: time, number of tokens, time text, and
        which stretch it is."""
        begin, end = projected.tokens.offsets[video : video + 2].tolist()
        stretch = stretches(projected.tokens.position[begin:end], self.prompt.frames_per_time)
        which, counts = torch.unique_consecutive(stretch, return_counts=True)
        times = projected.times[video, which * self.prompt.frames_per_time].tolist()
        nothing = torch.zeros(0, dtype=torch.long)
        text = [self.time_text.ids(t) if self.time_text else nothing for t in times]
        return times, counts.tolist(), text, which.tolist()

    def _lay_out(
        self, projected: Projected, video: int, embedding: nn.Module, keep: Tensor | None, selection: Selection | None
    ) -> Prefix:
        begin, end = projected.tokens.offsets[video : video + 2].tolist()
        features = shortened(projected.features[begin:end], projected.silence)
        _, counts, text, numbers = self._groups(projected, video)
        kept = torch.ones(end - begin, dtype=torch.bool) if keep is None else keep.cpu()
        if projected.silence and self.prompt.silent == "drop":
            kept = kept & features.detach().any(-1).cpu()
        ids: list[int] = list(self.chat.head)
        place: list[int] = []
        belongs = [-1] * len(ids)
        for group, stretch in enumerate(kept.split(counts)):
            n = int(stretch.sum())
            if n == 0:  # a time without tokens tells nothing and costs
                continue
            before, after = (
                (text[group].tolist(), []) if self.prompt.time_place == "before" else ([], text[group].tolist())
            )
            ids.extend(before)
            place.extend(range(len(ids), len(ids) + n))
            ids.extend([0] * n)
            ids.extend(after)
            belongs.extend([numbers[group]] * (len(ids) - len(belongs)))
        token = kept.nonzero()[:, 0].to(features.device)
        where = torch.tensor(place, dtype=torch.long, device=features.device)
        embeds: Tensor = embedding(torch.tensor(ids, device=features.device))
        embeds = embeds.index_copy(0, where, features[token].to(embeds.dtype))
        return Prefix(embeds, where, token, torch.tensor(belongs, device=features.device), selection)


def in_order(stretch: Tensor) -> None:
    """What a cache compressor reads comes stretch by stretch.

    Raises:
        UserError: it does not.
    """
    if bool((stretch[1:] < stretch[:-1]).any()):
        raise UserError(
            "the compressor gives tokens of one of its groups that go back in time by more than a stretch, which no "
            "cache reads; set prompt.frames_per_time to a multiple of the compressor's group of frames"
        )


def shortened(features: Tensor, by: float) -> Tensor:
    """``[N, D]`` vectors made shorter by a length, those not as long made zero: x * max(0, 1 - by / |x|).

    The proximal operator of the group lasso (Yuan & Lin 2006): what is left of an estimate under the belief that most
    tokens say nothing.
    """
    if by == 0:
        return features
    length = features.float().norm(dim=-1, keepdim=True).clamp(min=1e-6)
    left: Tensor = features * (1 - by / length).clamp(min=0).to(features.dtype)
    return left


def stretches(position: Tensor, frames: int) -> Tensor:
    """``[N]`` which stretch of ``frames`` frames each token, at ``position [N, 3]``, belongs to."""
    return (position[:, 0] / frames).floor().long()

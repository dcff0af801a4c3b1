"""Visual summarisation tokens: a window of tokens leaves the keys and values of a few learned tokens, and no others."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape, Memory, Passage, finished
from vxl_lightning.caches.forward import attentions, forward, turned

Windows = Literal["fixed", "dynamic"]


class VisualSummarization(CacheCompressor):
    """Video-XL's visual summarisation tokens (VST).

    The visual tokens of a window are interleaved with one VST after every ``1 / retention`` of them. A VST has query,
    key and value projections of its own in every layer, which begin as copies of the language model's and are what is
    trained, and one embedding. A window attends to what is remembered and, causally, to itself; when it has been
    read, the keys and values of its visual tokens are forgotten, and those of its VSTs and of its text (time text, the
    chat's head) stay. What stays takes consecutive positions, keys turned to them, so that a video of any length is
    read within the positions that the language model was trained on.

    Follows Shu et al., "Video-XL" (CVPR 2025, arXiv 2409.14485, section 3.2) and its release (Apache-2.0, read, not
    copied). There a window is 1,440 tokens, ten frames; here ``window`` counts stretches of frames (those that share a
    time text), so that none is cut. The ratios of a training run are drawn a step (``ratios``), as in the release;
    evaluation uses ``retention``. The paper's dynamic windows, which its release does not hold, are
    ``windows="dynamic"``: a window ends where what is shown changes most (`depths`). Text stays as it is, which the
    original has none of among its visual tokens. With ``retention=1`` nothing is inserted and nothing forgotten.
    """

    trainable = True
    origin = "Video-XL (arXiv 2409.14485; VectorSpaceLab/Video-XL, Apache-2.0); written from the paper"

    @dataclass(frozen=True, kw_only=True)
    class Config(CacheCompressor.Config):
        window: int = 10
        """Stretches of frames of one window; the most where windows are dynamic."""
        windows: Windows = "fixed"
        """``fixed``, or ``dynamic``: windows end where neighbouring stretches are least alike."""
        least: int = 2
        """Fewest stretches of a dynamic window."""
        ratios: list[int] = field(default_factory=list)
        """Compression ratios of which every training step draws one, such as [2, 4, 8]; empty trains at ``retention``
        alone."""
        seed: int = 0
        """Of the draws; which step it is, a checkpoint knows."""

        def __post_init__(self) -> None:
            super().__post_init__()
            ratio = 1 / self.retention
            if abs(ratio - round(ratio)) > 1e-6:
                raise ValueError(
                    f"retention={self.retention}: one token stands for a whole number of others; nearest that do: "
                    f"{1 / (int(ratio) + 1):.6g} and {1 / int(ratio):.6g}"
                )
            if self.window < 1:
                raise ValueError(f"window={self.window} must be at least 1")
            if self.windows == "dynamic" and not 1 <= self.least <= self.window:
                raise ValueError(f"least={self.least} and window={self.window}: 1 <= least <= window is needed")
            if self.windows not in get_args(Windows):
                raise ValueError(f"windows={self.windows!r} is not one of {', '.join(get_args(Windows))}")
            if any(r < 2 for r in self.ratios):
                raise ValueError(f"ratios={self.ratios}: each must be at least 2")

    config: Config
    steps: Tensor

    def __init__(self, config: Config, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        sizes = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
        # What a VST asks for in the last layer reaches nothing: its output is not read, and its key and value are made.
        self.projections = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Linear(shape.hidden, n * shape.head_dim, bias=shape.bias)
                    for name, n in sizes.items()
                    if name != "q" or layer < shape.layers - 1
                }
            )
            for layer in range(shape.layers)
        )
        self.token = nn.Parameter(torch.zeros(shape.hidden))
        # Training steps so far: a resumed run draws the ratios that the uninterrupted one would have drawn.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def start_from(self, model: Any) -> None:
        """Projections as the language model's, the token as its mean embedding."""
        with torch.no_grad():
            for own, attention in zip(self.projections, attentions(model), strict=True):
                for name, projection in own.items():  # type: ignore[operator]
                    theirs = getattr(attention, f"{name}_proj")
                    theirs = getattr(theirs, "base_layer", theirs)  # under LoRA
                    projection.load_state_dict(theirs.state_dict())
            self.token.copy_(model.get_input_embeddings().weight.float().mean(0))

    def kv_length(self, passage: Passage) -> int:
        text = int((~passage.visual).sum())
        if self.config.windows == "dynamic":
            raise ValueError(
                "windows=dynamic: how many tokens stay depends on what is shown; it is known after reading"
            )
        ratio = round(1 / self.config.retention)
        starts = _starts(passage.stretch, self.config.window)
        return text + sum(-(-int(part.sum()) // ratio) for part in _split(passage.visual, starts))

    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        self.check(passage)
        state = state or CacheState(extra={"ratio": self._ratio()})
        ratio: int = state.extra["ratio"]
        waiting = passage if state.pending is None else Passage.joined([state.pending, passage])
        memory, begin = state.memory, 0
        ends = self._ends(waiting, last)
        for end in ends:
            memory = self._window(model, waiting.part(begin, end), memory, ratio)
            begin = end
        rest = waiting.part(begin, len(waiting))
        return CacheState(memory, rest, state.visual + int(passage.visual.sum()), state.extra)

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        return finished(state, "vst")

    def _ratio(self) -> int:
        """Visual tokens a VST, for one prompt."""
        if not (self.training and self.config.ratios):
            return round(1 / self.config.retention)
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + int(self.steps))
        self.steps += 1
        return int(self.config.ratios[int(torch.randint(len(self.config.ratios), (), generator=draw))])

    def _ends(self, passage: Passage, last: bool) -> list[int]:
        """Where the windows end that can be read now; the head is read with the first one."""
        stretch = passage.stretch
        if not len(stretch):
            return []
        if self.config.windows == "fixed":
            starts = _starts(stretch, self.config.window)
        else:
            starts = _dynamic(passage, self.config.least, self.config.window)
        # The last window may go on in the next part.
        return [*starts[1:], len(stretch)] if last else starts[1:]

    def _window(self, model: Any, window: Passage, memory: Memory | None, ratio: int) -> Memory:
        """Read one window and give the memory with what it leaves."""
        begin = 0 if memory is None else len(memory)
        device = window.embeds.device
        if ratio == 1:
            position = torch.arange(begin, begin + len(window), device=device)
            _, new = forward(model, window.embeds, memory, position)
            return new if memory is None else Memory.joined([memory, new], new.position)
        embeds, summary, stays = self._interleaved(window, ratio)
        position = torch.arange(begin, begin + len(embeds), device=device)
        with self._own_projections(model, summary):
            _, new = forward(model, embeds, memory, position)
        kept = new.take(stays)
        moved = torch.arange(begin, begin + len(stays), device=device) - position[stays]
        kept = Memory(turned(model, kept.keys, moved), kept.values, begin + len(stays))
        return kept if memory is None else Memory.joined([memory, kept], kept.position)

    def _interleaved(self, window: Passage, ratio: int) -> tuple[Tensor, Tensor, Tensor]:
        """A VST after every ``ratio`` visual tokens and after the last one.

        Returns:
            ``[m, hidden]`` embeddings, ``[s]`` places of the VSTs, and ``[k]`` places that stay: VSTs and text.
        """
        count = window.visual.cumsum(0)
        after = window.visual & ((count % ratio == 0) | (count == count[-1]))
        # A place moves on by the VSTs before it; a VST stands right behind the place it comes after.
        place = torch.arange(len(window), device=count.device) + after.cumsum(0) - after.long()
        summary = place[after] + 1
        embeds = window.embeds.new_zeros(len(window) + len(summary), window.embeds.shape[1])
        embeds = embeds.index_copy(0, place, window.embeds)
        embeds = embeds.index_copy(0, summary, self.token.to(embeds.dtype).expand(len(summary), -1))
        stays = torch.cat([place[~window.visual], summary]).sort().values
        return embeds, summary, stays

    @contextmanager
    def _own_projections(self, model: Any, summary: Tensor) -> Iterator[None]:
        """In this pass the places ``summary`` are projected by the VSTs' own weights."""
        with ExitStack() as stack:
            for own, attention in zip(self.projections, attentions(model), strict=True):
                for name, projection in own.items():  # type: ignore[operator]

                    def replaced(_m: Any, given: Any, out: Tensor, projection: nn.Module = projection) -> Tensor:
                        return out.index_copy(1, summary, projection(given[0][:, summary]).to(out.dtype))

                    hook = getattr(attention, f"{name}_proj").register_forward_hook(replaced)
                    stack.callback(hook.remove)
            yield

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 2, "window": 2}, {"retention": 1 / 4, "window": 3}]


def _starts(stretch: Tensor, window: int) -> list[int]:
    """Where each window of ``window`` stretches begins; the head belongs to the first."""
    number = stretch.clamp(min=0) // window
    change = (number[1:] != number[:-1]).nonzero()[:, 0] + 1
    return [0, *change.tolist()] if len(stretch) else []


def _split(x: Tensor, starts: list[int]) -> list[Tensor]:
    return [x[a:b] for a, b in zip(starts, [*starts[1:], len(x)], strict=True)]


def depths(similarity: Tensor) -> Tensor:
    """``[S - 1]`` how deep each similarity between neighbours lies below the peaks on both of its sides.

    The depth score of TextTiling (Hearst 1997), which Video-XL's paper names for its windows.
    """
    left = similarity.cummax(0).values
    right = similarity.flip(0).cummax(0).values.flip(0)
    return (left - similarity) + (right - similarity)


def _dynamic(passage: Passage, least: int, most: int) -> list[int]:
    """Where windows of ``least`` to ``most`` stretches begin: each at the deepest change that its limits allow.

    A window's end depends on the stretches up to the most it may hold, so a video cut into parts has the same windows.
    """
    numbers = passage.stretch[passage.stretch >= 0].unique_consecutive()
    if not len(numbers):
        return [0]
    means = torch.stack(
        [passage.embeds[(passage.stretch == n) & passage.visual].float().mean(0) for n in numbers]
    ).nan_to_num(0.0)
    begin, starts = 0, [0]
    while len(numbers) - begin > most:
        here = F.cosine_similarity(means[begin : begin + most], means[begin + 1 : begin + most + 1], dim=-1)
        size = least + int(depths(here)[least - 1 :].round(decimals=5).argmax())
        begin += size
        starts.append(int((passage.stretch == numbers[begin]).nonzero()[0, 0]))
    return starts

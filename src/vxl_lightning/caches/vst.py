"""Visual summarisation tokens: a window of tokens leaves the keys and values of a few learned tokens, and no others."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape
from vxl_lightning.caches.forward import attentions, extended, forward, turned
from vxl_lightning.caches.memory import Memory, Passage, ends, sizes

Windows = Literal["fixed", "dynamic"]


@dataclass(frozen=True, eq=False)
class WindowedState(CacheState):
    """Attribute ratio: visual tokens that one VST of this prompt stands for."""

    ratio: int = 1


class VisualSummarization(CacheCompressor):
    """Video-XL's visual summarisation tokens (VST).

    The visual tokens of a window are interleaved with one VST after every ``1 / retention`` of them. A VST has query,
    key and value projections of its own in every layer, which begin as copies of the language model's and are what is
    trained, and one embedding. A window attends to what is remembered and, causally, to itself; when it has been
    read, the keys and values of its visual tokens are forgotten, and those of its VSTs and of its text (time text, the
    chat's head) stay. What stays takes consecutive positions, keys turned to them: positions grow with what is
    remembered (text, and ``retention`` of the visual tokens), by that much slower than the video, and a window is read
    right behind it. A video fits where this, one window with its VSTs, and the question lie within the positions that
    the language model was trained on.

    Follows Shu et al., "Video-XL" (CVPR 2025, arXiv 2409.14485, section 3.2) and its release (Apache-2.0, read, not
    copied). There a window is 1,440 tokens, ten frames; here ``window`` counts stretches of frames (those that share a
    time text), so that none is cut. ``ratios`` are drawn for every prompt in training, where the release draws one for
    every window; evaluation uses ``retention``. Where a window's tokens are no multiple of the ratio, those left at its
    end have a VST of their own; the release, whose windows are multiples, would forget them unread. A VST's embedding
    begins as the mean of all embeddings, there as that of the token that ends a text. The paper's dynamic windows,
    which its release does not hold, are ``windows="dynamic"``: a window ends where what is shown changes most
    (`depths`). Text stays as it is, which the original has none of among its visual tokens. In the last layer a VST has
    no query of its own: nothing reads what it would ask for. With ``retention=1`` nothing is inserted and nothing
    forgotten; unless there are ``ratios`` to train at, it then has no weights and is not ``trainable``.
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
        """Compression ratios of which every prompt draws one in training, such as [2, 4, 8]; empty trains at
        ``retention`` alone."""
        seed: int = 0
        """Of the draws; how many there were, a checkpoint knows."""

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
    drawn: Tensor

    def __init__(self, config: Config, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.budget = "exact" if config.windows == "fixed" else "bound"  # type: ignore[misc]
        if round(1 / config.retention) == 1 and not config.ratios:
            # Nothing is inserted, ever: weights would wait for gradients that do not come.
            self.trainable = False  # type: ignore[misc]
        heads = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
        # What a VST asks for in the last layer, nothing reads: it has no query there.
        self.projections = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Linear(shape.hidden, n * shape.head_dim, bias=shape.bias)
                    for name, n in heads.items()
                    if name != "q" or layer < shape.layers - 1
                }
            )
            for layer in range(shape.layers if self.trainable else 0)
        )
        if self.trainable:
            self.token = nn.Parameter(torch.zeros(shape.hidden))
        # Draws so far: a resumed run draws the ratios that the uninterrupted one would have drawn.
        self.register_buffer("drawn", torch.zeros((), dtype=torch.long))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not self.trainable:  # of a checkpoint trained at another retention, it needs no weight
            for key in [k for k in state_dict if k.startswith((f"{prefix}projections.", f"{prefix}token"))]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _pairs(self, model: Any) -> Iterator[tuple[nn.Linear, Any]]:
        """Each projection of the VSTs with the language model's."""
        for own, attention in zip(self.projections, attentions(model), strict=True):
            for name, projection in cast(nn.ModuleDict, own).items():
                yield cast(nn.Linear, projection), getattr(attention, f"{name}_proj")

    def start_from(self, model: Any) -> None:
        """Projections as what the language model computes, LoRA included, the token as its mean embedding.

        Raises:
            ValueError: an adapter is no plain LoRA.
        """
        if not self.trainable:
            return
        with torch.no_grad():
            for own, theirs in self._pairs(model):
                own.load_state_dict(getattr(theirs, "base_layer", theirs).state_dict())
                own.weight += adapted(theirs).to(own.weight)
            self.token.copy_(model.get_input_embeddings().weight.float().mean(0))

    def kv_length(self, passage: Passage) -> int:
        ratio, longest = round(1 / self.config.retention), self.config.window
        fixed = self.config.windows == "fixed"
        parts = passage.visual.split(sizes(passage.starts(longest if fixed else 1), len(passage)))
        visual = [int(part.sum()) for part in parts]
        if fixed:
            summaries = sum(-(-n // ratio) for n in visual)
        else:
            head = int((passage.stretch[:1] < 0).sum())  # a window of its own
            summaries = most(visual[head:], self.config.least, longest, ratio)
        return int((~passage.visual).sum()) + summaries

    def start(self) -> WindowedState:
        return WindowedState(ratio=self._ratio())

    def _ratio(self) -> int:
        """Visual tokens a VST, for one prompt."""
        if not (self.training and self.config.ratios):
            return round(1 / self.config.retention)
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + int(self.drawn))
        self.drawn += 1
        return int(self.config.ratios[int(torch.randint(len(self.config.ratios), (), generator=draw))])

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        fixed = self.config.windows == "fixed"
        # The last window, and the last stretch, may go on in the next part.
        starts = waiting.starts(self.config.window) if fixed else self._dynamic(waiting, last)
        return ends(starts, len(waiting), last)

    def _dynamic(self, waiting: Passage, last: bool) -> list[int]:
        """Where windows of ``least`` to ``window`` stretches begin: each at the deepest change that its limits allow.

        A window's end depends on the stretches up to the most it may hold, and they must be complete: so a video cut
        into parts has the same windows.
        """
        least, longest = self.config.least, self.config.window
        starts = waiting.starts(1)
        lengths = sizes(starts, len(waiting))
        parts = zip(waiting.embeds.detach().float().split(lengths), waiting.visual.split(lengths), strict=True)
        means = [embeds[visual].sum(0) for embeds, visual in parts]  # as far as their direction goes
        begin = int((waiting.stretch[:1] < 0).sum())  # the head is a window of its own
        found, complete = starts[: begin + 1], len(starts) - (not last)
        while complete - begin > longest:
            near = torch.stack(means[begin : begin + longest + 1])
            depth = depths(F.cosine_similarity(near[:-1], near[1:], dim=-1)).round(decimals=5)
            begin += least + int(depth[least - 1 :].argmax())
            found.append(starts[begin])
        return found

    def read_window(self, model: Any, window: Passage, state: WindowedState) -> WindowedState:
        if state.ratio == 1:
            return replace(state, memory=extended(model, window.embeds, state.memory))
        begin = 0 if state.memory is None else len(state.memory)
        device = window.embeds.device
        embeds, summary, stays = self._interleaved(window, state.ratio)
        position = torch.arange(begin, begin + len(embeds), device=device)
        with self._own_projections(model, summary):
            _, new = forward(model, embeds, state.memory, position)
        kept = new.take(stays)
        moved = torch.arange(begin, begin + len(stays), device=device) - position[stays]
        kept = Memory(turned(model, kept.keys, moved), kept.values, begin + len(stays))
        memory = kept if state.memory is None else Memory.joined([state.memory, kept], kept.position)
        return replace(state, memory=memory)

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
            for own, theirs in self._pairs(model):

                def replaced(_m: Any, given: Any, out: Tensor, own: nn.Linear = own) -> Tensor:
                    at_summary = own(given[0][:, summary].to(own.weight.dtype))
                    return out.index_copy(1, summary, at_summary.to(out.dtype))

                stack.callback(theirs.register_forward_hook(replaced).remove)
            yield

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 2, "window": 2},
            {"retention": 1 / 4, "window": 3},
            {"retention": 1 / 4, "window": 4, "least": 2, "windows": "dynamic"},
            {"retention": 1.0, "window": 2},
        ]


def adapted(projection: Any) -> Tensor:
    """What the adapters in use add to the weight of a projection; 0 without any.

    Raises:
        ValueError: an adapter is no plain LoRA.
    """
    added = torch.zeros(())
    if not hasattr(projection, "base_layer") or projection.disable_adapters or projection.merged:
        return added  # what is merged is in the layer under the adapter already
    for name in projection.active_adapters:
        if name in getattr(projection, "lora_A", {}):
            if name in projection.lora_variant or projection.lora_bias[name]:
                raise ValueError(_PLAIN.format(name))
            added = projection.get_delta_weight(name).float() + added.to(projection.weight.device)
        elif any(name in getattr(projection, layer) for layer in projection.adapter_layer_names):
            raise ValueError(_PLAIN.format(name))
    return added


_PLAIN = (
    "the adapter {!r} adds other than a plain LoRA does (no DoRA, no lora_bias, no other method), so summary tokens "
    "cannot begin from it; merge it into the language model first (merge_and_unload)"
)


def depths(similarity: Tensor) -> Tensor:
    """``[S - 1]`` how deep each similarity between neighbours lies below the peaks on both of its sides.

    The depth score of TextTiling (Hearst 1997), which Video-XL's paper names for its windows.
    """
    left = similarity.cummax(0).values
    right = similarity.flip(0).cummax(0).values.flip(0)
    return (left - similarity) + (right - similarity)


def most(visual: list[int], least: int, longest: int, ratio: int) -> int:
    """The most summary tokens that any windows of ``least`` to ``longest`` stretches come to.

    Args:
        visual: tokens of every stretch.
        least: stretches of a window.
        longest: likewise; what is left at the end and no longer than this is one window.
        ratio: visual tokens a summary token.
    """
    best = [0] * (len(visual) + 1)
    for begin in reversed(range(len(visual))):
        left = len(visual) - begin
        cuts = [left] if left <= longest else range(least, longest + 1)
        best[begin] = max(-(-sum(visual[begin : begin + n]) // ratio) + best[begin + n] for n in cuts)
    return best[0]

"""Video-XL-Pro as its authors released it, stage by stage.

grid -> DTS tokens -> projected and pooled -> time text interleaved -> scores -> selected sequence -> language model.
Each stage can be called alone: `DynamicTokenSynthesizer`, `VideoXLPro.project`, `ReleasedLayout.interleaved`,
`ReleasedLayout.query` with `QueryAwareSelector`, `ReleasedLayout.selected`, `VideoLM.hidden`.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.compressors.dts import DynamicTokenSynthesizer
from vxl_lightning.compressors.released import GROUP_FRAMES
from vxl_lightning.errors import UserError
from vxl_lightning.models.prefix import Layout, Prefix, Projected, PromptConfig
from vxl_lightning.models.time_text import RELEASED
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.selectors.base import Candidates, Selection, Selector
from vxl_lightning.selectors.query_aware import QueryAwareSelector
from vxl_lightning.tokens import VideoGrid, VideoTokens

KEEP = 0.85
"""Share of the visual tokens that is kept; the release draws one from 0.7 to 0.99 at every call."""
DTS_RETENTION = 1 / GROUP_FRAMES
ROUND_TO = 16
ROTARY_BASE = 1e6
GROUPS_AT_ONCE = 64
"""Groups projected together: before the pooling there are four times as many tokens as the language model reads."""
SYSTEM = "You are a helpful assistant."
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def released_prompt(keep: float = KEEP) -> PromptConfig:
    """The prompt of the release, with ``keep`` of the visual tokens."""
    return PromptConfig(time_format=RELEASED, frames_per_time=GROUP_FRAMES, system=SYSTEM, select_share=keep)


def released_parts(pad: str = "last") -> dict[str, dict[str, Any]]:
    """Specifications of the released compressor and selector, for a `VideoLMConfig`."""
    return {
        "compressor": {"name": "dts", "retention": DTS_RETENTION, "released": True, "pad": pad},
        "selector": {"name": "query_aware", "released": True},
    }


def pooled(features: Tensor, rows: int, cols: int) -> Tensor:
    """2x2 mean: ``[G * rows * cols, D]``, row by row, to ``[G * rows * cols / 4, D]``."""
    blocks = features.view(-1, rows // 2, 2, cols // 2, 2, features.shape[-1])
    return blocks.mean((2, 4)).flatten(0, 2)


def pooled_source(source: Tensor, rows: int, cols: int) -> Tensor:
    """The token that carries each cell once tokens of ``rows x cols`` a group are pooled 2x2; -1 stays."""
    group, row, col = source // (rows * cols), source % (rows * cols) // cols, source % cols
    new = group * (rows * cols // 4) + row // 2 * (cols // 2) + col // 2
    return torch.where(source >= 0, new, source)


def rotated(sequence: Tensor) -> Tensor:
    """Rotary embedding of ``[n, D]`` by place, neighbouring channels a pair, over the whole width.

    The angles are taken in float32, as the release takes them: at places in the hundred thousands their rounding is
    no longer small, and the released weights saw it.
    """
    n, dim = sequence.shape
    channel = torch.arange(0, dim, 2, dtype=torch.float32)
    turn = torch.exp(channel * -(math.log(ROTARY_BASE) / dim)).to(sequence.device)
    angle = torch.arange(n, dtype=torch.float32, device=sequence.device)[:, None] * turn
    even, odd = sequence.float().unflatten(-1, (-1, 2)).unbind(-1)
    sin, cos = angle.sin(), angle.cos()
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1)
    return pairs.flatten(-2).to(sequence.dtype)


@dataclass(frozen=True, eq=False)
class Interleaved:
    """One video between its times, before anything is dropped.

    Attributes:
        sequence: ``[G * (M + K), hidden]``: of every group the M tokens of its time, then its K visual tokens.
        visual: ``[G * (M + K)]`` bool, where the visual tokens stand.
        candidates: the same for the selector, time apart.
    """

    sequence: Tensor
    visual: Tensor
    candidates: Candidates


class ReleasedLayout(Layout):
    """Lays out a video as the release does.

    Differences from `Layout`: all time texts stay, also of groups that lose every visual token; the sequence is rotated
    by place before tokens are dropped; a visual token's score is added to all of its channels; the selector is
    asked with everything the prompt holds but the video; and the number kept is rounded down to a multiple of 16
    (never below 16 where there are as many, where the release would keep none).
    """

    def __init__(self, tokenizer: Any, prompt: PromptConfig) -> None:
        # The release writes its prompt itself, whatever template its tokenizer brings.
        tokenizer.chat_template = CHATML
        super().__init__(tokenizer, prompt)

    def budget(self, candidates: int) -> int:
        kept = super().budget(candidates)
        return kept - kept % ROUND_TO or min(candidates, ROUND_TO)

    def query(self, question: str, embedding: nn.Module, device: torch.device) -> Tensor:
        """``[Q, hidden]``: the whole prompt but the video, embedded."""
        embedded: Tensor = embedding(torch.tensor(self.chat.head + self.chat.question(question), device=device))
        return embedded

    def interleaved(self, projected: Projected, video: int, embedding: nn.Module, selector: Selector) -> Interleaved:
        """The time of each group's first frame, as text, in front of its visual tokens."""
        begin, end = projected.tokens.offsets[video : video + 2].tolist()
        features = projected.features[begin:end]
        # By count and not by position: copies that complete the last group may move frames between groups.
        frames = int((projected.tokens.source[video] >= 0).any(-1).any(-1).sum())
        times = projected.times[video, :frames:GROUP_FRAMES]
        assert self.time_text is not None, "released_prompt() has a time_format"
        text = [self.time_text.ids(t) for t in times.tolist()]
        time = self._time_features(text, embedding, selector, features.device)
        visual = features.unflatten(0, (len(times), -1)).to(time.dtype)
        sequence = torch.cat([time, visual], 1)
        place = torch.arange(sequence.shape[1], device=features.device) >= time.shape[1]
        return Interleaved(
            sequence.flatten(0, 1), place.expand(len(times), -1).flatten(), Candidates(visual, times, time)
        )

    def selected(
        self, projected: Projected, video: int, embedding: nn.Module, selector: Selector, question: str
    ) -> Prefix:
        whole = self.interleaved(projected, video, embedding, selector)
        device = whole.sequence.device
        query = self.query(question, embedding, device)
        selection: Selection = selector(whole.candidates, query, self.budget(int(whole.visual.sum())))
        sequence, keep = self.scored(whole, selection)
        head: Tensor = embedding(torch.tensor(self.chat.head, device=device))
        place = len(head) + whole.visual[keep].nonzero()[:, 0]
        return Prefix(torch.cat([head, sequence[keep]]), place, selection.index, selection)

    def scored(self, whole: Interleaved, selection: Selection) -> tuple[Tensor, Tensor]:
        """The sequence rotated, with scores added to its visual tokens, and ``[n]`` bool: what is kept of it."""
        scores = selection.scores.new_zeros(len(whole.sequence)).masked_scatter(whole.visual, selection.scores)
        sequence = rotated(whole.sequence)
        keep = ~whole.visual
        keep[whole.visual.nonzero()[selection.index, 0]] = True
        return sequence + scores.to(sequence.dtype)[:, None], keep


class VideoXLPro(VideoLM):
    """The released model, arXiv 2503.18478, from VectorSpaceLab/Video-XL (Apache-2.0), written from a description.

    A quarter of the grid's cells leave the compressor; 2x2 pooling behind the projector leaves a sixteenth, of which
    ``prompt.select_share`` reach the language model. Differences from the release: that share is a setting and not
    drawn at every call; the frames that complete the last group follow from their number (``pad``) and are not drawn;
    equal scores are decided for the earliest token; while tuning, the selector is asked with the question, where the
    release's also reads the answer; a still image is a video of one frame, where the release leaves it unpooled; and
    frames are resized while they are decoded, bilinearly, where the release takes bicubic.

    Args:
        parts: what `VideoLM` takes; the compressor and the selector must be the released ones.
    """

    layout_class: ClassVar[type[Layout]] = ReleasedLayout
    compressor: DynamicTokenSynthesizer

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        compressor, selector = self.compressor.config, getattr(self.selector, "config", None)
        if not (getattr(compressor, "released", False) and compressor.retention == DTS_RETENTION):
            raise UserError(
                f"released=true needs the compressor {released_parts()['compressor']}, which the release pools behind "
                f"the projector; this one is {type(self.compressor).__name__} at retention={compressor.retention}"
            )
        if not (isinstance(self.selector, QueryAwareSelector) and selector and selector.released):
            raise UserError(f"released=true needs the selector {released_parts()['selector']}")

    def project(self, grid: VideoGrid, question: str | None = None) -> Projected:
        """Compress, project every token, then take 2x2 means."""
        _, _, height, width, _ = grid.shape
        if height % 2 or width % 2:
            raise UserError(
                f"released=true pools 2x2 cells, but the grid is {height}x{width}; give the encoder grid=24"
            )
        tokens = self.compressor(grid)
        groups = tokens.features.split(GROUPS_AT_ONCE * height * width)
        features = torch.cat([pooled(self.projector(part), height, width) for part in groups])
        fewer = VideoTokens.carry(
            pooled(tokens.features, height, width),
            tokens.lengths // 4,
            pooled_source(tokens.source, height, width),
            grid,
        )
        return Projected(fewer, features, grid.times, self._silence)

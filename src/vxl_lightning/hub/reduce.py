"""One video of a prompt: its cells become fewer tokens, and a selector keeps the ones a question needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.compressors.none import NoCompression
from vxl_lightning.compressors.per_video import mean_cells
from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import Video
from vxl_lightning.hub.shorten import nearest
from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.tokens import VideoGrid, VideoTokens


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is left of a video.

    Attributes:
        tokens: of a batch of one, in their order.
        place: ``[n]`` where each stands in its row's sequence: at the cell nearest to its centroid.
    """

    tokens: VideoTokens
    place: Tensor


class Reducer:
    """Compressor and selector, checked against one model.

    Args:
        compressor: None keeps every cell.
        selector: None keeps every token.
        select: what the selector may keep of a video: frames (level frame) or tokens (level token).
        select_share: the same as a share of them, where ``select`` is 0.
        hidden: channels of the language model.

    Raises:
        UserError: they do not fit the model, or one another.
    """

    def __init__(
        self, compressor: Compressor | None, selector: Selector | None, select: int, select_share: float, hidden: int
    ) -> None:
        self.compressor = compressor or NoCompression(NoCompression.Config(), hidden)
        self.selector = selector
        self.select, self.select_share = select, select_share
        name = type(self.compressor).__name__
        if self.compressor.needs_importance:
            raise UserError(
                f"compressor={name} needs the attention mass of the vision encoder, which a wrapped model does not "
                "hand on; choose one that reads features alone, such as uniform, pool, tree, dtd, evs or vidcom2"
            )
        for part in (self.compressor, selector):
            if part is not None and part.dim != hidden:
                raise UserError(
                    f"{type(part).__name__} was built for dim={part.dim}, but the language model has {hidden} "
                    f"channels; build it with dim={hidden}"
                )
        if self.compressor.out_dim != hidden:
            raise UserError(
                f"compressor={name} gives tokens of {self.compressor.out_dim} channels, and there is no projector "
                f"behind it here; choose one that keeps the {hidden} channels of the language model"
            )
        if selector is not None and selector.needs_time:
            raise UserError(
                f"selector={type(selector).__name__} reads time text beside every group, which a wrapped model lays "
                "out its own way; choose one that reads features alone, such as similarity, aks or mdp3"
            )
        if (selector is None) == bool(select or select_share):
            raise UserError(
                f"select={select}, select_share={select_share} with selector={type(selector).__name__}: give a "
                "selector and what it may keep, such as select=8 frames or select_share=0.25, or none of them"
            )
        if select < 0 or not 0 <= select_share <= 1 or (select and select_share):
            raise UserError(
                f"select={select} must be at least 0 and select_share={select_share} in [0, 1]; give one of them"
            )

    @property
    def needs_query(self) -> bool:
        return self.compressor.needs_query or (self.selector is not None and self.selector.needs_query)

    def announced(self, size: tuple[int, int, int]) -> tuple[int, bool]:
        """Tokens of a video of ``size`` (T, H, W), and whether that is the count or the most.

        Raises:
            UserError: the method cannot keep its budget on such a video.
        """
        name, fewest = type(self.compressor).__name__, self.compressor.min_frames
        if size[0] < fewest:
            raise UserError(f"compressor={name} needs at least {fewest} frames, this video has {size[0]}; show it more")
        try:
            count, exact = self.compressor.num_tokens(*size), self.compressor.budget == "exact"
        except ValueError as error:
            raise UserError(
                f"compressor={name} on a video of {size[0]} frames of {size[1]} x {size[2]} cells: {error}"
            ) from None
        if self.selector is None:
            return count, exact
        if self.selector.level == "token":
            return min(count, self._budget(count)), exact
        group = self.compressor.frames_per_group
        if group is None:
            return count, False  # how many frames the tokens are of, only the tokens tell
        groups = -(-size[0] // group)
        return min(groups, self._budget(groups)) * (count // groups), exact

    @torch.no_grad()
    def __call__(self, embeds: Tensor, video: Video, query: Tensor | None) -> Reduced:
        """Reduce one video.

        Args:
            embeds: ``[L, hidden]``, what the language model reads of the video's row.
            video: where its cells stand.
            query: ``[q, hidden]`` the embedded text after the row's videos, or None where there is none.
        """
        self.announced(video.size)
        grid = VideoGrid.of(embeds[video.place][None], video.times[None])
        tokens = self.compressor(grid, None if query is None else query[None])
        if self.selector is not None:
            tokens = self._selected(self.selector, tokens, query)
        return Reduced(tokens, video.place.flatten()[nearest(tokens.position, video.size)])

    def _selected(self, selector: Selector, tokens: VideoTokens, query: Tensor | None) -> VideoTokens:
        frame = tokens.position[:, 0].floor()
        counts = torch.unique_consecutive(frame, return_counts=True)[1].tolist()
        size = 1 if selector.level == "token" else counts[0]
        if selector.level == "frame" and len(set(counts)) != 1:
            raise UserError(
                f"selector={type(selector).__name__} needs the same number of tokens in every frame, but "
                f"compressor={type(self.compressor).__name__} leaves {min(counts)} to {max(counts)}; choose one that "
                "treats frames alike, such as pool or uniform, or none"
            )
        candidates = Candidates(tokens.features.unflatten(0, (-1, size)), tokens.span[::size, 0])
        index = selector(candidates, query, self._budget(len(candidates.times))).index
        keep = torch.zeros(len(frame), dtype=torch.bool, device=frame.device)
        keep[(index[:, None] * size + torch.arange(size, device=index.device)).flatten()] = True
        return tokens.select(keep)

    def _budget(self, candidates: int) -> int:
        return self.select or max(1, int(candidates * self.select_share))


def carried(cells: Tensor, reduced: Reduced) -> Tensor:
    """``[n, D]`` what belongs to a video's ``cells [T, H, W, D]``, for its tokens: the mean over those that each
    carries, zero where it carries none."""
    return mean_cells(cells, reduced.tokens.source[0], len(reduced.place)).to(cells.dtype)

"""What a prompt costs: told before anything is computed, and as it came about."""

from dataclasses import dataclass

from torch import Tensor

from vxl_lightning.tokens import VideoTokens


@dataclass(frozen=True)
class Counts:
    """Lengths of a batch, a number a row.

    Attributes:
        grid_tokens: cells of the videos.
        visual_tokens: tokens of them that the language model reads (the most, where not ``exact``).
        text_tokens: all else but padding: text, time, newlines, pictures.
        padding: places of padding that every row has.
        exact: sizes alone decide the numbers.
    """

    grid_tokens: list[int]
    visual_tokens: list[int]
    text_tokens: list[int]
    padding: int = 0
    exact: bool = True

    @property
    def sequence_length(self) -> int:
        """Places of the batch that the language model reads, padding included."""
        return self.padding + max(v + t for v, t in zip(self.visual_tokens, self.text_tokens, strict=True))


@dataclass(frozen=True, eq=False)
class Report:
    """What happened to a prompt.

    Attributes:
        counts: its lengths.
        tokens: what is left of every video, row by row.
        position_ids: ``[B, L']``, or ``[3, B, L']`` where positions are of time, height and width: of what the
            language model was to read, before any cache compressor.
        mask: ``[B, L']`` bool, False at padding.
        cache_length: keys of a layer that the next token attends to, padding included.
    """

    counts: Counts
    tokens: list[VideoTokens]
    position_ids: Tensor
    mask: Tensor
    cache_length: int

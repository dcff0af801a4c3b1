"""From the compressor's channels to the language model's."""

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear - GELU - Linear on every token, as LLaVA-1.5 and Video-XL-Pro have it.

    Args:
        dim: channels of the compressor's tokens.
        hidden: width of the language model.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.hidden = hidden
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., dim]`` to ``[..., hidden]``."""
        out: Tensor = self.layers(tokens)
        return out

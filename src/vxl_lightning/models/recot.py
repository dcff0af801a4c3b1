"""ReCoT: hide cells, compress the rest, and rebuild every cell from the tokens alone.

Video-XL-Pro (arXiv 2503.18478) trains its compressor by masked reconstruction but has published neither
the decoder nor the loss; what stands here is this project's own definition. The decoder asks for a cell
by its position, so one decoder serves every compressor, whatever its count and shape of tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.models.copies import copies
from vxl_lightning.tokens import VideoGrid, VideoTokens

Target = Literal["features", "layer_norm"]
Fill = Literal["embedding", "previous"]
FREQUENCIES = 4


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The position-query decoder."""

    width: int = 256
    """Channels inside the decoder."""
    depth: int = 1
    """Cross-attention blocks."""
    heads: int = 4
    """Attention heads."""
    window: int = 16
    """Frames decoded together, for compressors that have no groups of their own."""
    reach: int = 1
    """Neighbouring windows on each side whose tokens a query may read too."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.window) < 1:
            raise ValueError(f"width, depth, heads and window must be at least 1, got {self}")
        if self.reach < 0:
            raise ValueError(
                f"reach={self.reach} must be at least 0; 0 reads the tokens of the cell's own window alone"
            )
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What `ReCoT` gives.

    Attributes:
        predicted: ``[B, T, H, W, D]`` float32, the rebuilt cells in target space.
        target: ``[B, T, H, W, D]`` float32, the encoder's own cells in target space.
        tokens: what the compressor gave for the masked grid.
    """

    predicted: Tensor
    target: Tensor
    tokens: VideoTokens


class CrossBlock(nn.Module):
    """Queries attend to tokens, then an MLP; pre-norm, residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """``x [N, Q, C]``, ``place [1, Q, C]``, ``memory [N, L, C]``, ``mask [N, L]`` True where there is a token."""
        n, q, c = x.shape
        query = self.q(self.norm(x)).view(n, q, self.heads, -1).transpose(1, 2)
        key, value = self.kv(memory).view(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        # The sequences are a few tokens long, where the fused attention costs more to enter than it saves.
        scores = (query @ key.mT * (c // self.heads) ** -0.5).float().masked_fill(~mask[:, None, None], float("-inf"))
        mixed = (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).reshape(n, q, c)
        x = x + self.out(mixed * self.gate(place))
        change: Tensor = self.mlp(x)
        return x + change


class PositionDecoder(nn.Module):
    """Rebuilds the cell at a queried position from the tokens of its own stretch of time.

    The video is cut into windows of ``window`` frames; a token belongs to the window its ``position`` falls
    in. A query is the cell's place in its window and frame plus the token that carries it (``source``); it
    attends to the tokens of its window and of ``reach`` windows on each side, and to one learned null token.
    What it reads is gated by its place, so that one token can carry different cells in different channels.
    Cost is linear in frames. The decoder is given `VideoTokens` alone, so that nothing reaches it except
    through the compressor.

    The result is a change to the token that carries the cell (to the mean of the window's tokens where the
    cell was dropped, zero where the window is empty). It starts at zero.
    """

    def __init__(self, config: DecoderConfig, token_dim: int, dim: int, window: int | None = None) -> None:
        super().__init__()
        self.window = window or config.window
        self.reach = config.reach
        width = config.width
        self.position = nn.Linear(3 * (1 + 2 * FREQUENCIES), width)
        self.token = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, width))
        self.carrier = nn.Linear(token_dim, width, bias=False)
        self.gate = nn.Linear(width, width)
        self.null = nn.Parameter(torch.zeros(width))
        self.offset = nn.Parameter(torch.zeros(2 * self.reach + 1, width))
        self.blocks = nn.ModuleList(CrossBlock(width, config.heads) for _ in range(config.depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        last = self.out[1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Rebuild every cell of the grid that ``tokens.source`` describes.

        Returns:
            ``copy [B, T, H, W, token_dim]``, the token each cell starts from, and ``change [B, T, H, W, D]``.
        """
        b, t, h, w = tokens.source.shape
        size, windows = self.window, -(-t // self.window)
        slots = self._slots(tokens, windows)
        here = slots >= 0
        dense = tokens.features[slots.clamp(min=0)] * here[..., None]
        start = (torch.arange(b * windows, device=slots.device) % windows) * size
        memory = self.token(dense) + self._embed(tokens.position[slots.clamp(min=0)], start, h, w)
        memory, mask = self._neighbours(memory, here, windows)

        source = F.pad(tokens.source, (0, 0, 0, 0, 0, windows * size - t), value=-1).view(b * windows, size * h * w)
        absolute = (source + tokens.offsets[:-1].repeat_interleave(windows)[:, None]).clamp(min=0)
        mean = dense.sum(1) / here.sum(1, keepdim=True).clamp(min=1)
        copy = torch.where((source >= 0)[..., None], tokens.features[absolute], mean[:, None])
        cells = torch.cartesian_prod(*(torch.arange(n, device=slots.device, dtype=torch.float32) for n in (size, h, w)))
        place = self._embed(cells.view(1, -1, 3), start.new_zeros(1), h, w)
        x = place + self.gate(place) * self.carrier(copy)
        for block in self.blocks:
            x = block(x, place, memory, mask)
        change = self.out(x).view(b, windows * size, h, w, -1)[:, :t]
        return copy.view(b, windows * size, h, w, -1)[:, :t], change

    def _neighbours(self, memory: Tensor, here: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """Each window's tokens, those of its neighbours, and the null token: ``[B * windows, M, C]`` and its mask."""
        ends = (self.reach, self.reach)
        far = F.pad(memory.unflatten(0, (-1, windows)), (0, 0, 0, 0, *ends))
        real = F.pad(here.unflatten(0, (-1, windows)), (0, 0, *ends))
        parts = [far[:, i : i + windows] + offset for i, offset in enumerate(self.offset)]
        null = self.null.to(memory.dtype).expand(*far.shape[:1], windows, 1, -1)
        masks = [real[:, i : i + windows] for i in range(len(parts))]
        return torch.cat([*parts, null], 2).flatten(0, 1), F.pad(torch.cat(masks, 2), (0, 1), value=True).flatten(0, 1)

    def _slots(self, tokens: VideoTokens, windows: int) -> Tensor:
        """``[B * windows, L]`` packed index of each window's tokens, -1 where a window has fewer than L."""
        n, device = tokens.features.shape[0], tokens.features.device
        window = (tokens.position[:, 0] / self.window).floor().long().clamp(0, windows - 1) + tokens.video * windows
        count = torch.bincount(window, minlength=len(tokens.lengths) * windows)
        order = window.argsort(stable=True)
        rank = torch.arange(n, device=device) - (count.cumsum(0) - count)[window[order]]
        slots = torch.full((len(count), int(count.max())), -1, dtype=torch.long, device=device)
        slots[window[order], rank] = order
        return slots

    def _embed(self, position: Tensor, start: Tensor, height: int, width: int) -> Tensor:
        """Embedded (t, y, x), t counted in windows from ``start`` frames, y and x as fractions of the frame."""
        size = position.new_tensor([self.window, height, width])
        shift = torch.stack([start, torch.zeros_like(start), torch.zeros_like(start)], -1).to(position.dtype)
        unit = (position - shift[:, None] + 0.5) / size * 2 - 1
        angle = unit[..., None] * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=position.device)) / 2
        waves = torch.cat([unit[..., None], angle.sin(), angle.cos()], -1).flatten(-2)
        embedded: Tensor = self.position(waves.to(self.position.weight.dtype))
        return embedded


class ReCoT(nn.Module):
    """Any compressor and a decoder, for reconstruction of the encoder's own features.

    Args:
        compressor: what is trained. Its tokens may have another width than the grid's cells; then the copy
            they start from is a linear map of them that starts at zero.
        decoder: the decoder's configuration.
        target: ``features``, the cells as the encoder gives them; ``layer_norm``, each cell with its mean
            removed and its length set to that of D unit-variance channels.
        fill: what a hidden cell looks like to the compressor. ``embedding``, one learned vector that starts at
            zero; ``previous``, the last visible cell at its place (see `Copies.previous`) plus that vector, so
            that the compressor starts from a whole grid, the kind it will meet when nothing is hidden.

    Raises:
        ValueError: an unknown target or fill.
    """

    def __init__(
        self,
        compressor: Compressor,
        decoder: DecoderConfig | None = None,
        target: Target = "features",
        fill: Fill = "previous",
    ) -> None:
        super().__init__()
        if target not in get_args(Target):
            raise ValueError(f"target={target!r} is not one of {', '.join(get_args(Target))}")
        if fill not in get_args(Fill):
            raise ValueError(f"fill={fill!r} is not one of {', '.join(get_args(Fill))}")
        self.compressor = compressor
        self.target = target
        self.fill = fill
        dim, token_dim = compressor.dim, compressor.out_dim
        self.decoder = PositionDecoder(decoder or DecoderConfig(), token_dim, dim, compressor.frames_per_group)
        self.mask_embedding = nn.Parameter(torch.zeros(dim))
        self.read: nn.Module = nn.Identity()
        if token_dim != dim:
            read = nn.Linear(token_dim, dim)
            nn.init.zeros_(read.weight)
            nn.init.zeros_(read.bias)
            self.read = read

    def normalise(self, cells: Tensor) -> Tensor:
        """Cells in target space, float32."""
        if self.target == "layer_norm":
            return F.layer_norm(cells.float(), cells.shape[-1:])
        return cells.float()

    def forward(self, grid: VideoGrid, hidden: Tensor | None = None) -> Reconstruction:
        """Compress the grid without its hidden cells and rebuild all of it.

        Args:
            grid: ``[B, T, H, W, D]``.
            hidden: ``[B, T, H, W]`` bool, or None to hide nothing (plain auto-encoding).
        """
        masked = grid if hidden is None else self.hide(grid, hidden)
        tokens = self.compressor(masked)
        copy, change = self.decoder(tokens)
        predicted = self.normalise(self.read(copy)) + change.float()
        return Reconstruction(predicted, self.normalise(grid.features), tokens)

    def hide(self, grid: VideoGrid, hidden: Tensor) -> VideoGrid:
        """The grid as the compressor sees it: hidden cells filled, their side information zero."""
        blank = self.mask_embedding.to(grid.features.dtype)
        if self.fill == "previous":
            visible = grid.frame_mask[:, :, None, None] & ~hidden
            blank = blank + copies(grid.features, visible, self.decoder.window).previous
        side = {
            name: value.masked_fill(hidden, 0.0)
            for name, value in (("importance", grid.importance), ("motion", grid.motion))
            if value is not None
        }
        features = torch.where(hidden[..., None], blank, grid.features)
        return VideoGrid(features, grid.times, grid.frame_mask, **side)


def cell_error(result: Reconstruction) -> Tensor:
    """``[B, T, H, W]`` mean squared error of each cell."""
    return (result.predicted - result.target).square().mean(-1)


def reconstruction_loss(
    result: Reconstruction, grid: VideoGrid, hidden: Tensor | None, visible_weight: float
) -> Tensor:
    """Mean squared error over hidden cells plus ``visible_weight`` times that over visible ones; padding is left out.

    Without a mask all cells count alike.
    """
    error = cell_error(result)
    valid = grid.frame_mask[:, :, None, None].expand_as(error)
    if hidden is None:
        return error[valid].mean()
    seen = valid & ~hidden
    # A sum of zeros over at least one: a mask that leaves nothing visible must not divide by zero.
    return error[hidden].mean() + visible_weight * (error * seen).sum() / seen.sum().clamp(min=1)


def sampling_loss(result: Reconstruction, hidden: Tensor, log_prob: Tensor) -> Tensor:
    """What a masker that learns has to lower: minus the mean over hidden cells of log-probability times error.

    The loss of AdaMAE (arXiv 2211.09120). The error is held fixed, so the reconstruction gets no gradient; cells that
    were hidden and badly rebuilt become more likely to be shown.

    Args:
        result: of the model that saw what is not hidden.
        hidden: ``[B, T, H, W]`` bool.
        log_prob: ``[B, T, H, W]`` of each cell to be shown (`Mask.log_prob`).
    """
    return -(log_prob * cell_error(result).detach())[hidden].mean()

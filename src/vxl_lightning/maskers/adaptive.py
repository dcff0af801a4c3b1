"""Learn which cells to show."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import gumbel, hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid

FREQUENCIES = 4


class AdaptiveMasker(Masker):
    """A small network says how likely each cell is shown, and learns from how badly the hidden ones were rebuilt.

    After AdaMAE (arXiv 2211.09120): one pre-norm transformer block over the cells and their places, a linear map to one
    number a cell, and a softmax over all cells of the video. The visible cells are drawn without replacement in
    proportion. `Mask.log_prob` holds the logarithms of the probabilities; training adds minus their mean product with
    the reconstruction error over hidden cells, the error held fixed, so that cells which are hard to rebuild are shown
    more often. The draw has no other gradient.

    Differs: the block attends within stretches of ``window`` frames, so that its cost is linear in frames (the paper's
    clips have 8 slots, the default); places are a linear map of waves that starts at zero, where the paper learns a
    table for one size of clip that starts at zero too; cells are normalised first, since encoders differ in scale;
    there is no dropout, since the generator is the only chance; the last map starts at zero, so that the first draws
    are uniform; ``entropy`` is not of the paper. The paper hides 0.95.
    """

    trainable = True
    origin = "AdaMAE (arXiv 2211.09120; wgcban/adamae, MIT)"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        heads: int = 8
        """Attention heads; must divide the channels of a cell."""
        window: int = 8
        """Frames that attend to one another."""
        entropy: float = 0.0
        """Weight of a loss against certain choices: the share that the probabilities' entropy lacks; 0 adds none."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if min(self.heads, self.window) < 1:
                raise ValueError(f"heads={self.heads} and window={self.window} must be at least 1")
            if self.entropy < 0:
                raise ValueError(f"entropy={self.entropy} must not be negative; 0 adds no loss")

    config: Config

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        if dim % config.heads:
            nearest = max(n for n in range(1, config.heads) if dim % n == 0)
            raise ValueError(f"heads={config.heads} must divide the {dim} channels of a cell; {nearest} does")
        self.position = nn.Linear(3 * (1 + 2 * FREQUENCIES), dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.logit = nn.Linear(dim, 1, bias=False)  # a softmax follows: a bias would change nothing
        nn.init.zeros_(self.position.weight)
        nn.init.zeros_(self.logit.weight)

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        log_prob = self.log_probabilities(grid)
        noise = gumbel(uniform_noise(grid, generator))
        hidden = hide_top(-(log_prob.detach() + noise), grid, hidden_counts(self, grid))
        return Mask(hidden, log_prob, self._uncertainty_loss(log_prob, grid) if self.config.entropy else None)

    def log_probabilities(self, grid: VideoGrid) -> Tensor:
        """``[B, T, H, W]`` float32 log-probability of each cell to be the first one shown; 0 where there is padding."""
        b, t, h, w, d = grid.shape
        windows = -(-t // self.config.window)
        padding = windows * self.config.window - t
        valid = grid.frame_mask[:, :, None, None].expand(b, t, h, w)
        cells = F.layer_norm(grid.features.float().masked_fill(~valid[..., None], 0.0), (d,))
        cells = F.pad(cells, (0, 0, 0, 0, 0, 0, 0, padding)).view(b * windows, -1, d)
        real = F.pad(valid, (0, 0, 0, 0, 0, padding)).reshape(b * windows, -1)

        x = cells.to(self.logit.weight.dtype) + self.position(self.places(h, w))
        x = x + self._attend(self.norm(x), real)
        x = x + self.mlp(x)
        logits: Tensor = self.logit(x).float().view(b, windows * self.config.window, h, w)[:, :t]
        log_prob = logits.masked_fill(~valid, float("-inf")).flatten(1).log_softmax(1).view(b, t, h, w)
        return log_prob.masked_fill(~valid, 0.0)

    def places(self, height: int, width: int) -> Tensor:
        """``[window * H * W, 3 * (1 + 2 * FREQUENCIES)]`` waves over the places (t, y, x) of one window."""
        weight = self.position.weight
        axes = (torch.arange(n, device=weight.device) for n in (self.config.window, height, width))
        size = torch.tensor([self.config.window, height, width], device=weight.device)
        unit = (torch.cartesian_prod(*axes) + 0.5) / size * 2 - 1
        angle = unit[..., None] * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=weight.device)) / 2
        return torch.cat([unit[..., None], angle.sin(), angle.cos()], -1).flatten(1).to(weight.dtype)

    def _attend(self, x: Tensor, real: Tensor) -> Tensor:
        """Attention of ``x [N, L, D]`` to the cells where ``real [N, L]``."""
        n, length, d = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        # A window of padding alone reads itself, since it must read something.
        keys = real | ~real.any(1, keepdim=True)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keys[:, None, None])
        read: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, d))
        return read

    def _uncertainty_loss(self, log_prob: Tensor, grid: VideoGrid) -> Tensor:
        """Scalar, ``entropy`` times 1 minus the entropy as a share of that of a uniform draw, mean over videos."""
        b, _, h, w, _ = grid.shape
        # Padding has a logarithm of 0, so its terms vanish.
        entropy = -(log_prob.exp() * log_prob).sum((1, 2, 3))
        return self.config.entropy * (1 - entropy / (grid.num_frames * h * w).float().log()).mean()

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.9, "heads": 2, "window": 3, "entropy": 0.1}]

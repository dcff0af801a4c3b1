"""The learned partition of Video Token Merging: self-attention whose keys also say which cells are salient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8
"""What the fused attention kernels want the channels of a head to be a multiple of."""


class SaliencyAttention(nn.Module):
    """Multi-head self-attention over the cells of a clip, with a residual, and a saliency read from its keys.

    ``s = tanh(K U)`` decides which cells become targets; choosing has no gradient. As in the paper an auxiliary path
    gives ``U`` one: ``softmax(Q K^T / sqrt(d) + 1 s^T) V``, in which a salient cell weighs more in what every cell
    reads. The paper merges the auxiliary tokens as it merges the others. Here the path joins before merging, which is
    linear and comes to the same: what goes on has the value of the main path, and towards ``U`` the gradient of the
    auxiliary one (a straight-through estimate; Q, K and V are constants in it, and learn from the main path alone).
    So nothing but the tokens needs to reach a loss, whatever the loss is. The path is walked only where a gradient to
    ``U`` is recorded.

    The output starts at zero and K as the identity: untrained, cells are compared by their normalised features and
    merged as they are. ``U`` starts at zero: every cell is as likely a target as any other.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.saliency = nn.Linear(dim, 1, bias=False)
        nn.init.eye_(self.key.weight)
        for zero in (self.out.weight, self.out.bias, self.saliency.weight):
            nn.init.zeros_(zero)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``cells [G, N, D]``.

        Returns:
            ``[G, N, D]`` cells after attention, ``[G, N, D]`` keys and ``[G, N]`` saliency, both float32.
        """
        # What choices are made from is float32, whatever the parameters are and autocast would have.
        with torch.autocast(cells.device.type, enabled=False):
            affine = self.norm.weight.float(), self.norm.bias.float()
            normed = F.layer_norm(cells.float(), self.norm.normalized_shape, *affine, eps=self.norm.eps)
            keys = F.linear(normed, self.key.weight.float())
            saliency = self._saliency(keys.detach())
        x = normed.to(self.out.weight.dtype)
        q = self._split(self.query(x))
        k, v = self._split(keys).to(q.dtype), self._split(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v)
        if saliency.requires_grad:
            auxiliary = _salient_attention(q.detach(), k.detach(), v.detach(), saliency)
            mixed = mixed + (auxiliary - auxiliary.detach())
        read: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return cells + read.to(cells.dtype), keys, saliency

    def _saliency(self, keys: Tensor) -> Tensor:
        scores: Tensor = F.linear(keys, self.saliency.weight.float())
        return scores[:, :, 0].tanh()

    def _split(self, x: Tensor) -> Tensor:
        """``[G, N, D]`` to ``[G, heads, N, d]``."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _salient_attention(q: Tensor, k: Tensor, v: Tensor, saliency: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d) + 1 s^T) v`` for ``q, k, v [G, heads, N, d]`` and ``s [G, N]``.

    The saliency is one more channel of k, which the q all read alike. So no ``[N, N]`` bias and no gradient of one is
    held where the fused kernels run; they want the channels of all three equal, and a multiple of eight.
    """
    d = q.shape[-1]
    one = F.pad(q.new_full((1,), d**0.5), (0, CHANNELS - 1)).expand(*q.shape[:3], -1)
    s = F.pad(saliency.to(k.dtype)[:, None, :, None], (0, CHANNELS - 1)).expand(-1, k.shape[1], -1, -1)
    wide = torch.cat([q, one], -1), torch.cat([k, s], -1), F.pad(v, (0, CHANNELS))
    return F.scaled_dot_product_attention(*wide, scale=d**-0.5)[..., :d]

"""What would fill a whole video's memory once more, taken a piece at a time."""

import torch
from torch import Tensor

# Numbers of a temporary tensor. On the CPU caches hold so many, and their memory is used again: new memory for a whole
# video costs more than the arithmetic on it. Elsewhere so many keep a device busy.
ON_CPU, ELSEWHERE = 1 << 20, 1 << 26

SMALLEST_NORM = 1e-8


def numbers_at_once(device: torch.device) -> int:
    """How many numbers a temporary tensor on ``device`` should have at most."""
    return ON_CPU if device.type == "cpu" else ELSEWHERE


@torch.no_grad()
def cosines(a: Tensor, b: Tensor) -> Tensor:
    """``[..., P]`` float32: the cosine of each cell of ``a [..., P, D]`` to its like in ``b``, which has that shape or
    is expanded to it. That of a zero vector is zero."""
    b = b.expand_as(a)
    most, each = numbers_at_once(a.device), a[:1].numel()
    if a.ndim > 2 and each > most:
        return torch.stack([cosines(x, y) for x, y in zip(a, b, strict=True)])
    rows = max(1, most // max(1, each))
    return torch.cat([_cosines(x, y) for x, y in zip(a.split(rows), b.split(rows), strict=True)])


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.float(), b.float()
    return (a * b).sum(-1) / (_norm(a) * _norm(b))


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm.clamp(min=SMALLEST_NORM)

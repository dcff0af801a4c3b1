"""How much a question wants of each group of remembered tokens: its queries against the groups' mean keys, layer by
layer, both as they are just before rotation, so that it does not matter how long ago something was."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import LanguageShape, Memory
from vxl_lightning.caches.forward import forward, watched


def mean_keys(seen: Sequence[Tensor], group: Tensor, count: int) -> Tensor:
    """``[layers, count, kv_heads * head_dim]`` float32: the mean key of every group.

    Args:
        seen: ``[1, n, kv_heads * head_dim]`` a layer, as `forward.watched` collects them.
        group: ``[n]`` in ``0..count-1``, or -1 for places of no group.
    """
    keys = torch.stack([x[0] for x in seen]).float()
    belongs = group >= 0
    total = keys.new_zeros(len(keys), count, keys.shape[-1]).index_add(1, group[belongs], keys[:, belongs])
    return total / torch.bincount(group[belongs], minlength=count).clamp(min=1)[None, :, None]


@torch.no_grad()
def group_scores(model: Any, shape: LanguageShape, before: Memory | None, query: Tensor, keys: Tensor) -> Tensor:
    """``[layers, groups]`` float32: the question's mean query times every group's mean key, over all heads.

    Args:
        before: what the question attends to while its queries are taken.
        query: ``[q, hidden]`` embedded question.
        keys: ``[layers, groups, kv_heads * head_dim]`` of `mean_keys`.
    """
    begin = 0 if before is None else before.position
    with watched(model, "q_proj") as seen:
        forward(model, query, before, torch.arange(begin, begin + len(query), device=query.device))
    queries = torch.stack([x[0].float().mean(0) for x in seen]).view(shape.layers, shape.heads, shape.head_dim)
    shared = queries.view(shape.layers, shape.kv_heads, -1, shape.head_dim).sum(2)  # heads that share their keys
    return torch.einsum("lhd,lghd->lg", shared, keys.view(shape.layers, -1, shape.kv_heads, shape.head_dim))

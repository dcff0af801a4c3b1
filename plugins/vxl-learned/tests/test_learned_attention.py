"""Attention of the learned compressors: the same whichever way it is computed."""

import pytest
import torch
from vxl_learned.attention import Attention


@pytest.mark.parametrize("bias", [False, True])
def test_few_queries_find_what_they_find_among_many(bias: bool) -> None:
    # Of 2 heads of 6 channels: 3 queries are taken to the keys, 9 have the keys taken to them.
    torch.manual_seed(0)
    attention = Attention(10, 14, 12, 2, bias=bias)
    queries, keys = torch.randn(2, 9, 10), torch.randn(2, 7, 14)
    open_ = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    for allowed in (None, open_):
        many, few = [attention(q, keys, allowed) for q in (queries, queries[:, :3])]
        torch.testing.assert_close(few, many[:, :3], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [3, 9])
def test_attention_seen_on_the_way_is_that_of_a_look(count: int) -> None:
    torch.manual_seed(0)
    attention = Attention(10, 14, 12, 2, bias=True)
    seen: list[torch.Tensor] = []
    queries, keys = torch.randn(2, count, 10), torch.randn(2, 7, 14)
    open_ = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    attention(queries, keys, open_, seen=seen)
    assert not seen[0].requires_grad and not seen[0][1, :, 4:].any()
    torch.testing.assert_close(seen[0], attention(queries, keys, open_, look=True), atol=1e-6, rtol=1e-5)

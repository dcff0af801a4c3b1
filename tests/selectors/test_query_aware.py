"""The query-aware selector against its definition: full masked attention, and what it must tell apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.selectors import query_aware
from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.query_aware import QueryAwareSelector


def build(dim: int = 32, heads: int = 4, released: bool = False) -> QueryAwareSelector:
    torch.manual_seed(0)
    return QueryAwareSelector(QueryAwareSelector.Config(heads=heads, released=released), dim=dim)


def candidates(groups: int, visual: int = 9, time: int = 5, dim: int = 32) -> tuple[Candidates, Tensor]:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(groups, visual, dim, generator=draw)
    times = torch.randn(groups, time, dim, generator=draw)
    query = torch.randn(7, dim, generator=draw)
    return Candidates(features, torch.arange(groups).float(), times), query


def full_masked(selector: QueryAwareSelector, c: Candidates, query: Tensor) -> Tensor:
    """The definition written out: every visual token against every time token, masked outside its group."""
    assert c.time_features is not None
    (g, k, d), m, heads = c.features.shape, c.time_features.shape[1], selector.config.heads
    split = (heads, d // heads)
    q = selector.visual(c.features.reshape(g * k, d)).unflatten(-1, split).transpose(0, 1)
    flat = c.time_features.reshape(g * m, d)
    key = selector.time(flat).unflatten(-1, split).transpose(0, 1)
    value = (selector.value or selector.time)(flat).unflatten(-1, split).transpose(0, 1)
    own = torch.arange(g).repeat_interleave(k)[:, None] == torch.arange(g).repeat_interleave(m)
    logits = (q @ key.mT / (d // heads) ** 0.5).masked_fill(~own, float("-inf"))
    gathered = selector.out((logits.softmax(-1) @ value).transpose(0, 1).flatten(1))
    scores = (gathered @ F.gelu(selector.text(query)).T).mean(1)
    return (scores - scores.min()) / (scores.max() - scores.min())


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_equals_full_masked_attention(heads: int, released: bool) -> None:
    selector = build(heads=heads, released=released)
    c, query = candidates(16)
    with torch.no_grad():
        torch.testing.assert_close(selector.score(c, query), full_masked(selector, c, query), atol=1e-5, rtol=0)


def test_chunks_of_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    selector = build()
    c, query = candidates(10)
    with torch.no_grad():
        whole = selector.score(c, query)
        monkeypatch.setattr(query_aware, "GROUPS_AT_ONCE", 3)
        torch.testing.assert_close(selector.score(c, query), whole, atol=1e-6, rtol=0)


def test_a_group_sees_its_own_time_alone() -> None:
    selector = build()
    c, query = candidates(4)
    assert c.time_features is not None
    moved = c.time_features.clone()
    moved[3] += 1
    question = F.gelu(selector.text(query)).mean(0)
    before = selector._relevance(c.features, c.time_features, question)
    after = selector._relevance(c.features, moved, question)
    torch.testing.assert_close(after[:3], before[:3], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(after[3], before[3], atol=1e-3)


def test_constant_scores_are_safe_and_the_earliest_win() -> None:
    selector = build()
    c = Candidates(torch.ones(3, 4, 32), torch.arange(3.0), torch.ones(3, 5, 32))
    chosen = selector(c, torch.ones(2, 32), budget=5)
    assert chosen.scores.eq(0).all()
    assert chosen.index.tolist() == [0, 1, 2, 3, 4]


def test_scores_span_zero_to_one_and_carry_gradients_to_every_parameter() -> None:
    selector = build()
    c, query = candidates(6)
    scores = selector(c, query, budget=3).scores
    assert scores.shape == (54,)
    assert scores.min() == 0 and scores.max() == 1
    scores.square().sum().backward()
    for name, p in selector.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        # A bias before a softmax over keys, or added to every score, cancels.
        if name not in ("time.bias", "out.bias"):
            assert p.grad.abs().max() > 0, name


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads=5 does not divide the hidden size 32; take one of \[1, 2, 4, 8\]"):
        build(heads=5)


def test_time_text_is_required() -> None:
    with pytest.raises(ValueError, match="time_features"):
        build()(Candidates(torch.ones(3, 4, 32), torch.arange(3.0)), torch.ones(2, 32), budget=2)

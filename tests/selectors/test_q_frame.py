"""Q-Frame: the best at inference, draws without replacement in training."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.q_frame import QFrame
from vxl_lightning.selectors.similarity import SimilaritySelector
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("selector", QFrame)
def test_law(law: Any) -> None:
    law()


def build(**settings: Any) -> QFrame:
    return QFrame(QFrame.Config(**settings), dim=2)


def on_circle(cosines: list[float]) -> tuple[Candidates, Tensor]:
    """Items with these cosines to the question."""
    cosine = torch.tensor(cosines)
    items = torch.stack([cosine, (1 - cosine.square()).sqrt()], -1)
    return Candidates(items[:, None], torch.arange(float(len(items)))), torch.tensor([[3.0, 0.0]])


def test_scores_are_the_logarithm_of_a_softmax_of_the_cosines() -> None:
    candidates, query = on_circle([0.5, 0.9, 0.5])
    got = build(tau=0.4).score(candidates, query).exp()
    # e^1 against 1 and 1.
    torch.testing.assert_close(got, torch.tensor([1, 2.718282, 1]) / 4.718282)


def test_the_choice_at_inference_is_the_top_k_of_similarity() -> None:
    torch.manual_seed(0)
    candidates, query = Candidates(torch.randn(50, 3, 8), torch.arange(50.0)), torch.randn(4, 8)
    want = SimilaritySelector(SimilaritySelector.Config(), dim=8)(candidates, query, 12).index
    for tau in (0.01, 0.8):
        assert build(tau=tau).eval()(candidates, query, 12).index.equal(want)


def test_training_draws_in_proportion_to_the_softmax() -> None:
    selector = build(tau=0.3).train()
    candidates, query = on_circle([0.0, 0.4, 0.8, 0.2])
    p = selector.score(candidates, query).exp()
    torch.manual_seed(0)
    drawn = torch.cat([selector(candidates, query, 1).index for _ in range(2000)]).bincount(minlength=4) / 2000
    # The standard error of a share is at most .011.
    torch.testing.assert_close(drawn, p, atol=0.04, rtol=0)


def test_training_is_exact_in_count_and_repeats_by_seed() -> None:
    selector = build(tau=1.0).train()
    candidates, query = on_circle(torch.linspace(-1, 1, 30).tolist())
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(selector(candidates, query, 7).index)
    assert draws[0].equal(draws[1]) and not draws[0].equal(draws[2])
    assert all(len(index) == 7 and bool((index.diff() > 0).all()) for index in draws)


def test_a_tau_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tau=0 must be above 0"):
        build(tau=0)

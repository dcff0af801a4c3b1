"""Similarity: the closed form, and that a single needle token decides."""

import torch

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.similarity import SimilaritySelector


def selector(dim: int = 4) -> SimilaritySelector:
    return SimilaritySelector(SimilaritySelector.Config(), dim=dim)


def test_score_is_the_mean_over_the_query_of_the_best_token() -> None:
    features = torch.tensor([[[1.0, 0, 0, 0], [0, 2, 0, 0]], [[-3.0, 0, 0, 0], [0, 0, 1, 1]]])
    query = torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 1.0]])
    got = selector().score(Candidates(features, torch.arange(2.0)), query)
    # Item 0: best cosine 1 for the first word, 0 for the second; item 1: 0 and 1/sqrt(2).
    torch.testing.assert_close(got, torch.tensor([0.5, 0.5 * 0.5**0.5]))


def test_one_needle_token_among_many_wins_whatever_its_length() -> None:
    torch.manual_seed(0)
    features = torch.randn(300, 16, 64)
    query = torch.randn(1, 64)
    features[211, 3] = 0.01 * query[0]
    assert selector(64)(Candidates(features, torch.arange(300.0)), query, budget=1).index.tolist() == [211]


def test_zero_vectors_and_ties() -> None:
    chosen = selector()(Candidates(torch.zeros(5, 2, 4), torch.arange(5.0)), torch.ones(1, 4), budget=2)
    assert chosen.scores.eq(0).all() and chosen.index.tolist() == [0, 1]


def test_half_precision_is_scored_in_float32() -> None:
    torch.manual_seed(0)
    features, query = torch.randn(6, 3, 4).bfloat16(), torch.randn(2, 4).bfloat16()
    got = selector().score(Candidates(features, torch.arange(6.0)), query)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, selector().score(Candidates(features.float(), torch.arange(6.0)), query.float()))

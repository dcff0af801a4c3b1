"""Late interaction: the closed form of a fresh module; training learns which words matter and what they look like."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.late_interaction import LateInteractionSelector
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("selector", LateInteractionSelector)
def test_law(law: Any) -> None:
    law()


def selector(dim: int = 4, rank: int = 2) -> LateInteractionSelector:
    torch.manual_seed(0)
    return LateInteractionSelector(LateInteractionSelector.Config(rank=rank), dim=dim)


def test_fresh_it_is_the_mean_over_the_words_of_how_far_the_best_vector_reaches() -> None:
    features = torch.tensor([[[1.0, 0, 0, 0], [0, 2, 0, 0]], [[-3.0, 0, 0, 0], [0, 0, 1, 1]]])
    query = torch.tensor([[5.0, 0, 0, 0], [0, 4.0, 0, 0]])
    got = selector().score(Candidates(features, torch.arange(2.0)), query)
    # Item 0: a fifth of the first word, half of the second; item 1: neither, for -3 is further away than nothing.
    torch.testing.assert_close(got, torch.tensor([(1 / 5 + 1 / 2) / 2, 0.0]))


def test_the_word_itself_is_reached_by_one_and_a_murmur_stays_one() -> None:
    word = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    features = torch.stack([word, 0.01 * word])
    got = selector(64).score(Candidates(features, torch.arange(2.0)), word)
    torch.testing.assert_close(got, torch.tensor([1.0, 0.01]))


def test_training_learns_which_word_of_a_question_matters_and_what_it_looks_like() -> None:
    draw = torch.Generator().manual_seed(0)
    names, filler, looks = (torch.randn(n, 16, generator=draw) for n in (4, 3, 4))
    module = selector(16, 8)
    features = looks[:, None]  # each item looks as one name does, which no name's own vector tells

    def scores(name: int) -> torch.Tensor:
        question = torch.cat([filler, names[name : name + 1]])
        return module.score(Candidates(features, torch.arange(4.0)), question)

    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(60):
        loss = sum(F.cross_entropy(scores(n)[None] / 0.1, torch.tensor([n])) for n in range(4))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    assert [int(scores(n).argmax()) for n in range(4)] == [0, 1, 2, 3]


def test_rank_has_a_lower_limit() -> None:
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        LateInteractionSelector.Config(rank=0)

"""Items drawn by the softmax of their relevance: at random in training, the best at inference."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import relevance


class QFrame(Selector):
    """Gumbel top-k of the relevance (query-aware frame selection of Q-Frame, arXiv 2506.22139).

    Scores are log p with p = softmax(relevance / tau). In training mode the n items with the highest log p + g are
    chosen, g standard Gumbel noise from torch's generator: n draws from p without replacement, so that a model meets
    what it needs beside what it does not. At inference there is no noise, and the choice is the top-k of `similarity`.

    Follows the paper in this and differs in three ways. The release adds the noise at inference too, so that answers
    differ from run to run. Its tau of 0.8 divides products of Long-CLIP embeddings that are not normalised; here
    relevance is a cosine of the model's own tokens (`relevance`), and CLIP's temperature for cosines is the default.
    And the release gives the best frames to the language model at full resolution, the next ones at a lower one and
    those after at the lowest (4, 8 and 32 frames instead of 8). This contract keeps candidates whole, so that this part
    is not carried over: all that are kept are of the first tier, and `Selection.scores` rank them.
    """

    origin = "Q-Frame, arXiv 2506.22139, github xiaomi-research/q-frame (Apache-2.0); clean-room, from its definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        tau: float = 0.01
        """Temperature of the softmax over cosines; higher lets training stray further from the best."""

        def __post_init__(self) -> None:
            if not 0 < self.tau < math.inf:
                raise ValueError(f"tau={self.tau} must be above 0 and finite; 0.01 is CLIP's for cosines")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        tau: float = self.config.tau
        return (relevance(candidates.features, query) / tau).log_softmax(0)

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        if self.training:
            # Uniform numbers may be 0, whose Gumbel noise would be infinite.
            uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
            scores = scores - (-uniform.log()).log()
        return super().choose(scores, budget)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"tau": 0.8}]

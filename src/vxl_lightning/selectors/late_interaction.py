"""Items that hold what the question's words name, where training says which words matter and what they look like."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import GROUPS_AT_ONCE


class LateInteractionSelector(Selector):
    """Each word of the question looks for itself among an item's vectors; training weighs the words and turns them.

    With question tokens e_q and an item's vectors x_k, in float32::

        r_q  = e_q / |e_q|^2 + U V e_q            (V starts at zero)
        w    = softmax over q of u . e_q / |e_q|  (u starts at zero)
        s(g) = sum over q of w_q max over k of x_gk . r_q

    So a fresh module measures how far an item reaches along the question's words, 1 being the word itself, and takes
    their mean; training learns that "the" is of no matter, and that "shapes" may look like "star". The max over an
    item's vectors for each token of the question is ColBERT's late interaction (arXiv 2004.12832). Differences: inner
    products, not cosines, because the length of a vector says how much there is: a cosine makes the murmur of an empty
    item as loud as a word. ColBERT maps both sides and adds its tokens up unweighted; here the question is turned, by a
    map of low rank, and the items stay as they are: a long video costs one product, whatever is learnt.

    Haystacks in tuning (`models.haystacks`) train it against the items it confuses most.
    """

    trainable = True
    origin = "Late interaction, ColBERT, arXiv 2004.12832, with learned weights of the question's words; clean-room"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        rank: int = 32
        """Rank of the map that turns the question's words."""

        def __post_init__(self) -> None:
            if self.rank < 1:
                raise ValueError(f"rank={self.rank} must be at least 1")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.turn_in = nn.Linear(dim, config.rank, bias=False)
        self.turn_out = nn.Linear(config.rank, dim, bias=False)
        self.weigh = nn.Linear(dim, 1, bias=False)
        nn.init.zeros_(self.turn_in.weight)
        nn.init.zeros_(self.weigh.weight)

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        with torch.autocast(candidates.features.device.type, enabled=False):
            words = query.float()
            named = words / words.square().sum(-1, keepdim=True).clamp(min=1e-12)
            turned = F.linear(F.linear(words, self.turn_in.weight.float()), self.turn_out.weight.float())
            direction = F.normalize(words, dim=-1)
            weight = F.linear(direction, self.weigh.weight.float())[:, 0].softmax(0)
            sought = (named + turned).T  # [D, Q]
            # In chunks, so that the products and the float32 copy of the items stay small however long the video.
            parts = [(some.float() @ sought).amax(1) @ weight for some in candidates.features.split(GROUPS_AT_ONCE)]
            return torch.cat(parts)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"rank": 4}]

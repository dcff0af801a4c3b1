"""Tokens a question needs, told from their group's time and the question: Video-XL-Pro's selector."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.selectors.base import Candidates, Selector

GROUPS_AT_ONCE = 128


class QueryAwareSelector(Selector):
    """Visual tokens attend to the time tokens of their own group; what they gather is compared with the question.

    In each group, for visual tokens x_k and embedded time text t_m, over ``heads`` heads of width d::

        a_km   = softmax over m of (W_visual x_k) . (W_time t_m) / sqrt(d)
        z_k    = W_out [sum_m a_km (W_value t_m)]_heads                      (no residual)
        s_k    = mean over question tokens q of z_k . gelu(W_text q)

    and the scores of a video are min-max normalised to [0, 1] (all 0 where they are all equal). Everything is float32.

    The release computes all visual x all time scores and masks what is outside the group; attention inside the groups
    is the same function in linear time and memory. Further, the mean over the question is taken before the product,
    and the projections are applied to the few time tokens rather than to the many visual ones, which changes no value
    but rounding. Differences: the release leaves its ``v_proj`` unused and takes the keys as values (a quirk);
    here the values have their own projection. It draws the kept fraction at random at every call; here the budget is
    the caller's. Choosing passes no gradient: the parameters learn where the model uses ``Selection.scores``.
    With ``released`` the keys are the values, as weights of the release expect.
    """

    level: ClassVar[Literal["frame", "token"]] = "token"
    trainable = True
    needs_time = True
    origin = (
        "Video-XL-Pro, arXiv 2503.18478 (VectorSpaceLab/Video-XL, Apache-2.0); written from a description, "
        "compared with the released code"
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        heads: int = 4
        """Attention heads; must divide the hidden size."""
        released: bool = False
        """The keys are the values too, as in the released module; for its weights (vxl convert)."""

        def __post_init__(self) -> None:
            if self.heads < 1:
                raise ValueError(f"heads={self.heads} must be at least 1")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        if dim % config.heads:
            fits = [n for n in range(1, dim + 1) if dim % n == 0 and n <= 2 * config.heads]
            raise ValueError(f"heads={config.heads} does not divide the hidden size {dim}; take one of {fits}")
        self.text = nn.Linear(dim, dim)
        self.visual = nn.Linear(dim, dim)
        self.time = nn.Linear(dim, dim)
        self.value = None if config.released else nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None and candidates.time_features is not None
        with torch.autocast(candidates.features.device.type, enabled=False):
            question = F.gelu(_linear(self.text, query.float())).mean(0)
            pairs = zip(
                candidates.features.split(GROUPS_AT_ONCE), candidates.time_features.split(GROUPS_AT_ONCE), strict=True
            )
            scores = torch.cat([self._relevance(x.float(), t.float(), question) for x, t in pairs]).flatten()
            low, high = scores.aminmax()
            spread = high - low
            return (scores - low) / torch.where(spread > 0, spread, torch.ones_like(spread))

    def _relevance(self, visual: Tensor, time: Tensor, question: Tensor) -> Tensor:
        """``[g, K]`` scores, not yet normalised, of ``visual [g, K, D]`` with ``time [g, M, D]``."""
        g, m, d = time.shape
        heads = self.config.heads
        keys = _linear(self.time, time).view(g, m, heads, -1)
        values = keys if self.value is None else _linear(self.value, time).view(g, m, heads, -1)
        weight = self.visual.weight.float().view(heads, -1, d)
        # (W x + b) . key = x . (W^T key) + b . key, and W^T key is for M time tokens, not for K visual ones.
        folded = torch.einsum("gmhd,hdc->gchm", keys, weight).reshape(g, d, heads * m)
        offset = torch.einsum("gmhd,hd->ghm", keys, self.visual.bias.float().view(heads, -1))
        logits = (visual @ folded).view(g, -1, heads, m) + offset[:, None]
        attention = (logits * (d // heads) ** -0.5).softmax(-1)
        # z . question = sum over heads and m of a (value . (W_out^T question)_head) + b . question
        wanted = (self.out.weight.float().T @ question).view(heads, -1)
        worth = torch.einsum("gmhd,hd->ghm", values, wanted)
        relevance: Tensor = (attention * worth[:, None]).sum((2, 3)) + self.out.bias.float() @ question
        return relevance

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"heads": 1}, {"released": True}]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in float32, whatever its own dtype."""
    return F.linear(x, layer.weight.float(), layer.bias.float())

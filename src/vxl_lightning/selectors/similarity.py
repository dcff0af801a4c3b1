"""Items that look like the question: cosine similarity in a shared embedding space."""

from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import relevance


class SimilaritySelector(Selector):
    """Scores an item by its best token for each query token, averaged over the query.

    score(g) = mean over q of max over k of cos(query_q, feature_gk), in float32. Query and features must live in
    one space (e.g. projected tokens and the language model's word embeddings). Differs from the usual top-k of
    pooled CLIP embeddings in comparing token by token, so that a needle is not averaged away (the late interaction
    of ColBERT, arXiv 2004.12832). A zero vector is similar to nothing.
    """

    origin = "Top-k by similarity, found throughout the field; token-wise maximum as in arXiv 2004.12832; clean-room"

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return relevance(candidates.features, query)

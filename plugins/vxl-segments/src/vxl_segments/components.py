"""Connected components at a similarity that is found instead of given: trees of strongest links, cut to a count."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from torch import Tensor

from vxl_lightning.compressors.pieces import numbers_at_once

# Similarities are rounded to this step, so that equal cells tie whichever matrix kernel compared them.
SIMILARITY_STEP = 1e-5


@dataclass(frozen=True)
class Links:
    """Edges between numbered nodes, the strongest first, among equals that of the earliest nodes.

    Attributes:
        ends: ``[E, 2]`` int64 on the CPU, the earlier node first.
        similarity: ``[E]`` int64, in steps.
    """

    ends: Tensor
    similarity: Tensor

    @classmethod
    def of(cls, parts: list[tuple[Tensor, Tensor]]) -> "Links":
        """Parts of ``[E, 2]`` ends and ``[E]`` similarities put in order.

        An edge in several parts is one; where they disagree by a step of rounding, the greater similarity holds.
        """
        ends, similarity = torch.cat([e for e, _ in parts]), torch.cat([s for _, s in parts])
        nodes = int(ends.max()) + 1 if len(ends) else 1
        pair, index = (ends[:, 0] * nodes + ends[:, 1]).unique(return_inverse=True)
        similarity = torch.zeros_like(pair).scatter_reduce(0, index, similarity, "amax", include_self=False)
        order = similarity.argsort(descending=True, stable=True)
        return cls(torch.stack([pair // nodes, pair % nodes], 1)[order], similarity[order])

    def strongest(self, count: int) -> "Links":
        return Links(self.ends[:count], self.similarity[:count])

    def above(self, threshold: float) -> "Links":
        return self.strongest(int((self.similarity * SIMILARITY_STEP > threshold).sum()))

    def tree(self, nodes: int) -> "Links":
        """Those that a maximum spanning tree is made of."""
        rank = np.arange(1, len(self.ends) + 1)  # all different: there is one tree
        kept = np.sort(minimum_spanning_tree(self._graph(nodes, rank)).data).astype(np.int64) - 1
        return Links(self.ends[kept], self.similarity[kept])

    def components(self, nodes: int) -> Tensor:
        """``[nodes]`` the component of each node, numbered by their first nodes."""
        _, label = connected_components(self._graph(nodes, np.ones(len(self.ends))), directed=False)
        _, first, index = np.unique(label, return_index=True, return_inverse=True)
        return torch.from_numpy(first.argsort().argsort()[index])

    def _graph(self, nodes: int, weight: Any) -> Any:
        row, col = self.ends.numpy().T
        return coo_array((weight, (row, col)), shape=(nodes, nodes)).tocsr()


def trees(points: Tensor, node: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A maximum spanning tree of each graph in which every two nodes are linked by their cosine.

    Args:
        points: ``[G, N, D]``, G graphs.
        node: ``[G, N]`` the number of each point, increasing within a graph; -1 where there is none.

    Returns:
        Parts of ``[E, 2]`` node numbers and ``[E]`` similarities in steps.
    """
    graphs = max(1, numbers_at_once(points.device) // points.shape[1] ** 2)  # memory does not grow with time
    return [_trees(p, n) for p, n in zip(points.split(graphs), node.split(graphs), strict=True)]


@torch.no_grad()
def _trees(points: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
    """Boruvka's algorithm: every component takes its strongest link to another, until there is none."""
    g, n, _ = points.shape
    device = points.device
    unit = F.normalize(points.float(), dim=-1)
    similarity = (unit @ unit.mT / SIMILARITY_STEP).round().long()
    similarity = similarity.maximum(similarity.mT)
    index = torch.arange(n, device=device)
    pair = torch.minimum(index[:, None], index) * n + torch.maximum(index[:, None], index)
    # One number ranks similarity first and the earlier pair second; no two links have the same, so none close a ring.
    least = -2 * round(1 / SIMILARITY_STEP)
    strength = (similarity - least) * n * n - pair
    strength = strength.masked_fill((node[:, :, None] < 0) | (node[:, None] < 0), -1)
    label = index.expand(g, n)
    found = []
    while True:
        outward = strength.masked_fill(label[:, :, None] == label[:, None], -1)
        best, partner = outward.max(-1)
        limit = torch.full_like(best, -1).scatter_reduce(1, label, best, "amax")
        takes = (best >= 0) & (best == limit.gather(1, label))
        if not bool(takes.any()):
            break
        graph, here = takes.nonzero(as_tuple=True)
        there = partner[graph, here]
        found.append((graph * n + torch.minimum(here, there)) * n + torch.maximum(here, there))
        label = _joined(label, graph, label[graph, here], label[graph, there])
    # Two components may have chosen the same link.
    edge = torch.cat(found).unique() if found else index[:0]
    graph, low, high = edge // (n * n), edge // n % n, edge % n
    ends = torch.stack([node[graph, low], node[graph, high]], 1)
    return ends.cpu(), similarity[graph, low, high].cpu()


def _joined(label: Tensor, graph: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Labels after each component ``here`` followed its link to the component ``there``."""
    root = torch.arange(label.shape[1], device=label.device).repeat(len(label), 1)
    own = root.clone()
    root[graph, here] = there
    # Links differ in strength, so the only ring is of two components that chose the same link: the earlier is the root.
    mutual = (root.gather(1, root) == own) & (own < root)
    root = torch.where(mutual, own, root)
    while True:
        onward = root.gather(1, root)
        if bool((onward == root).all()):
            return root.gather(1, label)
        root = onward

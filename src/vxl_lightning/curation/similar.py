"""All pairs of vectors with a cosine from a threshold on, without comparing all with all.

As in SemDeDup (Abbas et al. 2023, arXiv 2303.09540) vectors are clustered and compared inside their cluster. That alone
misses pairs that lie on two sides of a border between clusters, so a vector near a border is also compared with the
cluster beyond. How near is exact: let ``x`` belong to centroid ``c`` and ``y`` to ``d``, each the one of its largest
inner product, so that ``m(x) = x·(c - d)`` and ``m(y) = y·(d - c)`` are not negative. Then

    m(x) + m(y) = (x - y)·(c - d) <= |x - y| |c - d|,   where   |x - y|^2 = 2 - 2 cos(x, y),

and one of the two is at most ``|c - d| sqrt((1 - threshold) / 2)``. Comparing each vector with every cluster for which
its margin is that small finds every pair. Clusters only save work: the result depends neither on them nor on the seed.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints, NDArray[np.float64]]

SMALL = 4096
"""Vectors up to which one cluster holds them all."""
BLOCK = 8192
"""Vectors whose neighbouring clusters are looked up at a time."""
SPAN = 1 << 18
"""Vectors that are compared with a cluster at a time: many, because small products of matrices are slow."""
TILE = 1 << 22
"""Cosines held at a time."""
SLACK = np.float32(1e-4)
"""More than float32 products are off by: pairs that close to the threshold are judged again in float64."""


def similar_pairs(vectors: Floats, threshold: float, seed: int) -> Pairs:
    """All pairs with a cosine of at least ``threshold``.

    Args:
        vectors: ``[N, D]``; zero vectors match nothing.
        threshold: cosine, above 0.
        seed: of the clusters; it changes how long this takes and nothing else.

    Returns:
        ``left < right`` (places in ``vectors``), sorted, and the cosine of each pair.

    Raises:
        ValueError: vectors of another shape or not finite, or a threshold outside (0, 1].
    """
    blocks = list(pair_blocks(vectors, threshold, seed))
    left, right, cosine = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    # A pair whose vectors are both near the border was found from both sides.
    _, first = np.unique(left * np.int64(len(vectors)) + right, return_index=True)
    return left[first], right[first], cosine[first]


def pair_blocks(vectors: Floats, threshold: float, seed: int, groups: Ints | None = None) -> Iterator[Pairs]:
    """`similar_pairs` piece by piece and unsorted, for when all pairs at once are too many; a pair may come twice.

    Args:
        vectors: as in `similar_pairs`.
        threshold: cosine.
        seed: of the clusters.
        groups: ``[N]``; pairs inside a group are left out.
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors must be finite [N, D], got shape {vectors.shape}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    yield np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    length = np.linalg.norm(vectors, axis=1)
    place = np.flatnonzero(length)
    if len(place) < 2:
        return
    centroids = _centroids(vectors, place, seed)
    with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        # One product a thread: many threads on each of many small products mostly wait for one another.
        blas = ThreadpoolController()
        with blas.limit(limits=1, user_api="blas"):
            blocks = pool.map(lambda rows: (vectors[rows] @ centroids.T).argmax(1), _parts(place, BLOCK))
            cluster = np.concatenate(list(blocks))
        order = np.argsort(cluster, kind="stable")
        place = place[order]
        unit = vectors[place]
        unit /= length[place, None]
        reach = _distances(centroids) * np.float32(np.sqrt((1 - threshold) / 2)) + SLACK
        search = _Search(vectors, place, unit, cluster[order], centroids, reach, threshold, groups)
        for span in _parts(np.arange(len(place)), SPAN):
            with blas.limit(limits=1, user_api="blas"):
                found = list(pool.map(search.compare, *search.near(pool.map(search.bordering, _parts(span, BLOCK)))))
            yield from chain.from_iterable(found)


def _parts(rows: Ints, size: int) -> Iterator[Ints]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _centroids(vectors: Floats, place: Ints, seed: int) -> Floats:
    """``[K, D]``: as many as make looking up clusters and comparing inside them cost the same order."""
    if len(place) <= SMALL:
        return vectors[place[:1]]
    count = round(len(place) ** 0.5)
    sample = np.sort(np.random.default_rng(seed).choice(place, min(64 * count, len(place)), replace=False))
    kmeans = faiss.Kmeans(vectors.shape[1], count, niter=8, seed=seed, spherical=True)
    kmeans.train(vectors[sample])
    assert kmeans.centroids is not None
    return kmeans.centroids


def _distances(centroids: Floats) -> Floats:
    squares = (centroids**2).sum(1)
    distances: Floats = np.sqrt(np.maximum(squares[:, None] + squares - 2 * centroids @ centroids.T, 0))
    return distances


@dataclass(frozen=True)
class _Search:
    """Vectors in the order of their clusters; rows are places in that order.

    Attributes:
        vectors: ``[N, D]``, as they were given.
        place: ``[M]`` where each row is in ``vectors``.
        unit: ``[M, D]`` of unit length.
        cluster: ``[M]``, ascending.
        centroids: ``[K, D]``.
        reach: ``[K, K]``, the largest margin of a vector of one cluster that must be compared with the other.
        threshold: cosine.
        groups: ``[N]``, or None.
    """

    vectors: Floats
    place: Ints
    unit: Floats
    cluster: Ints
    centroids: Floats
    reach: Floats
    threshold: float
    groups: Ints | None

    def bordering(self, rows: Ints) -> tuple[Ints, Ints]:
        """Each row with each cluster that it must be compared with."""
        scores = self.unit[rows] @ self.centroids.T
        own = self.cluster[rows]
        margin = np.take_along_axis(scores, own[:, None], 1) - scores
        row, other = np.nonzero(margin <= self.reach[own])
        return rows[row], other

    def near(self, bordering: Iterable[tuple[Ints, Ints]]) -> tuple[list[int], list[Ints]]:
        """The same by cluster: clusters, and the rows of each, ascending."""
        row, other = (np.concatenate(parts) for parts in zip(*bordering, strict=True))
        ends = np.cumsum(np.bincount(other, minlength=len(self.centroids)))
        rows = np.split(row[np.argsort(other, kind="stable")], ends[:-1])
        return list(range(len(rows))), rows

    def compare(self, number: int, rows: Ints) -> list[Pairs]:
        """Pairs of a row and a member of the cluster."""
        start, stop = np.searchsorted(self.cluster, [number, number + 1]).tolist()
        found: list[Pairs] = []
        for left, right in _close(self.unit, rows, start, stop, self.threshold) if start < stop else ():
            # Inside a tile of its own cluster a pair comes in both orders.
            keep = (left < right) | (self.cluster[left] != self.cluster[right])
            a, b = self.place[left[keep]], self.place[right[keep]]
            if self.groups is not None:
                outside = self.groups[a] != self.groups[b]
                a, b = a[outside], b[outside]
            found += _judged(self.vectors, np.minimum(a, b), np.maximum(a, b), self.threshold)
        return found


def _close(unit: Floats, rows: Ints, start: int, stop: int, threshold: float) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of a row and one of ``start`` to ``stop``, a cluster, whose cosine may reach the threshold."""
    inside = (rows >= start) & (rows < stop)
    size = max(1, TILE // (stop - start))
    # The cluster's own rows look ahead only: what lies before them has looked at them.
    ahead = ((some, int(some[0])) for some in _parts(rows[inside], size))
    for some, first in chain(ahead, ((some, start) for some in _parts(rows[~inside], size))):
        found = np.flatnonzero(unit[some] @ unit[first:stop].T >= np.float32(threshold) - SLACK)
        yield some[found // (stop - first)], first + found % (stop - first)


def _judged(vectors: Floats, left: Ints, right: Ints, threshold: float) -> Iterator[Pairs]:
    """The pairs that reach the threshold, by cosines that no order of summation or rounding shows in."""
    for some in _parts(np.arange(len(left)), BLOCK):
        a, b = vectors[left[some]].astype(np.float64), vectors[right[some]].astype(np.float64)
        cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
        good = cosine >= threshold
        yield left[some][good], right[some][good], cosine[good]

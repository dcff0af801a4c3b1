"""Exactly the pairs that comparing all with all finds, whatever the clusters."""

import faiss
import numpy as np
import pytest

from vxl_lightning.curation import similar
from vxl_lightning.curation.similar import pair_blocks, similar_pairs


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around 20 centres, one in ten of them nearly a copy of another."""
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((20, dim))[draw.integers(0, 20, count)] + draw.standard_normal((count, dim))
    copies = draw.permutation(count)[: count // 10]
    vectors[copies] = vectors[draw.integers(0, count, len(copies))] + 0.15 * draw.standard_normal((len(copies), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def spread(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Directions without any clusters: every pair may lie across a border."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def all_with_all(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unit = vectors.astype(np.float64)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.divide(unit, length, out=np.zeros_like(unit), where=length > 0)
    cosine = np.triu(unit @ unit.T, 1)
    left, right = np.nonzero(cosine >= threshold)
    return left, right, cosine[left, right]


@pytest.mark.parametrize("threshold", [0.9, 0.97])
@pytest.mark.parametrize("vectors", [clustered(3000, 48), clustered(5000, 32, 1), spread(5000, 4), spread(6000, 8)])
def test_all_pairs_are_found(vectors: np.ndarray, threshold: float) -> None:
    left, right, cosine = similar_pairs(vectors, threshold, seed=0)
    expected = all_with_all(vectors, threshold)
    assert len(expected[0]) > 20
    np.testing.assert_array_equal(left, expected[0])
    np.testing.assert_array_equal(right, expected[1])
    np.testing.assert_allclose(cosine, expected[2], atol=1e-12)


def test_many_small_clusters_and_tiles_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = spread(1200, 5)
    whole = similar_pairs(vectors, 0.95, seed=0)
    for name, value in {"SMALL": 100, "BLOCK": 90, "SPAN": 250, "TILE": 700}.items():
        monkeypatch.setattr(similar, name, value)
    pieces = similar_pairs(vectors, 0.95, seed=0)
    assert len(whole[0]) > 1000
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_a_part_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    close = similar._close

    def counting(unit, rows, start, stop, threshold):  # type: ignore[no-untyped-def]
        nonlocal compared
        compared += len(rows) * (stop - start)
        return close(unit, rows, start, stop, threshold)

    monkeypatch.setattr(similar, "_close", counting)
    similar_pairs(clustered(10_000, 64), 0.97, seed=0)
    assert compared < 0.2 * 10_000**2


def test_as_faiss_finds_them() -> None:
    vectors = clustered(8000, 64, 2)
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    limits, _, found = index.range_search(vectors, 0.95)
    query = np.repeat(np.arange(8000), np.diff(limits.astype(np.int64)))
    theirs = set(zip(query[query < found].tolist(), found[query < found].tolist(), strict=True))
    left, right, _ = similar_pairs(vectors, 0.95, seed=0)
    assert len(theirs) > 300
    assert len(theirs & set(zip(left.tolist(), right.tolist(), strict=True))) >= 0.99 * len(theirs)


def test_neither_the_seed_nor_threads_change_the_result() -> None:
    vectors = clustered(6000, 24)
    first = similar_pairs(vectors, 0.95, seed=0)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if threads > 1 else 2)
    try:
        second = similar_pairs(vectors, 0.95, seed=7)
    finally:
        faiss.omp_set_num_threads(threads)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_vectors_pair_all_with_all_and_zero_ones_with_none() -> None:
    vectors = np.zeros((6, 3), np.float32)
    vectors[[1, 3, 4]] = [0.6, 0.8, 0]
    left, right, cosine = similar_pairs(vectors, 1.0, seed=0)
    assert (left.tolist(), right.tolist()) == ([1, 1, 3], [3, 4, 4])
    np.testing.assert_array_equal(cosine, 1)
    for empty in (vectors[:0], vectors[:1], vectors[[0, 2]], vectors[[0, 1]]):
        assert [part.tolist() for part in similar_pairs(empty, 0.5, seed=0)] == [[], [], []]


def test_pairs_inside_a_group_are_left_out() -> None:
    vectors = np.tile(np.float32([1, 0]), (5, 1))
    found = list(pair_blocks(vectors, 0.9, 0, groups=np.array([0, 0, 1, 1, 1])))
    pairs = {(a, b) for left, right, _ in found for a, b in zip(left.tolist(), right.tolist(), strict=True)}
    assert pairs == {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)}


@pytest.mark.parametrize("vectors", [np.ones(3, np.float32), np.full((3, 2), np.nan, np.float32)])
def test_wrong_vectors_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        similar_pairs(vectors, 0.9, seed=0)


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.1, float("nan")])
def test_wrong_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        similar_pairs(np.eye(3, dtype=np.float32), threshold, seed=0)

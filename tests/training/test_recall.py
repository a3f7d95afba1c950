"""Recall from descriptors alone: scores by kind of map, ranks in pieces, intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from support.score_reference import binary_scores, weighed_best
from tatvpr_edge.models.evaluate.recall import (
    BestPlaces,
    paired_bootstrap,
    recall,
    rows_of,
    scores_of,
    weighed_scores_of,
)
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.scores import binary_rows


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def similarity(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], kind: str = "float"
) -> NDArray[np.float32]:
    return scores_of(rows_of(queries, kind), rows_of(gallery, kind), kind)


def ranks_in_pieces(
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    allowed: NDArray[np.bool_] | None = None,
    piece: int = 7,
    count: int = 10,
) -> NDArray[np.int64]:
    best = BestPlaces(len(scores), count)
    for start in range(0, scores.shape[1], piece):
        part = slice(start, start + piece)
        may = None if allowed is None else allowed[:, part]
        best.add(scores[:, part], right[:, part], may)
    return best.ranks()


@pytest.mark.parametrize("at", [1, 5, 10])
def test_recall_agrees_with_scikit_learn_to_the_last_query(at: int) -> None:
    rng = np.random.default_rng(0)
    gallery, queries = unit(rng, 200, 24), unit(rng, 150, 24)
    where_g, where_q = rng.uniform(0, 200, (200, 2)), rng.uniform(0, 200, (150, 2))
    right = np.hypot(*(where_q[:, None] - where_g).transpose(2, 0, 1)) <= 25
    found = NearestNeighbors(n_neighbors=at, metric="cosine").fit(gallery)
    nearest = found.kneighbors(queries, return_distance=False)
    answerable = right.any(1)
    hits = np.array([right[q, nearest[q]].any() for q in range(150)])
    ranks = ranks_in_pieces(similarity(queries, gallery), right)
    np.testing.assert_array_equal((ranks >= 0) & (ranks < at), hits)
    assert recall(ranks, at) == pytest.approx(100 * hits[answerable].mean())


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 6))
def test_ranks_agree_with_a_plain_loop(seed: int, piece: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (3, 6)).astype(np.float32)  # many ties
    right, allowed = rng.random((3, 6)) < 0.3, rng.random((3, 6)) < 0.7
    for q, rank in enumerate(ranks_in_pieces(scores, right, allowed, piece, count)):
        order = sorted((i for i in range(6) if allowed[q, i]), key=lambda i: (-scores[q, i], i))
        hits = [position for position, i in enumerate(order) if right[q, i]]
        assert rank == (min(hits[0], count) if hits else -1)


def test_scores_by_kind_are_those_of_place_maps() -> None:
    rng = np.random.default_rng(1)
    a, b = unit(rng, 7, 40), unit(rng, 9, 40)
    binary = similarity(a, b, "binary")
    bits = (a[:, None] > 0) != (b > 0)
    np.testing.assert_allclose(binary, 1 - 2 * bits.sum(-1) / 40, atol=1e-6)
    np.testing.assert_allclose(similarity(a, b, "int8"), a @ b.T, atol=0.02)
    with pytest.raises(UsageError, match="float, int8, binary, weighed"):
        similarity(a, b, "fp8")


@pytest.mark.parametrize("piece", [5, 64, 300])
def test_answers_of_a_weighed_map_are_those_of_place_maps(piece: int) -> None:
    rng = np.random.default_rng(5)
    queries, gallery = unit(rng, 12, 64), unit(rng, 300, 64)
    queries[3] = np.float32(64**-0.5)  # all numbers weigh the same: ties
    allowed, right = rng.random((12, 300)) < 0.8, rng.random((12, 300)) < 0.02
    asked, best = rows_of(queries, "weighed"), BestPlaces(12, 10, weighed=True)
    for start in range(0, 300, piece):
        part = slice(start, start + piece)
        stored = rows_of(gallery[part], "weighed")
        plain = scores_of(asked, stored, "weighed")
        best.add(plain, right[:, part], allowed[:, part], weighed_scores_of(asked, stored))
    best.finish()
    bits = binary_rows(gallery)
    for number, query in enumerate(queries):
        plain = binary_scores(binary_rows(query[None])[0], bits, 64)
        plain[~allowed[number]] = -np.inf
        order, scores = weighed_best(plain, query, None, bits, 16)
        np.testing.assert_array_equal(best.places[number], order)
        np.testing.assert_array_equal(best.scores[number], scores)
        np.testing.assert_array_equal(best.right[number], right[number, order])


def test_bootstrap_of_equal_describers_is_zero_and_of_clear_ones_excludes_zero() -> None:
    hits = np.random.default_rng(0).random(300) < 0.6
    assert paired_bootstrap(hits, hits) == type(paired_bootstrap(hits, hits))(0.0, 0.0, 0.0)
    better = hits | (np.random.default_rng(1).random(300) < 0.3)
    gain = paired_bootstrap(better, hits)
    assert 0 < gain.low <= gain.mean <= gain.high
    # The same queries counted five times say no more than once.
    blocks = np.tile(np.arange(300), 5)
    repeated = paired_bootstrap(np.tile(better, 5), np.tile(hits, 5), blocks=blocks)
    assert repeated.high - repeated.low == pytest.approx(gain.high - gain.low, rel=0.15)

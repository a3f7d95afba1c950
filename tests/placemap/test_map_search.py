"""A search finds what a plain computation finds, best first, ties to the lower place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.score_reference import best, binary_scores, int8_scores
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.reference import quantise
from tatvpr_edge.spec.scores import binary_rows, int8_rows, nearest_band


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 70))
def test_best_are_sorted_and_ties_go_to_the_lower_place(values: list[int], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    wanted = sorted(range(len(values)), key=lambda place: (-values[place], place))[:count]
    assert best(scores, count).tolist() == wanted


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 7, 64, 512, 1040, 1041, 4096]),
    st.integers(1, 40),
)
def test_int8_scores_are_the_formula(seed: int, dim: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((places, dim)).astype(np.float32)
    rows[rows == 0] = 1
    query = rows[-1:] * np.float32(3)
    stored, norms = int8_rows(rows)
    q, norm = int8_rows(query)
    scores = int8_scores(q[0], norm[0], stored, norms)
    exact_q = quantise(query)[0][0].astype(int)
    for place in range(places):
        dot = int((exact_q * quantise(rows[place])[0].astype(int)).sum())
        score = (np.float32(dot) * norm[0]) * norms[place]
        assert scores[place] == min(max(score, np.float32(-1)), np.float32(1))
    assert scores[-1] == pytest.approx(1, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 40))
def test_binary_scores_are_the_formula(seed: int, eighths: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((places, 8 * eighths)).astype(np.float32)
    scores = binary_scores(binary_rows(rows[:1])[0], binary_rows(rows), 8 * eighths)
    mean = rng.standard_normal(8 * eighths).astype(np.float32)
    np.testing.assert_array_equal(binary_rows(rows, mean), np.packbits(rows > mean, 1, "little"))
    for place in range(places):
        hamming = int(((rows[0] > 0) != (rows[place] > 0)).sum())
        wanted = np.float32(1) - (np.float32(2) * np.float32(hamming)) / np.float32(8 * eighths)
        assert scores[place] == wanted
    assert scores[0] == 1


def test_the_extremes_of_int8_are_exact() -> None:
    rows = np.full((3, 65536), 1.0, dtype=np.float32)
    rows[1] = -1
    stored, norms = int8_rows(rows)
    scores = int8_scores(stored[0], norms[0], stored, norms)
    assert scores.tolist() == [scores[0], -scores[0], scores[0]]
    assert scores[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("k", "tokens", "wanted"),
    [
        (1.0, 1.0, 0),
        (0.9, 1.0, 0),
        (0.8, 1.0, 3),
        (0.3, 1.0, 3),
        (0.2, 0.9, 2),
        (0.2, 0.5, 1),
        (0.2, 0.1, 1),
        (0.01, 1.0, 2),
        (0.5, 0.1, 3),
    ],
)
def test_the_band_of_the_nearest_higher_k_is_searched(k: float, tokens: float, wanted: int) -> None:
    assert nearest_band([(1.0, 1.0), (0.2, 0.5), (0.2, 1.0), (0.8, 0.7)], k, tokens) == wanted


def test_without_a_higher_one_the_highest_is_searched() -> None:
    assert nearest_band([(0.1, 1.0), (0.4, 1.0), (0.2, 1.0)], 0.9, 1.0) == 1
    assert nearest_band([(0.4, 0.2), (0.4, 0.6), (0.4, 0.6)], 0.9, 1.0) == 1


def test_a_zero_descriptor_has_no_direction() -> None:
    with pytest.raises(MapError, match="zero"):
        int8_rows(np.zeros((1, 8), dtype=np.float32))
    with pytest.raises(MapError, match="descriptor 1 is zero"):
        binary_rows(np.eye(2, 8, dtype=np.float32) * np.float32([[1], [1e-9]]))

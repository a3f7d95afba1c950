"""The NumPy reference says what the numerics page says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import golden_cases
from tatvpr_edge.spec import floats, packing, reference
from tatvpr_edge.spec.errors import ModelError, UsageError
from tatvpr_edge.spec.limits import check_fraction, kept
from tatvpr_edge.spec.operators import OPERATORS

# A change of this digest is a change of the contract: artifacts in the field would disagree.
GOLDEN_DIGEST = "24f0836811827d3ce017b87f7c79e44965050f599e2d4dd57850311990919cd6"


def test_golden_vectors_have_not_changed() -> None:
    assert golden_cases.digest() == GOLDEN_DIGEST


def test_every_operator_has_golden_vectors() -> None:
    assert {case.operator for case in golden_cases.cases()} == set(OPERATORS)


@given(st.integers(1, 9), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packing_goes_round(rows: int, columns: int, seed: int) -> None:
    w = np.random.default_rng(seed).integers(-1, 2, (rows, columns)).astype(np.int8)
    packed = packing.pack_ternary(w)
    assert packed.shape == (rows, -(-columns // 4))
    assert np.array_equal(packing.unpack_ternary(packed, columns), w)


def test_packed_bytes_are_fixed() -> None:
    w = np.array([[-1, 0, 1, 1, -1]], dtype=np.int8)
    # codes 0 1 2 2 | 0 1 1 1, lowest bits first
    assert packing.pack_ternary(w).view(np.uint8).tolist() == [[0b10100100, 0b01010100]]


def test_illegal_code_and_padding_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="illegal ternary code 3 in row 1"):
        packing.unpack_ternary(np.array([[0x55], [0x57]], dtype=np.int8), 4)
    with pytest.raises(ModelError, match="padding"):
        packing.unpack_ternary(np.array([[0x00]], dtype=np.int8), 3)
    with pytest.raises(ModelError, match="cannot hold 9"):
        packing.unpack_ternary(np.zeros((1, 2), dtype=np.int8), 9)


@pytest.mark.parametrize("bad", [0, -0.1, 1.0001, float("nan"), "fast", None, True, float("inf")])
def test_k_outside_its_range_says_the_range(bad: object) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        check_fraction(bad, "k")


@given(st.floats(2**-20, 1, width=32), st.integers(1, 4096))
def test_kept_is_rounded_half_up_and_clipped(k: float, total: int) -> None:
    n = kept(k, total)
    assert 1 <= n <= total
    assert n == 1 or n == total or abs(n - k * total) <= 0.5


@given(
    st.integers(1, 6),
    st.sampled_from([4, 12, 20, 64]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 1),
    st.floats(2**-6, 1, width=32),
    st.integers(0, 2**32 - 1),
)
def test_gate_keeps_the_largest_and_prefers_lower_index(
    t: int, width: int, group: int, scope: int, k: float, seed: int
) -> None:
    """Against a slow statement of the same rule with Python's stable sort."""
    x = np.random.default_rng(seed).integers(-4, 5, (t, width)).astype(np.float32)
    q, s = reference.top_k_gate(x, k, group, scope)
    dense, _ = reference.quantise(x)
    n = kept(k, width // group)
    magnitude = np.abs(dense.astype(int)).reshape(t, -1, group).sum(-1)
    for row in range(t):
        score = magnitude.sum(0) if scope else magnitude[row]
        best = sorted(range(len(score)), key=lambda g: (-score[g], g))[:n]
        keep = np.repeat([g in best for g in range(len(score))], group)
        assert np.array_equal(q[row], np.where(keep, dense[row], 0))
    assert s.shape == (t, 1)


def test_all_zero_token_stays_zero_and_finite() -> None:
    q, s = reference.top_k_gate(np.zeros((1, 8), dtype=np.float32), 0.5)
    assert not q.any()
    assert s[0, 0] == np.float32(1e-5) / np.float32(127)


def test_attention_equals_float_attention_closely() -> None:
    """The 8-bit operator approximates softmax(q k / sqrt(d)) v."""
    qkv = np.random.default_rng(3).normal(size=(33, 3 * 64)).astype(np.float32)
    y, a = reference.quant_attention(qkv, 2)
    for h in range(2):
        q, k, v = (qkv[:, 64 * j + 32 * h :][:, :32].astype(np.float64) for j in range(3))
        logits = q @ k.T / math.sqrt(32)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert np.abs(y[:, 32 * h :][:, :32] - p @ v).max() < 0.06
    assert a.sum() == pytest.approx(2.0, abs=1e-5)


@given(st.floats(-87, 88, width=32))
def test_exp_is_close_to_libm(x: float) -> None:
    assert float(floats.exp32(np.float32(x))) == pytest.approx(math.exp(x), rel=2e-7)


@given(st.floats(2**-100, 2**100, width=32))
def test_log_is_close_to_libm(x: float) -> None:
    assert float(floats.log32(np.float32(x))) == pytest.approx(math.log(x), rel=3e-7, abs=1e-7)


@given(st.floats(-6, 6, width=32))
def test_erf_is_close_to_libm(x: float) -> None:
    assert float(floats.erf32(np.float32(x))) == pytest.approx(math.erf(x), abs=5e-7)


def test_no_result_of_exp_is_subnormal() -> None:
    x = np.linspace(-120, 0, 20001).astype(np.float32)
    y = floats.exp32(x)
    assert ((y == 0) | (y >= np.finfo(np.float32).tiny)).all()


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_sum_is_sixteen_strided_partials_and_a_tree(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=n).astype(np.float32)
    partial = [np.float32(0)] * 16
    for i, value in enumerate(x):
        partial[i % 16] = np.float32(partial[i % 16] + value)
    for width in (8, 4, 2, 1):
        partial = [np.float32(partial[i] + partial[i + width]) for i in range(width)]
    assert floats.sum32(x) == partial[0]


def test_patch_embedding_equals_the_float_convolution_it_was_made_from() -> None:
    rng = np.random.default_rng(5)
    w = rng.normal(size=(6, 4 * 4 * 3)).astype(np.float32)
    b = rng.normal(size=6).astype(np.float32)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    packed, scale, bias = reference.quantise_patch_embed(w, b, mean, std)
    y = reference.patch_embed(pixels, packed, scale, bias)
    normal = (pixels / 255.0 - mean) / std
    tiles = normal.reshape(2, 4, 2, 4, 3).transpose(0, 2, 1, 3, 4).reshape(4, -1)
    expected = tiles @ w.T + b
    # 8-bit weights: each is off by at most half a step
    bound = 0.5 * scale * np.abs(pixels.astype(float) - 128).reshape(-1).max() * w.shape[1] + 1e-3
    assert (np.abs(y - expected) <= bound).all()
    assert np.abs(y - expected).max() < 0.1 * np.abs(expected).max()

"""The C core equals the NumPy reference: integers and floats bit for bit, every kernel variant."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from core_driver import OK, ROWS2, TRIT5, Driver, LinearCase, Weights
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tatvpr_edge.spec import floats, limits, reference
from tatvpr_edge.spec.packing import pack_ternary

F32 = NDArray[np.float32]


def same_bits(a: F32, b: F32) -> None:
    """Equal to the last bit (which also tells -0 from 0)."""
    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    assert a.shape == b.shape
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def activations(rng: np.random.Generator, t: int, k: int, kind: str) -> F32:
    """Inputs that tell kernels apart: ties, zeros, one huge value, rows that are nothing like the
    ones before."""
    x = rng.standard_normal((t, k)).astype(np.float32)
    if kind == "ties":
        x = np.round(x * 2) / 2
    elif kind == "zeros":
        x[rng.random(t) < 0.5] = 0
    elif kind == "huge":
        x[:, rng.integers(k)] *= 1e6
    elif kind == "tiny":
        x *= 1e-7
    elif kind == "uneven":
        x *= 10.0 ** rng.integers(-9, 10, (t, 1))
        x[rng.random(t) < 0.3] = rng.choice((-1, 1), k)
    return x.astype(np.float32)


#: Variants with a matmul of aligned fours of channels.
HAVE_FOURS = ("avx512-vnni", "avx-vnni", "avx2", "neon-i8mm", "neon-dotprod")
#: The longest rows that NEON and AVX-512 rank by themselves, and longer ones than either does.
LONGEST = (4032, 4096, 4112)
KINDS = ("normal", "ties", "zeros", "huge", "tiny", "uneven")


def expected_linear(case: LinearCase) -> F32:
    x = case.x
    if case.gelu:
        x = reference.gelu(x)
    if case.norm is not None:
        x = reference.layer_norm(x, *case.norm)
    k = case.fixed_k or case.k
    q, s = reference.top_k_gate(x, k, case.group, case.scope)
    y = reference.ternary_mat_mul(q, s, pack_ternary(case.w), case.scale, case.bias)
    return y if case.residual is None else case.residual + y


@st.composite
def linear_cases(draw: st.DrawFn, most_k: int = 200, most_n: int = 300) -> LinearCase:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    group = draw(st.sampled_from((1, 1, 4, 4, 3, 8)))
    k_in = draw(st.integers(1, most_k // group)) * group
    n_out = draw(st.one_of(st.integers(1, most_n), st.sampled_from((64, 128, 192, 256, 320))))
    t = draw(st.one_of(st.integers(1, 9), st.integers(60, 70)))
    x = activations(rng, t, k_in, draw(st.sampled_from(KINDS)))
    norm = None
    if draw(st.booleans()):
        gamma = rng.standard_normal(k_in).astype(np.float32)
        norm = (gamma, rng.standard_normal(k_in).astype(np.float32))
    rows = n_out if draw(st.booleans()) else 1
    residual = rng.standard_normal((t, n_out)).astype(np.float32)
    return LinearCase(
        x=x,
        w=rng.integers(-1, 2, (n_out, k_in)).astype(np.int8),
        scale=rng.uniform(0.01, 1, rows).astype(np.float32),
        bias=rng.standard_normal(n_out).astype(np.float32),
        k=draw(st.one_of(st.sampled_from((1.0, 0.2, 0.01)), st.floats(2**-7, 1, width=32))),
        group=group,
        scope=draw(st.integers(0, 1)),
        gelu=draw(st.booleans()),
        norm=norm,
        residual=residual if draw(st.booleans()) else None,
        fixed_k=draw(st.sampled_from((0.0, 1.0))),
        layout=draw(st.sampled_from((ROWS2, TRIT5))),
    )


@given(case=linear_cases())
def test_gated_linear_equals_the_reference(native: Driver, case: LinearCase) -> None:
    for kernels in native.kernels:
        same_bits(native.linear(kernels, case), expected_linear(case))


@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.sampled_from((1, 4, 8, 10, 13)),
    k_in=st.sampled_from((257, 384, 640, 1536, 4100, 12544)),
    loud=st.sampled_from((0, 1, 2)),
    k=st.sampled_from((1.0, 0.69, 0.3, 0.2)),
    group=st.sampled_from((1, 4)),
)
def test_long_rows_equal_the_reference(
    native: Driver, seed: int, t: int, k_in: int, loud: int, k: float, group: int
) -> None:
    """Rows whose sums fit 16 bits, and rows (one of them, or all) where they do not; rows of more
    parts than kernels of fours divide them into."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((t, k_in)).astype(np.float32)
    w = rng.integers(-1, 2, (70, k_in)).astype(np.int8)
    if loud:
        x[: t if loud == 2 else 1] = 1.0
        x[0] *= np.float32(rng.choice((-1, 1)))
        w[:3] = rng.choice((-1, 1))
    scale, bias = np.full(1, 0.5, np.float32), rng.standard_normal(70).astype(np.float32)
    case = LinearCase(x, w, scale, bias, k, group if k_in % group == 0 else 1)
    expected = expected_linear(case)
    for kernels in native.kernels:
        same_bits(native.linear(kernels, case), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.sampled_from((1, 5, 65, 130)),
    dim=st.sampled_from((7, 16, 64, 96)),
    k=st.sampled_from((1.0, 0.4, 0.1)),
    group=st.sampled_from((1, 4)),
    scope=st.integers(0, 1),
)
def test_mlp_in_tiles_equals_the_reference(
    native: Driver, seed: int, t: int, dim: int, k: float, group: int, scope: int
) -> None:
    rng = np.random.default_rng(seed)
    if dim % group:
        group = 1
    x = rng.standard_normal((t, dim)).astype(np.float32)

    def case(inputs: F32, n_out: int, gelu: bool) -> LinearCase:
        k_in = inputs.shape[1]
        gamma, beta = rng.standard_normal((2, k_in)).astype(np.float32)
        w = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        bias = rng.standard_normal(n_out).astype(np.float32)
        scale = np.full(1, 0.25, np.float32)
        return LinearCase(inputs, w, scale, bias, k, group, scope, gelu, (gamma, beta))

    first = case(x, 4 * dim, False)
    hidden = expected_linear(first)
    second = case(hidden, dim, True)
    second.residual = x
    for kernels in native.kernels:
        same_bits(native.mlp(kernels, first, second), expected_linear(second))


@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.one_of(st.integers(1, 20), st.sampled_from((64, 65, 131))),
    heads=st.integers(1, 3),
    head=st.sampled_from((1, 8, 15, 32, 64, 80)),
    scale=st.sampled_from((0.01, 1.0, 8.0)),
)
def test_attention_equals_the_reference(
    native: Driver, seed: int, t: int, heads: int, head: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    qkv = (rng.standard_normal((t, 3 * heads * head)) * scale).astype(np.float32)
    y, a = reference.quant_attention(qkv, heads)
    for kernels in native.kernels:
        got_y, got_a = native.attention(kernels, qkv, heads)
        same_bits(got_y, y)
        same_bits(got_a, a)


@given(
    seed=st.integers(0, 2**32 - 1),
    patch=st.sampled_from((1, 2, 7, 14, 16)),
    side=st.integers(1, 4),
    dim=st.sampled_from((1, 5, 16, 33, 64)),
)
def test_patch_embed_equals_the_reference(
    native: Driver, seed: int, patch: int, side: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    size = patch * side
    pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    if seed % 3 == 0:
        pixels[:] = 0  # the largest sums
    w = rng.integers(-127, 128, (dim, patch * patch * 3)).astype(np.int8)
    if seed % 3 == 0:
        w[:] = -127
    scale, bias = rng.standard_normal((2, dim)).astype(np.float32)
    weights = Weights()
    offsets = (weights.add(w), weights.add(scale), weights.add(bias))
    expected = reference.patch_embed(pixels, w, scale, bias)
    for kernels in native.kernels:
        status, (y,) = native.call(
            "patch_embed",
            kernels,
            (size, patch, dim, *offsets, 1),
            (1.0, 1.0),
            (weights.data, pixels.tobytes()),
        )
        assert status == OK
        same_bits(y.view(np.float32).reshape(-1, dim), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    k_in=st.one_of(st.integers(1, 70), st.sampled_from((192, 384, 1000, 1536, 3072, *LONGEST))),
    group=st.sampled_from((1, 2, 4, 8, 12, 16)),
    k=st.floats(2**-8, 1, width=32),
    kind=st.sampled_from(KINDS),
)
def test_gate_keeps_what_the_reference_keeps(
    native: Driver, seed: int, k_in: int, group: int, k: float, kind: str
) -> None:
    k_in = -(-k_in // group) * group
    rng = np.random.default_rng(seed)
    t = 9  # a kernel may take four rows together, and begin with what the ones before said
    check_gate(native, activations(rng, t, k_in, kind), k, group)


def test_gate_keeps_what_the_reference_keeps_in_every_shape(native: Driver) -> None:
    """Rows that end with a register and beside its end, as few and as many groups as there are."""
    rng = np.random.default_rng(8)
    for group, about in itertools.product((1, 2, 4, 8, 12, 16), (1, 64, 200, 4032, 4112)):
        groups = max(about // group, 1)
        x = rng.standard_normal((5, groups * group)).astype(np.float32)
        x[1] = np.round(x[1])
        x[2] = np.where(rng.random(x.shape[1]) < 0.5, 1.0, 0.008)  # ties at the cut wherever it is
        x[4] = rng.choice((-1, 1), x.shape[1])
        for keep in {1, min(2, groups), (groups + 1) // 2, max(groups - 1, 1), groups}:
            check_gate(native, x, keep / groups, group)


@pytest.mark.parametrize("k_in", [64, 192, 200, 768])
@pytest.mark.parametrize("k", [0.02, 0.3, 0.7, 0.9])
def test_gate_keeps_what_the_reference_keeps_where_the_rows_before_mislead(
    native: Driver, k_in: int, k: float
) -> None:
    rng = np.random.default_rng(k_in)
    x = rng.standard_normal((23, k_in)).astype(np.float32)
    x[:5] = np.where(rng.random((5, k_in)) < 0.6, 0.008, 0.0)  # ones, fewer than stay at .9
    x[:5, 1] = 1.0
    x[[5, 14]] *= np.float32(1e3)  # the same integers, another cut in units of x
    x[[6, 15], 3:] = 0.0  # fewer are not 0 than stay
    x[7] = 1.0
    x[8, 2] = 1e6
    x[[9, 16]] **= 5
    x[17, : k_in - 8] *= np.float32(1e-3)
    x[18] = np.where(rng.random(k_in) < 0.5, 1.0, 0.008)  # halves at the ends, ties at both
    check_gate(native, x, k, 1)


def check_gate(native: Driver, x: F32, k: float, group: int) -> None:
    """Rows, scales, sums and every kind of list of every variant are the reference's."""
    t, k_in = x.shape
    q, s = reference.top_k_gate(x, k, group)
    keep = limits.kept(k, k_in // group)
    for kernels in native.kernels:
        fours = (4,) if group % 4 == 0 and kernels in HAVE_FOURS else ()
        for listed in (0, 1, *fours):
            status, out = native.call(
                "gate", kernels, (t, k_in, keep, group, listed), (), (x.tobytes(),)
            )
            assert status == OK
            if not listed:
                rows = out[0].view(np.int8).reshape(t, -1)
                np.testing.assert_array_equal(rows[:, :k_in], q)
                assert not rows[:, k_in:].any()
            same_bits(out[1].view(np.float32), s[:, 0])
            np.testing.assert_array_equal(out[2].view(np.int32), q.sum(axis=1, dtype=np.int32))
            if listed:
                check_lists(q, *out[3:], listed)


def check_lists(
    q: NDArray[np.int8],
    count: NDArray[np.uint8],
    index: NDArray[np.uint8],
    value: NDArray[np.uint8],
    listed: int,
) -> None:
    """The lists of channels, or of aligned fours of them, spell the rows, in rising order; those of
    channels are padded to four with (0, 0)."""
    t, k_in = q.shape
    indices = index.view(np.uint16).reshape(t, -1)
    values = value.view(np.int8).reshape(t, -1)
    for row in range(t):
        n = int(count.view(np.int32)[row])
        rebuilt = np.zeros((k_in // listed, listed), np.int8)
        rebuilt[indices[row, :n]] = values[row, : listed * n].reshape(n, listed)
        np.testing.assert_array_equal(rebuilt.reshape(-1), q[row])
        assert (np.diff(indices[row, :n].astype(int)) > 0).all()
        if listed == 1:
            padded = -(-n // 4) * 4
            assert not indices[row, n:padded].any() and not values[row, n:padded].any()


@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.integers(1, 40),
    dim=st.one_of(st.integers(1, 70), st.sampled_from((192, 384, 768))),
    scale=st.sampled_from((1e-4, 1.0, 1e4)),
)
def test_float_operators_equal_the_reference(
    native: Driver, seed: int, t: int, dim: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((t, dim)) * scale).astype(np.float32)
    gamma, beta = rng.standard_normal((2, dim)).astype(np.float32)
    share = rng.uniform(0.01, 2.0, t).astype(np.float32)
    weights = Weights()
    weights.add(gamma)
    where = weights.add(beta)
    data = (weights.data, x.tobytes())
    for kernels in native.kernels:
        _, (y,) = native.call("layer_norm", kernels, (t, dim, where), (1, 1, 1e-6), data)
        expected = reference.layer_norm(x, gamma, beta)
        same_bits(y.view(np.float32).reshape(t, dim), expected)
        _, (y,) = native.call("gelu", kernels, (t, t * dim), (1, 1), data)
        same_bits(y.view(np.float32).reshape(t, dim), reference.gelu(x))
        _, (y,) = native.call("gem", kernels, (t, dim), (1, 1, 1e-6), data)
        same_bits(y.view(np.float32), reference.gem(x))
        weighted = (weights.data, x.tobytes() + share.tobytes())
        _, (y,) = native.call("gem", kernels, (t, dim, 1), (1, 1, 1e-6), weighted)
        same_bits(y.view(np.float32), reference.gem(x, share))
        _, (y,) = native.call("l2", kernels, (1, dim), (1, 1, 1e-12), data)
        same_bits(y.view(np.float32), reference.l2_normalize(x[0]))


@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.integers(2, 300),
    dim=st.integers(1, 9),
    tokens=st.floats(2**-10, 1, width=32),
    ties=st.booleans(),
)
def test_keep_tokens_equals_the_reference(
    native: Driver, seed: int, t: int, dim: int, tokens: float, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((t, dim)).astype(np.float32)
    a = rng.standard_normal(t).astype(np.float32)
    if ties:
        a = (np.round(a) * np.float32(-0.0 if seed % 5 == 0 else 1.0)).astype(np.float32)
    expected = reference.keep_tokens(x, a, tokens)
    status, (y, rows) = native.call(
        "keep_tokens", "portable", (t, dim), (1, tokens), (b"", x.tobytes(), a.tobytes())
    )
    assert status == OK and rows.view(np.int32)[0] == expected.shape[0]
    same_bits(y.view(np.float32).reshape(t, dim)[: expected.shape[0]], expected)


@pytest.mark.parametrize("name", ["exp", "log", "erf"])
def test_own_functions_equal_the_reference_and_mathematics(native: Driver, name: str) -> None:
    import math

    rng = np.random.default_rng(5)
    x = np.concatenate([rng.uniform(-90, 90, 20000), rng.standard_normal(20000), [0.0, -0.0]])
    if name == "log":
        x = np.exp(rng.uniform(-80, 80, 40000))
    x = x.astype(np.float32)
    status, (y,) = native.call(
        "floats", "portable", (("exp", "log", "erf").index(name),), (), (x.tobytes(),)
    )
    assert status == OK
    got = y.view(np.float32)
    ours = {"exp": floats.exp32, "log": floats.log32, "erf": floats.erf32}[name]
    same_bits(got, ours(x))
    inside = (x > -86) & (x < 88) if name == "exp" else np.ones(x.shape, bool)
    exact = np.array([getattr(math, name)(float(v)) for v in x[inside]])
    error = np.abs(got[inside] - exact) / (np.abs(exact) if name != "erf" else 1.0)
    if name == "log":
        error = np.abs(got[inside] - exact) / np.maximum(np.abs(exact), 1.0)
    assert error.max() < 1e-6

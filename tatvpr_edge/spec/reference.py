"""The NumPy reference of every operator: written for reading, and what every backend is held to.

Shapes are in the docstrings; numerics are those of docs/numerics.md. Frames have no batch axis;
earlier axes of TopKGate and TernaryMatMul are frames of a training batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .floats import F32, erf32, exp32, log32, sum32
from .limits import check_fraction, kept
from .packing import unpack_ternary

I8 = NDArray[np.int8]
_f = np.float32

MIN_ABS_MAX = _f(1e-5)
QUANT_MAX = _f(127.0)
ONE = _f(1.0)
LAYER_NORM_EPS = 1e-6
GEM_CLAMP = 1e-6  # so that the cube root has a gradient
L2_EPS = 1e-12


def quantise(x: F32, axes: tuple[int, ...] = (-1,)) -> tuple[I8, F32]:
    """Symmetric int8 with one scale over ``axes`` (kept as size 1).

    ``s = max(max|x|, 1e-5) / 127``; ``q = clip(round_half_to_even(x * (1 / s)), -127, 127)``:
    one division for each scale, one product for each element.
    """
    x = np.asarray(x, dtype=np.float32)
    s = np.maximum(np.abs(x).max(axis=axes, keepdims=True), MIN_ABS_MAX) / QUANT_MAX
    q = np.clip(np.rint(x * (ONE / s)), -QUANT_MAX, QUANT_MAX)
    return q.astype(np.int8), s.astype(np.float32)


def _largest(score: NDArray[np.int64] | F32, n: int) -> NDArray[np.bool_]:
    """Mask of the ``n`` largest along the last axis, ties to the lower index."""
    order = np.argsort(-score, axis=-1, kind="stable")
    mask = np.zeros(score.shape, dtype=np.bool_)
    np.put_along_axis(mask, order[..., :n], True, axis=-1)
    return mask


def top_k_gate(x: F32, k: float, group: int = 1, scope: int = 0) -> tuple[I8, F32]:
    """TopKGate: x [..., T, K] -> (Q int8 [..., T, K], S float32 [..., T, 1]).

    Raises:
        UsageError: k is outside (0, 1].
    """
    k = check_fraction(k, "k")
    q, s = quantise(x)
    groups = x.shape[-1] // group
    score = np.abs(q.astype(np.int64)).reshape(*x.shape[:-1], groups, group).sum(axis=-1)
    if scope == 1:
        score = score.sum(axis=-2, keepdims=True)
    mask = np.repeat(_largest(score, kept(k, groups)), group, axis=-1)
    return np.where(mask, q, np.int8(0)), s


def ternary_mat_mul(q: I8, s: F32, w: I8, scale: F32, bias: F32) -> F32:
    """TernaryMatMul: q [..., K], s [..., 1], packed w [N, ceil(K/4)] -> float32 [..., N]."""
    weights = unpack_ternary(w, q.shape[-1])
    acc = q.astype(np.int32) @ weights.T.astype(np.int32)
    return (acc.astype(np.float32) * s) * scale.astype(np.float32) + bias.astype(np.float32)


def patch_embed(pixels: NDArray[np.uint8], w: I8, scale: F32, bias: F32) -> F32:
    """PatchEmbed: pixels uint8 [H, W, 3], w int8 [D, P*P*3] -> float32 [(H/P)*(W/P), D]."""
    patch = round((w.shape[1] // 3) ** 0.5)
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    tiles = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    flat = tiles.reshape(rows * columns, patch * patch * 3).astype(np.int32) - 128
    acc = flat @ w.T.astype(np.int32)
    return acc.astype(np.float32) * scale + bias


def quantise_patch_embed(
    w: F32, b: F32, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[I8, F32, F32]:
    """Float patch weights [D, P*P*3] (row, column, channel) to PatchEmbed's (W, scale, bias).

    ``mean`` and ``std`` are per colour in 0..1.
    """
    channels = w.shape[1]
    std_c = np.tile(np.asarray(std, dtype=np.float64), channels // 3)
    mean_c = np.tile(np.asarray(mean, dtype=np.float64), channels // 3)
    scaled = w.astype(np.float64) / (255.0 * std_c)
    largest = np.abs(scaled).max(axis=1)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    rounded = np.clip(np.rint(scaled / scale[:, None].astype(np.float64)), -127, 127)
    bias = b.astype(np.float64) + scale.astype(np.float64) * (
        rounded * (128.0 - 255.0 * mean_c)
    ).sum(axis=1)
    return rounded.astype(np.int8), scale, bias.astype(np.float32)


def quant_attention(qkv: F32, heads: int) -> tuple[F32, F32]:
    """QuantAttention: qkv [T, 3*D] -> (Y [T, D], A [T])."""
    t, width = qkv.shape
    dim = width // 3
    head = dim // heads
    y = np.empty((t, dim), dtype=np.float32)
    a = np.zeros(t, dtype=np.float32)
    root = np.sqrt(_f(head))
    for h in range(heads):
        part = slice(h * head, (h + 1) * head)
        q, s_q = quantise(qkv[:, :dim][:, part])
        k, s_k = quantise(qkv[:, dim : 2 * dim][:, part], axes=(0, 1))
        v, s_v = quantise(qkv[:, 2 * dim :][:, part], axes=(0, 1))
        dots = (q.astype(np.int32) @ k.T.astype(np.int32)).astype(np.float32)
        logits = ((dots * s_q) * s_k) / root
        weights = np.rint(QUANT_MAX * exp32(logits - logits.max(axis=1, keepdims=True)))
        total = weights.sum(axis=1, keepdims=True, dtype=np.float32)
        mixed = (weights.astype(np.int32) @ v.astype(np.int32)).astype(np.float32)
        share = ONE / total
        y[:, part] = (mixed * s_v) * share
        a = a + weights[0] * share[0]
    return y, a


def keep_tokens(x: F32, a: F32, tokens: float) -> F32:
    """KeepTokens: x [T, D], a [T] -> [1 + n, D]: CLS and the n patch tokens of largest a."""
    tokens = check_fraction(tokens, "tokens")
    patches = x.shape[0] - 1
    mask = _largest(a[1:], kept(tokens, patches))
    return x[np.concatenate([[True], mask])]


def layer_norm(x: F32, gamma: F32, beta: F32, eps: float = LAYER_NORM_EPS) -> F32:
    """LayerNorm over the last axis, biased variance."""
    width = _f(x.shape[-1])
    mean = (sum32(x) / width)[..., None]
    centred = x - mean
    variance = (sum32(centred * centred) / width)[..., None]
    y = (centred * (ONE / np.sqrt(variance + _f(eps)))) * gamma + beta
    return np.asarray(y, np.float32)


def gelu(x: F32) -> F32:
    """Exact GELU: (x / 2) * (1 + erf(x / sqrt(2)))."""
    return (_f(0.5) * x) * (_f(1.0) + erf32(x * _f(0.70710678)))


def gem(x: F32, weight: F32 | None = None, clamp: float = GEM_CLAMP) -> F32:
    """Generalised mean, p = 3, over rows: x [T, D] -> [D] (Radenovic et al., 2018).

    The cube root is ``exp(log(m) / 3)``. Rows are added like the elements of :func:`sum32`, their
    cubes times ``weight [T]``, all above 0, where it is given.
    """
    clipped = np.maximum(x, _f(clamp))
    cubes = (clipped * clipped) * clipped
    if weight is not None:
        cubes = cubes * weight[:, None]
    mean = sum32(np.ascontiguousarray(cubes.T)) / _f(x.shape[0])
    thirds: F32 = log32(mean) / _f(3.0)
    return exp32(thirds)


def l2_normalize(x: F32, eps: float = L2_EPS) -> F32:
    """x [D] / max(sqrt(sum x^2), eps)."""
    length: F32 = np.maximum(np.sqrt(sum32(x * x)), _f(eps))
    return x / length

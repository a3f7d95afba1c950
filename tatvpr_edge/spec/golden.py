"""Golden vectors: one set of operator cases that every backend is held to (level a).

Cases are generated from fixed seeds, so that nothing large is stored; their expected outputs come
from :mod:`tatvpr_edge.spec.reference`. A digest over all of them is checked by the tests, so that
a change of the reference cannot pass unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import reference
from .packing import pack_ternary

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One call of one operator.

    ``inputs`` are in the operator's order (see ``spec.operators``); ``outputs`` are expected
    bit for bit where integer, and within ``tolerance`` elementwise where float.
    """

    name: str
    operator: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    attributes: dict[str, int] = field(default_factory=dict)
    tolerance: Array | None = None


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([2026, *key])


def _special_tokens(x: Array) -> Array:
    """Make row 0 all zero, row 1 one huge value, row 2 full of ties."""
    x = x.copy()
    x[..., 0, :] = 0.0
    if x.shape[-2] > 1:
        x[..., 1, x.shape[-1] // 2] = 3.0e4
    if x.shape[-2] > 2:
        x[..., 2, :] = np.where(np.arange(x.shape[-1]) % 3 == 0, 0.5, -0.25)
    return x.astype(np.float32)


def gate_cases() -> Iterator[Case]:
    """TopKGate: odd sizes, ties, groups, scopes, k from 0.01 to 1, a zero token, a huge value."""
    shapes = [(1, 1), (3, 7), (5, 12), (17, 64), (65, 192), (4, 768), (3, 1536)]
    for i, (t, width) in enumerate(shapes):
        x = _special_tokens(_rng(1, i).normal(size=(t, width)).astype(np.float32))
        for group in (1, 4):
            if width % group:
                continue
            for scope in (0, 1):
                for k in (0.01, 0.05, 0.2, 0.4, 0.5, 0.6, 0.95, 1.0):
                    q, s = reference.top_k_gate(x, k, group, scope)
                    yield Case(
                        f"gate_{t}x{width}_g{group}_s{scope}_k{k}",
                        "TopKGate",
                        {"X": x, "k": np.asarray(k, dtype=np.float32)},
                        {"Q": q, "S": s},
                        {"group": group, "scope": scope},
                        # S is a maximum and one division: exact on every backend
                        np.zeros(1, dtype=np.float32),
                    )


def matmul_cases() -> Iterator[Case]:
    """TernaryMatMul: K not divisible by 4, bias and none, one scale and one a row."""
    shapes = [(1, 1, 1), (2, 5, 3), (3, 7, 10), (5, 64, 33), (9, 190, 17), (65, 192, 576)]
    for i, (t, k_in, n) in enumerate(shapes):
        rng = _rng(2, i)
        q = rng.integers(-127, 128, (t, k_in)).astype(np.int8)
        q[0] = 0
        s = rng.uniform(1e-3, 0.2, (t, 1)).astype(np.float32)
        packed = pack_ternary(rng.integers(-1, 2, (n, k_in)).astype(np.int8))
        for rows in (1, n):
            scale = rng.uniform(1e-3, 0.1, rows).astype(np.float32)
            for with_bias in (False, True):
                bias = (rng.normal(size=n) if with_bias else np.zeros(n)).astype(np.float32)
                y = reference.ternary_mat_mul(q, s, packed, scale, bias)
                unbiased = np.abs(y - bias)
                yield Case(
                    f"matmul_{t}x{k_in}x{n}_scale{rows}_bias{int(with_bias)}",
                    "TernaryMatMul",
                    {"Q": q, "S": s, "W": packed, "scale": scale, "bias": bias},
                    {"Y": y},
                    {},
                    np.float32(1e-6) * (unbiased + np.abs(bias)),
                )


def patch_cases() -> Iterator[Case]:
    """PatchEmbed: several patch sizes, the extremes of a pixel."""
    for i, (side, patch, dim) in enumerate([(8, 4, 5), (12, 3, 8), (32, 16, 24), (28, 14, 7)]):
        rng = _rng(3, i)
        pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        pixels[:patch, :patch] = 255
        pixels[-patch:, -patch:] = 0
        w = rng.integers(-127, 128, (dim, patch * patch * 3)).astype(np.int8)
        scale = rng.uniform(1e-5, 1e-3, dim).astype(np.float32)
        bias = rng.normal(size=dim).astype(np.float32)
        y = reference.patch_embed(pixels, w, scale, bias)
        yield Case(
            f"patch_{side}_{patch}_{dim}",
            "PatchEmbed",
            {"pixels": pixels, "W": w, "scale": scale, "bias": bias},
            {"Y": y},
            {},
            np.float32(1e-6) * (np.abs(y - bias) + np.abs(bias)),
        )


def attention_cases() -> Iterator[Case]:
    """QuantAttention: one token, odd sizes, sharp and flat attention."""
    for i, (t, dim, heads, gain) in enumerate(
        [(1, 4, 1, 1.0), (5, 24, 3, 1.0), (17, 64, 2, 6.0), (65, 192, 3, 2.0), (33, 96, 3, 0.01)]
    ):
        qkv = (_rng(4, i).normal(size=(t, 3 * dim)) * gain).astype(np.float32)
        y, a = reference.quant_attention(qkv, heads)
        yield Case(
            f"attention_{t}x{dim}_h{heads}",
            "QuantAttention",
            {"QKV": qkv},
            {"Y": y, "A": a},
            {"heads": heads},
            np.float32(1e-6) * np.maximum(np.abs(y).max(), np.float32(1e-6)),
        )


def keep_cases() -> Iterator[Case]:
    """KeepTokens: ties, everything, almost nothing."""
    for i, (t, dim) in enumerate([(2, 3), (6, 4), (65, 192)]):
        rng = _rng(5, i)
        x = rng.normal(size=(t, dim)).astype(np.float32)
        a = rng.uniform(0, 1, t).astype(np.float32)
        a[1 : 1 + t // 2] = np.float32(0.25)
        for tokens in (0.01, 0.3, 0.5, 0.99, 1.0):
            yield Case(
                f"keep_{t}_{tokens}",
                "KeepTokens",
                {"X": x, "A": a, "tokens": np.asarray(tokens, dtype=np.float32)},
                {"Y": reference.keep_tokens(x, a, tokens)},
                {},
                np.zeros(1, dtype=np.float32),
            )


def cases() -> Iterator[Case]:
    """All golden cases, in a fixed order."""
    yield from gate_cases()
    yield from matmul_cases()
    yield from patch_cases()
    yield from attention_cases()
    yield from keep_cases()


def digest() -> str:
    """SHA-256 over names, inputs and expected outputs of all cases."""
    sha = hashlib.sha256()
    for case in cases():
        sha.update(case.name.encode())
        for arrays in (case.inputs, case.outputs):
            for name, array in arrays.items():
                sha.update(name.encode())
                sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()

"""Golden vectors: operator cases that every backend is held to (level a).

Cases are generated from fixed seeds, so that nothing large is stored; their expected outputs come
from :mod:`tatvpr_edge.spec.reference`. Here are those that a board runs by itself; the tests have
more (``tests/support/golden_cases.py``), and a digest over all of them, so that a change of the
reference cannot pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import reference

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


def rng_of(*key: int) -> np.random.Generator:
    """The random numbers of one case."""
    return np.random.default_rng([2026, *key])


def patch_cases() -> Iterator[Case]:
    """PatchEmbed: several patch sizes, the extremes of a pixel."""
    for i, (side, patch, dim) in enumerate([(8, 4, 5), (12, 3, 8), (32, 16, 24), (28, 14, 7)]):
        rng = rng_of(3, i)
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
        qkv = (rng_of(4, i).normal(size=(t, 3 * dim)) * gain).astype(np.float32)
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
        rng = rng_of(5, i)
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

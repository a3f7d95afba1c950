"""Golden vectors of all operators: those of ``spec/golden.py`` and what the tests alone run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from tatvpr_edge.spec import reference
from tatvpr_edge.spec.golden import (
    Array,
    Case,
    attention_cases,
    keep_cases,
    patch_cases,
    rng_of,
)
from tatvpr_edge.spec.packing import pack_ternary


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
        x = _special_tokens(rng_of(1, i).normal(size=(t, width)).astype(np.float32))
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
        rng = rng_of(2, i)
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

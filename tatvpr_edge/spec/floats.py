"""Float functions spelled out, so that every CPU computes the same bits.

Only float32 additions, multiplications, divisions, square roots, rounding and tables are used,
each rounded once (IEEE 754), in the order written here. The C core repeats these lines.
Constants of exp and log: S. L. Moshier, Cephes Mathematical Library (single precision).
Constants of erf: the rational approximation x * P(x^2) / Q(x^2) that Eigen and XLA use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_f = np.float32

EXP_LOWEST = _f(-87.0)  # below: zero. exp(-87) is above FLT_MIN: no result is ever subnormal
EXP_HIGHEST = _f(88.0)
LOG2_E = _f(1.44269504)
LN2_HIGH = _f(0.693359375)
LN2_LOW = _f(-2.12194440e-4)
EXP_POLY = tuple(
    _f(c)
    for c in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
LOG_POLY = tuple(
    _f(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
SQRT_HALF = _f(0.70710678)
ERF_CLAMP = _f(4.0)
ERF_P = tuple(
    _f(c)
    for c in (
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    )
)
ERF_Q = tuple(
    _f(c)
    for c in (
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    )
)
PARTIAL_SUMS = 16


def _horner(x: F32, coefficients: tuple[np.float32, ...]) -> F32:
    y = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = y * x + c
    return y


def exp32(x: F32) -> F32:
    """e^x elementwise; 0 below -87, arguments above 88 are taken as 88."""
    x = np.asarray(x, dtype=np.float32)
    clipped = np.minimum(np.maximum(x, EXP_LOWEST), EXP_HIGHEST)
    n: F32 = np.rint(clipped * LOG2_E)
    r: F32 = (clipped - n * LN2_HIGH) - n * LN2_LOW
    y = (_horner(r, EXP_POLY) * (r * r) + r) + _f(1.0)
    power = np.ldexp(_f(1.0), n.astype(np.int32)).astype(np.float32)
    return np.asarray(np.where(x < EXP_LOWEST, _f(0.0), y * power), dtype=np.float32)


def log32(x: F32) -> F32:
    """Natural logarithm elementwise of normal positive numbers."""
    x = np.asarray(x, dtype=np.float32)
    m, e = np.frexp(x)
    small = m < SQRT_HALF
    e = np.where(small, e - 1, e).astype(np.float32)
    m = np.where(small, (m + m) - _f(1.0), m - _f(1.0)).astype(np.float32)
    z = m * m
    y = (_horner(m, LOG_POLY) * m) * z
    y = y + e * LN2_LOW
    y = y - _f(0.5) * z
    return np.asarray((m + y) + e * LN2_HIGH, dtype=np.float32)


def erf32(x: F32) -> F32:
    """Error function elementwise, within 5e-7."""
    x = np.minimum(np.maximum(np.asarray(x, dtype=np.float32), -ERF_CLAMP), ERF_CLAMP)
    z = x * x
    y = (x * _horner(z, ERF_P)) / _horner(z, ERF_Q)
    return np.minimum(np.maximum(y, _f(-1.0)), _f(1.0))


def sum32(x: F32) -> F32:
    """Sum over the last axis: 16 strided partial sums, then one fixed tree (8, 4, 2, 1).

    Element ``i`` is added to partial sum ``i % 16``, in rising order of ``i``.
    """
    x = np.asarray(x, dtype=np.float32)
    partial = np.zeros((*x.shape[:-1], PARTIAL_SUMS), dtype=np.float32)
    for start in range(0, x.shape[-1], PARTIAL_SUMS):
        piece = x[..., start : start + PARTIAL_SUMS]
        partial[..., : piece.shape[-1]] = partial[..., : piece.shape[-1]] + piece
    width = PARTIAL_SUMS // 2
    while width:
        partial = partial[..., :width] + partial[..., width : 2 * width]
        width //= 2
    return partial[..., 0]

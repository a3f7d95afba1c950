"""What a network computes in evaluation, to the last bit of the deployed one.

Training uses torch's own LayerNorm, GELU and means, which are faster but add in another order. A
flipped rounding early in a network moves a few answers in a thousand at low k, so evaluation
repeats the arithmetic of :mod:`tatvpr_edge.spec.floats` and :mod:`tatvpr_edge.spec.reference`:
float32 operations, each rounded once, in the order written there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.spec import floats, reference

_HALF_SQRT = float(floats.SQRT_HALF)


def _horner(x: Tensor, coefficients: tuple[object, ...]) -> Tensor:
    y = torch.full_like(x, float(coefficients[0]))  # type: ignore[arg-type]
    for c in coefficients[1:]:
        y = y * x + float(c)  # type: ignore[arg-type]
    return y


def exp32(x: Tensor) -> Tensor:
    """e^x, the bits of :func:`tatvpr_edge.spec.floats.exp32`."""
    clipped = x.clamp(float(floats.EXP_LOWEST), float(floats.EXP_HIGHEST))
    n = torch.round(clipped * float(floats.LOG2_E))
    r = (clipped - n * float(floats.LN2_HIGH)) - n * float(floats.LN2_LOW)
    y = (_horner(r, floats.EXP_POLY) * (r * r) + r) + 1.0
    powers = torch.pow(2.0, torch.arange(-126, 128, device=x.device, dtype=torch.float64)).float()
    y = y * powers[(n + 126).long()]
    return torch.where(x < float(floats.EXP_LOWEST), torch.zeros_like(y), y)


def log32(x: Tensor) -> Tensor:
    """Natural logarithm, the bits of :func:`tatvpr_edge.spec.floats.log32`."""
    m, e = torch.frexp(x)
    small = m < float(floats.SQRT_HALF)
    exponent = torch.where(small, e - 1, e).float()
    m = torch.where(small, (m + m) - 1.0, m - 1.0)
    z = m * m
    y = (_horner(m, floats.LOG_POLY) * m) * z
    y = y + exponent * float(floats.LN2_LOW)
    y = y - 0.5 * z
    return (m + y) + exponent * float(floats.LN2_HIGH)


def erf32(x: Tensor) -> Tensor:
    """Error function, the bits of :func:`tatvpr_edge.spec.floats.erf32`."""
    x = x.clamp(-float(floats.ERF_CLAMP), float(floats.ERF_CLAMP))
    z = x * x
    return ((x * _horner(z, floats.ERF_P)) / _horner(z, floats.ERF_Q)).clamp(-1.0, 1.0)


def sum32(x: Tensor) -> Tensor:
    """Sum over the last axis, the bits of :func:`tatvpr_edge.spec.floats.sum32`."""
    width = floats.PARTIAL_SUMS
    padded = F.pad(x, (0, -x.shape[-1] % width))  # adding zero changes no bit of a sum
    partial = torch.zeros_like(padded[..., :width])
    for start in range(0, padded.shape[-1], width):
        partial = partial + padded[..., start : start + width]
    while width > 1:
        width //= 2
        partial = partial[..., :width] + partial[..., width : 2 * width]
    return partial[..., 0]


def sqrt32(x: Tensor) -> Tensor:
    """Square root rounded once: torch's own in float32 may be the neighbour (vendor library)."""
    return torch.sqrt(x.double()).float()


def inverse(x: Tensor) -> Tensor:
    """``1 / x``, one division rounded once: never a reciprocal that a device approximates."""
    return torch.ones_like(x) / x


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis; in evaluation as :func:`spec.reference.layer_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        """``[.., D] -> [.., D]``."""
        if self.training:
            return super().forward(x)
        count = float(x.shape[-1])
        centred = x - (sum32(x) / count)[..., None]
        variance = (sum32(centred * centred) / count)[..., None]
        # The sum with eps is rounded to float32 before the root, as everywhere else.
        return (centred * inverse(sqrt32(variance + self.eps))) * self.weight + self.bias


def gelu(x: Tensor, training: bool) -> Tensor:
    """GELU (erf); in evaluation as :func:`spec.reference.gelu`."""
    if training:
        return F.gelu(x)
    return (0.5 * x) * (1.0 + erf32(x * _HALF_SQRT))


def gem(x: Tensor, training: bool, weight: Tensor | None = None) -> Tensor:
    """Generalised mean, p = 3, over tokens: ``[B, T, D] -> [B, D]``; in evaluation as
    :func:`spec.reference.gem`. ``weight [B, T]`` is that of each token's cubes.
    """
    clipped = x.clamp_min(reference.GEM_CLAMP)
    cubes = (clipped * clipped) * clipped
    if weight is not None:
        cubes = cubes * weight[..., None]
    if training:
        return torch.pow(cubes.mean(1), 1.0 / 3.0)
    mean = sum32(cubes.transpose(1, 2)) / float(x.shape[1])
    return exp32(log32(mean) / 3.0)


def unit_length(x: Tensor, training: bool) -> Tensor:
    """Rows at length one: ``[B, D]``; in evaluation as :func:`spec.reference.l2_normalize`."""
    if training:
        return F.normalize(x, dim=-1)
    length = sqrt32(sum32(x * x)).clamp_min(reference.L2_EPS)
    return x / length[:, None]

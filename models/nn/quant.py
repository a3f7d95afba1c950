"""The operators of ``ai.tatvpr`` in torch, batched, with straight-through gradients.

Called by the layers of this folder. Every function takes frames in front: ``[B, T, K]``. Integers
travel as float32 that hold whole numbers; all sums stay below 2^24, so they are exact in any order
and equal those of the NumPy reference (``tatvpr_edge.spec.reference``) bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tatvpr_edge.models.nn.exact import exp32, inverse

#: Sums of whole numbers are exact in float32 below this.
EXACT_FLOAT32 = 2**24


class _Round(torch.autograd.Function):
    """Rounding with an identity gradient, exact (``x + (round(x) - x)`` may be off by one bit)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes as if nothing had happened."""
    return _Round.apply(x) if x.requires_grad else torch.round(x)


def quantise(x: Tensor, dim: int | tuple[int, ...] = -1) -> tuple[Tensor, Tensor]:
    """Signed 8-bit values that share one scale along ``dim``.

    Returns:
        ``(q, s)``: ``q`` whole numbers in -127..127 of the shape of ``x``; ``s`` with 1 in place
        of ``dim``. The scale carries no gradient.
    """
    s = x.detach().abs().amax(dim, keepdim=True).clamp_min(1e-5) / 127.0
    if x.requires_grad:
        return round_ste(x * inverse(s)).clamp(-127, 127), s
    return (x * inverse(s)).round_().clamp_(-127, 127), s


def kept_groups(k: Tensor, groups: int) -> Tensor:
    """``n = clip(floor(float64(k) * groups + 0.5), 1, groups)``, int64, shaped as ``k``."""
    return torch.floor(k.double() * groups + 0.5).clamp(1, groups).long()


def _thresholds(keys: Tensor, n: Tensor) -> Tensor:
    """The ``n``-th largest of each row of distinct keys: ``[B, R, G], [B] -> [B, R, 1]``."""
    groups = keys.shape[-1]
    if keys.device.type == "cpu":
        # A selection, not a sort: NumPy's partition is vectorised and takes a quarter of the time
        # of the matrix product that follows; torch.sort takes seven times as long as that product.
        rows = keys.numpy()
        found = np.empty((*rows.shape[:-1], 1), rows.dtype)
        for frame, kept in enumerate(n.tolist()):
            found[frame] = np.partition(rows[frame], groups - kept, axis=-1)[
                :, groups - kept : groups - kept + 1
            ]
        return torch.from_numpy(found)
    ordered = torch.sort(keys, dim=-1).values
    index = (groups - n).view(-1, 1, 1).expand(-1, keys.shape[1], 1)
    return ordered.gather(-1, index)


def gate_mask(q: Tensor, k: Tensor, group: int = 1, scope: str = "token") -> Tensor | None:
    """Which channels the gate keeps.

    Args:
        q: whole numbers ``[B, T, K]``, float32.
        k: fraction kept by each frame, ``[B]``.
        group: neighbouring channels kept or dropped together; divides ``K``.
        scope: "token", or "image" for one set of channels for all tokens of a frame.

    Returns:
        ``[B, T, K]`` (``[B, 1, K]`` for scope "image"), 1 for those kept and 0 for others, float32:
        torch multiplies by numbers of one type several times faster than by bool. None where
        everything is kept.
    """
    width = q.shape[-1]
    groups = width // group
    n = kept_groups(k, groups)
    if bool((n == groups).all()):
        return None
    size = q.detach().abs()
    if group > 1:
        size = size.unflatten(-1, (groups, group)).sum(-1)
    if scope == "image":
        size = size.sum(-2, keepdim=True)
    # Distinct keys: the larger sum first, then the lower index. Whole numbers, whose type is the
    # smallest that holds them all.
    largest = 127 * group * (q.shape[-2] if scope == "image" else 1) * groups + groups
    order = torch.arange(groups - 1, -1, -1, dtype=torch.int32, device=q.device)
    if largest < EXACT_FLOAT32:
        keys = torch.add(order.to(q.dtype), size, alpha=groups)
    else:
        keys = size.to(torch.int32) * groups + order
    mask = torch.empty(keys.shape, dtype=torch.float32, device=q.device)
    torch.ge(keys, _thresholds(keys.to(torch.int32), n).to(keys.dtype), out=mask)
    return mask if group == 1 else mask.repeat_interleave(group, dim=-1)


def ternarise(weight: Tensor, rows: bool = False) -> tuple[Tensor, Tensor]:
    """Ternary weights and their scale: ``delta = mean|W| + 1e-5``, ``round(W / delta)`` in -1..1.

    Args:
        weight: ``[N, K]``.
        rows: one ``delta`` for each row instead of one for the matrix.

    Returns:
        ``(w, delta)``: ``w`` of -1, 0 and 1 ``[N, K]``, ``delta`` ``[N]`` or ``[1]``.
    """
    # In float64, so that the bits of the scale do not depend on how threads divide the sum.
    size = weight.abs().double()
    delta = (size.mean(1) if rows else size.mean().reshape(1)).float() + 1e-5
    return torch.round(weight / delta[:, None]).clamp_(-1, 1), delta


class TernaryLinear(torch.autograd.Function):
    """Gate, 8-bit quantisation and ternary product in one step; the gradient passes straight
    through both roundings and only through kept activations.

    ``q_factor`` from 0 to 1 blends full precision and quantised values in warm-up; at 1 the result
    is the operator pair TopKGate, TernaryMatMul exactly.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        k: Tensor,
        group: int,
        scope: str,
        rows: bool,
        q_factor: float,
    ) -> Tensor:
        device = x.device.type
        # Under autocast in its type: q and w are whole numbers below 2^8, exact in bfloat16. What
        # follows a product is float32 again: torch is slow where types differ.
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        q, s = quantise(x.detach().float())
        mask = gate_mask(q, k, group, scope)
        if mask is not None:
            q = q.mul_(mask)
        w, delta = ternarise(weight.float(), rows)
        if q_factor < 1:
            q = q * q_factor + (1 - q_factor) * (x if mask is None else x * mask) / s
            w = w * q_factor + (1 - q_factor) * weight / delta[:, None]
        q, w = q.to(kind or q.dtype), w.to(kind or w.dtype)
        y = torch.matmul(q, w.T).float().mul_(s).mul_(delta)
        if bias is not None:
            y = y.add_(bias)
        ctx.save_for_backward(q, s, w, delta)
        ctx.mask, ctx.has_bias, ctx.kind = mask, bias is not None, x.dtype
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, s, w, delta = ctx.saved_tensors
        grad = grads[0].float()
        grad_x = grad_w = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.matmul((grad * delta).to(w.dtype), w).float()
            if ctx.mask is not None:
                grad_x = grad_x.mul_(ctx.mask)
            grad_x = grad_x.to(ctx.kind)
        if ctx.needs_input_grad[1]:
            rows = (grad * s).to(q.dtype).flatten(0, -2)
            grad_w = torch.matmul(rows.T, q.flatten(0, -2)).float()
        if ctx.has_bias:
            grad_b = grad.flatten(0, -2).sum(0)
        return grad_x, grad_w, grad_b, None, None, None, None, None


def quant_attention(qkv: Tensor, heads: int, exact: bool) -> tuple[Tensor, Tensor]:
    """8-bit attention.

    Args:
        qkv: ``[B, T, 3 * D]``, columns all Q, all K, all V, heads consecutive inside each.
        heads: number of heads; divides ``D``.
        exact: use the exponential of the specification (slower) rather than torch's.

    Returns:
        ``(Y [B, T, D], A [B, T])``: ``A`` is what the CLS token looks at, summed over heads.
    """
    frames, tokens, width = qkv.shape
    head_dim = width // (3 * heads)
    if max(127 * 127 * head_dim, 127 * 127 * tokens) >= EXACT_FLOAT32:
        qkv = qkv.double()  # sums beyond 2^24 are exact in float64 only
    parts = qkv.view(frames, tokens, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
    q, s_q = quantise(parts[0].float())
    key, s_k = quantise(parts[1].float(), (-2, -1))
    value, s_v = quantise(parts[2].float(), (-2, -1))
    acc = torch.matmul(q.to(qkv.dtype), key.to(qkv.dtype).transpose(-1, -2)).float()
    logits = acc * s_q * s_k / math.sqrt(np.float32(head_dim))
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = round_ste(127.0 * (exp32(shifted) if exact else torch.exp(shifted)))
    total = weights.sum(-1, keepdim=True)
    share = inverse(total)
    y = torch.matmul(weights.to(qkv.dtype), value.to(qkv.dtype)).float() * s_v * share
    seen = weights[:, :, 0] * share[:, :, 0]
    looked = seen[:, 0]
    for head in range(1, heads):  # in order, so that the float sum is that of the reference
        looked = looked + seen[:, head]
    return y.transpose(1, 2).reshape(frames, tokens, width // 3), looked


def kept_tokens(looked: Tensor, tokens: float) -> Tensor | None:
    """Numbers of the tokens that stay: CLS and the patch tokens that it looks at most, in order.

    Args:
        looked: ``[B, T]``, from :func:`quant_attention`.
        tokens: fraction of patch tokens kept, in (0, 1].

    Returns:
        int64 ``[B, 1 + n]`` with ``n = clip(floor(tokens * (T - 1) + 0.5), 1, T - 1)``; None where
        all stay.
    """
    patches = looked.shape[1] - 1
    n = int(kept_groups(torch.tensor(tokens, dtype=torch.float32), patches))
    if n == patches:
        return None
    # A stable sort breaks ties by the lower index.
    best = torch.argsort(looked[:, 1:], dim=-1, descending=True, stable=True)[:, :n]
    return torch.cat([torch.zeros_like(best[:, :1]), 1 + best.sort(-1).values], dim=1)


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Those tokens of each frame: ``[B, T, D], [B, n] -> [B, n, D]``."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

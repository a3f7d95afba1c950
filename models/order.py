"""Channels that fire together become neighbours, so that gates of groups lose little.

Which channels a gate groups is the model's to choose: permuting the rows of one matrix and the
columns of the next, with their biases and norms, changes no result but the order of float sums.
Three such orders fold into the weights: hidden channels of the MLP (each block its own), V inside
a head with the output matrix's columns, and the residual stream (one order for the whole network).

``order_channels(model, frames, k)`` measures on frames and permutes in place. Do it before a model
is exported: nothing at run time knows of it, but the model hash does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tatvpr_edge.models.nn.config import LAYERS
from tatvpr_edge.models.nn.layers import MLP, Attention, Block, TernaryLayer
from tatvpr_edge.models.nn.quant import gate_mask, quantise
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import ModelError

Order = NDArray[np.int64]
"""Old channel number for each new place, ``[K]``."""

F64 = NDArray[np.float64]
_BATCH = 32


@dataclass(frozen=True)
class Orders:
    """Orders for one model; None where nothing is to be permuted."""

    residual: Order | None  # [dim]
    values: list[list[Order]] | None  # blocks, heads: [dim / heads]
    hidden: list[Order] | None  # blocks: [mlp_dim]


def order_channels(model: PlaceModel, frames: NDArray[np.uint8], k: float) -> Orders:
    """Measure which channels fire together and permute ``model`` in place; gives the orders.

    Only layers whose group is above 1 are looked at.

    Args:
        frames: uint8 ``[N, S, S, 3]``, squared already; a few hundred of the kind that is trained.
        k: the fraction kept for which the order is made.

    Raises:
        ModelError: a group that is no power of two, or a residual order for a head whose descriptor
            is made of the tokens' own channels.
    """
    orders = measure_orders(model, frames, k)
    apply_orders(model, orders)
    return orders


def measure_orders(model: PlaceModel, frames: NDArray[np.uint8], k: float) -> Orders:
    """The orders that :func:`order_channels` applies; the model stays as it is."""
    config, groups = model.config.backbone, model.config.backbone.groups
    together: dict[str, F64] = {}

    def count(name: str, layer: TernaryLayer, q: Tensor, gate_k: Tensor) -> None:
        mask = gate_mask(q, gate_k)  # single channels: what the gate would like to keep
        fired = (q != 0) if mask is None else (q * mask != 0)
        flat = fired.flatten(0, -2).double()
        seen = (flat.T @ flat).cpu().numpy()
        together[name] = together[name] + seen if name in together else seen

    watch(model, frames, k, count)

    def of(block: int, layer: str) -> F64:
        return together[f"blocks.{block}.{layer}"]

    blocks = range(config.depth)
    residual = hidden = values = None
    if max(groups.qkv, groups.up) > 1:
        wanted = [name for name in ("qkv", "up") if getattr(groups, name) > 1]
        total = sum(of(block, name) for block in blocks for name in wanted)
        residual = neighbours(np.asarray(total), max(groups.qkv, groups.up))
    if groups.out > 1:
        size = config.dim // config.heads
        if size % groups.out:
            raise ModelError(f"groups.out {groups.out} does not divide the {size} channels of V")
        parts = [slice(h * size, (h + 1) * size) for h in range(config.heads)]
        values = [[neighbours(of(b, "out")[p, p], groups.out) for p in parts] for b in blocks]
    if groups.down > 1:
        hidden = [neighbours(of(block, "down"), groups.down) for block in blocks]
    return Orders(residual, values, hidden)


def apply_orders(model: PlaceModel, orders: Orders) -> None:
    """Permute the weights of ``model`` in place."""
    if orders.residual is not None:
        permute_residual(model, orders.residual)
    for number, module in enumerate(model.backbone.blocks):
        block = cast(Block, module)
        if orders.values is not None:
            permute_values(block.attn, orders.values[number])
        if orders.hidden is not None:
            permute_hidden(block.mlp, orders.hidden[number])


# ---- which channels belong together ----------------------------------------------------------


def neighbours(together: F64, group: int) -> Order:
    """An order in which aligned groups hold channels that fire together.

    Args:
        together: how often two channels fired together, ``[K, K]``; the diagonal: alone or not.
        group: a power of two that divides K. Every half of a group is a group of its own kind, so
            that an order for 8 serves 4 and 2 too.

    Raises:
        ModelError: the group is no power of two.
    """
    if group & (group - 1):
        raise ModelError(f"channels are ordered for groups of 2, 4, 8 or 16, not {group}")
    sets = [[channel] for channel in range(len(together))]
    counts = np.asarray(together, dtype=np.float64)
    while len(sets[0]) < group:
        pairs = _match(_likeness(counts))
        sets = [sets[a] + sets[b] for a, b in pairs]
        first, second = pairs[:, 0], pairs[:, 1]
        counts = counts[first] + counts[second]
        counts = counts[:, first] + counts[:, second]
    return np.array([channel for members in sets for channel in members], dtype=np.int64)


def _likeness(counts: F64) -> F64:
    """Cosine of the channels' firing over tokens, ``[n, n]``."""
    size = np.sqrt(np.maximum(np.diag(counts), 1e-9))
    return counts / np.outer(size, size)


def _match(likeness: F64) -> Order:
    """Pairs ``[n / 2, 2]`` of large total likeness: greedy, then exchanges while one helps."""
    n = len(likeness)
    free = np.ones(n, dtype=np.bool_)
    rows, columns = np.triu_indices(n, 1)
    best_first = np.argsort(-likeness[rows, columns], kind="stable")
    found = []
    for a, b in zip(rows[best_first], columns[best_first], strict=True):
        if free[a] and free[b]:
            free[a] = free[b] = False
            found.append((a, b))
    pairs = np.array(found, dtype=np.int64)
    for _ in range(8 * n):
        a, b = pairs[:, 0], pairs[:, 1]
        own = likeness[a, b]
        now = own[:, None] + own[None, :]
        across = likeness[np.ix_(a, b)] + likeness[np.ix_(b, a)] - now  # (a, d), (c, b)
        along = likeness[np.ix_(a, a)] + likeness[np.ix_(b, b)] - now  # (a, c), (b, d)
        for gains in (across, along):
            np.fill_diagonal(gains, 0.0)
        kind = int(along.max() > across.max())
        gains = (across, along)[kind]
        i, j = np.unravel_index(int(gains.argmax()), gains.shape)
        if gains[i, j] <= 1e-12:
            break
        if kind:
            pairs[i], pairs[j] = (a[i], a[j]), (b[i], b[j])
        else:
            pairs[i], pairs[j] = (a[i], b[j]), (a[j], b[i])
    return pairs


# ---- what can be folded into the weights -----------------------------------------------------


@torch.no_grad()
def permute_hidden(mlp: MLP, order: Order) -> None:
    """Another order of an MLP's hidden channels."""
    _rows(mlp.up, order)
    if mlp.norm is not None:
        _vectors(mlp.norm, order)
    _columns(mlp.down, order)


@torch.no_grad()
def permute_values(attn: Attention, orders: list[Order]) -> None:
    """Another order of V inside each head, ``orders[head]`` ``[dim / heads]``."""
    dim, size = attn.out.weight.shape[1], len(orders[0])
    inside = np.concatenate([head * size + order for head, order in enumerate(orders)])
    _rows(attn.qkv, np.concatenate([np.arange(2 * dim), 2 * dim + inside]))
    _columns(attn.out, inside)


@torch.no_grad()
def permute_residual(model: PlaceModel, order: Order) -> None:
    """Another order of the residual stream: embedding, positions, norms, every matrix, head.

    Raises:
        ModelError: the head's descriptor is made of the tokens' own channels.
    """
    vit = model.backbone
    readers = cast(Any, model.head).readers()
    if not readers:
        raise ModelError(
            f"the {model.config.head.kind} head gives out the tokens' own channels, whose order is "
            "the descriptor's: give it a projection, or no group above 1 before qkv and up"
        )
    _rows(vit.patch_embed, order)
    for parameter in (vit.cls_token, vit.pos_embed):
        parameter.copy_(parameter[:, order])
    for module in vit.blocks:
        block = cast(Block, module)
        for norm in (block.norm1, block.norm2):
            _vectors(norm, order)
        for layer in (block.attn.qkv, block.mlp.up):
            _columns(layer, order)
        for layer in (block.attn.out, block.mlp.down):
            _rows(layer, order)
    _vectors(vit.norm, order)
    for layer in readers:
        _columns(layer, order)


def _rows(layer: Any, order: Order) -> None:
    layer.weight.copy_(layer.weight[order])
    if layer.bias is not None:
        layer.bias.copy_(layer.bias[order])


def _columns(layer: Any, order: Order) -> None:
    layer.weight.copy_(layer.weight[:, order])


def _vectors(norm: nn.LayerNorm, order: Order) -> None:
    norm.weight.copy_(norm.weight[order])
    norm.bias.copy_(norm.bias[order])


# ---- looking at the inputs of gated layers ---------------------------------------------------

Look = Callable[[str, TernaryLayer, Tensor, Tensor], None]  # (name, layer, q [B, T, K], k [B])


def watch(model: PlaceModel, frames: NDArray[np.uint8], k: float, look: Look) -> None:
    """Show ``look`` the quantised input of every gated layer, for all frames at ``k``."""
    device = model.backbone.cls_token.device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _hooks(model, look):
            for start in range(0, len(frames), _BATCH):
                model(torch.from_numpy(frames[start : start + _BATCH]).to(device), k)
    finally:
        model.train(training)


@contextmanager
def _hooks(model: PlaceModel, look: Look) -> Iterator[None]:
    handles = []
    for number, module in enumerate(model.backbone.blocks):
        block = cast(Block, module)
        layers = (block.attn.qkv, block.attn.out, block.mlp.up, block.mlp.down)
        for name, layer in zip(LAYERS, layers, strict=True):

            def see(own: Any, given: Any, name: str = f"blocks.{number}.{name}") -> None:
                x, gate = given
                look(name, own, quantise(x.float())[0], gate.k)

            handles.append(layer.register_forward_pre_hook(see))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

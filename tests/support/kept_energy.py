"""How much of a network's activations its gates keep: what channel orders are judged by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.models.nn.quant import gate_mask
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.order import watch


def energy_kept(model: PlaceModel, frames: NDArray[np.uint8], k: float) -> dict[str, float]:
    """Share of the squared activations that each gate keeps at ``k``, by layer."""
    kept: dict[str, float] = {}
    total: dict[str, float] = {}

    def weigh(name: str, layer: TernaryLayer, q: Tensor, gate_k: Tensor) -> None:
        squares = q.double() ** 2
        mask = gate_mask(q, gate_k, layer.group, layer.scope)
        stays = squares if mask is None else squares * mask
        kept[name] = kept.get(name, 0.0) + float(stays.sum())
        total[name] = total.get(name, 0.0) + float(squares.sum())

    watch(model, frames, k, weigh)
    return {name: kept[name] / total[name] for name in kept}

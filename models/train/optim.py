"""The optimisers of a run: AdamW for everything, or Muon for the matrices inside the network.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a
matrix by the nearest orthogonal one, so that every direction learns at the same pace. torch's own
iterates in bfloat16: on a processor without that arithmetic a step of ``micro`` takes seconds, and
AdamW is the better choice there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.models.train.config import OptimConfig


class Optimiser:
    """What a stage trains with, as one: ``optim.kind`` decides which optimiser takes what."""

    def __init__(
        self,
        modules: nn.Module,
        parameters: Iterable[nn.Parameter],
        config: OptimConfig,
    ) -> None:
        wanted = list(parameters)
        inner: set[int] = set()
        if config.kind == "muon":
            inner = {id(m.weight) for m in modules.modules() if isinstance(m, TernaryLayer)}
        hidden = [p for p in wanted if id(p) in inner]
        matrices = [p for p in wanted if id(p) not in inner and p.ndim > 1]
        vectors = [p for p in wanted if p.ndim <= 1]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [
                    {"params": matrices, "weight_decay": config.weight_decay},
                    {"params": vectors, "weight_decay": 0.0},
                ],
                lr=config.lr,
                betas=(0.9, 0.98),
            )
        }
        if hidden:
            self._parts["muon"] = torch.optim.Muon(
                hidden,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",  # one learning rate serves both
            )

    def step(self, lr: float) -> None:
        """One update at the learning rate ``lr``."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: it was taken with another ``optim.kind``.
        """
        if set(state) != set(self._parts):
            raise ValueError(f"optimisers {', '.join(sorted(state))}")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

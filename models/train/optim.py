"""The optimisers of a run: AdamW for everything, or Muon for the matrices inside the network.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a
matrix by the nearest orthogonal one, so that every direction learns at the same pace. torch has it
too, but iterates in bfloat16: a step of ``micro`` then takes 4 s on a processor without bfloat16
arithmetic, more than the gradients. Here it iterates in float32, all matrices of a shape at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.models.train.config import OptimConfig
from tatvpr_edge.models.train.distributed import Crew

#: The quintic of Newton and Schulz, its slope at zero as steep as it goes, and how often.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
#: Scales an orthogonal update to the size of AdamW's (Liu et al., 2025, arXiv:2502.16982), so that
#: one learning rate serves both.
_ADAMW_RMS = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """``[n, rows, columns]``, each with its singular values brought to about one."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov's), made orthogonal, with decoupled weight decay."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        crew: Crew,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._crew = crew

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, alike in shapes.items():
                moments = torch.stack([self._momentum(p, group) for p in alike])
                updates = self._crew.divided(moments, orthogonalised)
                size = _ADAMW_RMS * max(shape) ** 0.5
                for parameter, update in zip(alike, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"] * size)
        return loss

    def _momentum(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        grad = parameter.grad
        assert grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        return grad.lerp(state["momentum"], group["momentum"])


class Optimiser:
    """What a stage trains with, as one: ``optim.kind`` decides which optimiser takes what."""

    def __init__(
        self,
        modules: nn.Module,
        parameters: Iterable[nn.Parameter],
        config: OptimConfig,
        crew: Crew,
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
            self._parts["muon"] = Muon(
                hidden, config.lr, config.weight_decay, config.momentum, crew
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

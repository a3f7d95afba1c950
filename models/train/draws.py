"""What is drawn for each batch beside its frames: k, tokens, and the patches that are shown."""

from __future__ import annotations

import torch
from torch import Tensor

from tatvpr_edge.models.train.config import KConfig


def draw_k(count: int, config: KConfig, done: float, generator: torch.Generator) -> Tensor:
    """k for each image, ``[count]``: the range opens as the stage goes on.

    Args:
        done: how much of the stage is behind, 0 to 1.
    """
    opened = 1.0 if config.opening <= 0 else min(1.0, done / config.opening)
    lowest = 1.0 - (1.0 - config.lowest) * opened
    u = torch.rand(count, 2, generator=generator)
    k = lowest + (1.0 - lowest) * u[:, 0] ** config.power
    return torch.where(u[:, 1] < config.dense_share, torch.ones_like(k), k)


def draw_visible(
    count: int, patches: int, share: float, done: float, generator: torch.Generator
) -> Tensor | None:
    """Patches that each image shows, ``[count, n]`` in rising order: patch dropout (Liu et al.,
    2022) makes a step cheaper. The last fifth of a stage sees everything.
    """
    if share >= 1 or done >= 0.8:
        return None
    order = torch.rand(count, patches, generator=generator).argsort(1)
    return order[:, : max(1, round(share * patches))].sort(1).values


def draw_tokens(config: KConfig, generator: torch.Generator) -> float:
    """The fraction of tokens of one batch; half the batches keep all."""
    u = torch.rand(2, generator=generator)
    if config.tokens_lowest >= 1 or float(u[1]) < 0.5:
        return 1.0
    return config.tokens_lowest + (1 - config.tokens_lowest) * float(u[0])

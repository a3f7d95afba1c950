"""Random changes of training frames, drawn for a whole batch and applied to any part of it.

Drawing and applying are separate so that every process of a distributed run draws the same numbers
and computes only its own frames: one process and many then train on the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class AugmentConfig:
    """How far frames are changed. All of these are half-widths around "unchanged".

    Attributes:
        brightness, contrast: relative.
        colour: relative, each colour by itself.
        gamma: relative change of the exponent.
        blur_share: share of frames blurred by a 3 x 3 box.
        rotation_deg: degrees.
        smallest_crop: smallest area that a crop keeps.
        shape: natural logarithm of the crop's change of shape.
    """

    brightness: float = 0.25
    contrast: float = 0.25
    colour: float = 0.08
    gamma: float = 0.25
    blur_share: float = 0.3
    rotation_deg: float = 7.5
    smallest_crop: float = 0.6
    shape: float = 0.1


def draw_photometric(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Numbers for :func:`photometric`, ``[count, 7]``."""
    u = torch.rand(count, 7, generator=generator) * 2 - 1
    widths = torch.tensor(
        [config.brightness, config.contrast, config.gamma, *[config.colour] * 3, 1.0]
    )
    drawn = 1 + u * widths
    drawn[:, 6] = (u[:, 6] + 1) / 2 < config.blur_share
    return drawn


def photometric(x: Tensor, drawn: Tensor) -> Tensor:
    """Brightness, colour, contrast, gamma and blur: ``x [B, 3, H, W]`` in 0..1."""
    column = drawn[:, :, None, None, None]
    x = x * column[:, 0] * drawn[:, 3:6, None, None]
    mean = x.mean((1, 2, 3), keepdim=True)
    x = ((x - mean) * column[:, 1] + mean).clamp(1e-4, 1) ** column[:, 2]
    blurred = drawn[:, 6] > 0
    if bool(blurred.any()):
        x = x.clone()
        x[blurred] = F.avg_pool2d(F.pad(x[blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x


def draw_geometric(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Affine matrices of crops and rotations, ``[count, 2, 3]``."""
    u = torch.rand(count, 5, generator=generator)
    angle = (u[:, 0] * 2 - 1) * config.rotation_deg * torch.pi / 180
    side = torch.sqrt(u[:, 1] * (1 - config.smallest_crop) + config.smallest_crop)
    shape = torch.exp((u[:, 2] * 2 - 1) * config.shape)
    w, h = (side * shape).clamp(max=1), (side / shape).clamp(max=1)
    x, y = (u[:, 3] * 2 - 1) * (1 - w), (u[:, 4] * 2 - 1) * (1 - h)
    top = torch.stack([w * angle.cos(), -h * angle.sin(), x], dim=1)
    bottom = torch.stack([w * angle.sin(), h * angle.cos(), y], dim=1)
    return torch.stack([top, bottom], dim=1)


def geometric(x: Tensor, matrices: Tensor, side_px: int) -> Tensor:
    """Crop and rotate ``x [B, 3, H, W]`` to ``[B, 3, side, side]``."""
    grid = F.affine_grid(matrices, [len(x), 3, side_px, side_px], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def to_float(frames: Tensor) -> Tensor:
    """``uint8 [B, H, W, 3]`` to ``[B, 3, H, W]`` in 0..1."""
    return frames.permute(0, 3, 1, 2).float() / 255.0


def to_frames(x: Tensor) -> Tensor:
    """``[B, 3, H, W]`` in 0..1 back to the bytes that a model takes."""
    return torch.round(x.clamp(0, 1) * 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

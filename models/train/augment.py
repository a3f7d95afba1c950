"""Random changes of training frames: what cameras on robots do to a place.

Drawn for a whole batch and applied to any part of it: every process of a distributed run draws the
same numbers and computes only its own frames, so that one process and many train on the same
pixels. How each change looks is in ``camera.py``.

A mirrored frame is no change of this list: it shows another place (see ``metric.py``).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tatvpr_edge.models.train import camera


@dataclass(frozen=True)
class AugmentConfig:
    """How far frames are changed. Shares are of frames; widths lie around "unchanged".

    Attributes:
        brightness, contrast: relative half-widths.
        gamma: relative half-width of the exponent.
        gray_share: frames of a camera without colour.
        saturation: half-width of the factor on the distance from gray.
        balance: half-width of the logarithm of each channel's gain (white balance).
        hue_deg: half-width of the turn of colours about the gray axis.
        swap_share: frames whose red and blue are taken for each other.
        dark_share, dark_gain: frames of low light, with noise; their darkest gain.
        bright_share, bright_gain: over-exposed frames; their largest gain.
        noise: largest standard deviation of noise in 0..1; four times as much in low light.
        blur_share: frames blurred by a 3 x 3 box.
        motion_share, motion: frames smeared along a line; the longest, as a fraction of the side.
        jpeg_share, jpeg_quality: frames that went through JPEG; its lowest quality.
        vignette_share, vignette: frames with dark corners; how dark at most.
        occluder_share, occluder_area: frames with something in front; its largest part.
        roll_share, roll_deg: frames of a tilted camera, and how far it tilts.
        rotation_deg: half-width of the roll of all other frames.
        smallest_crop: smallest area that a crop keeps.
        shape: half-width of the logarithm of the crop's change of shape.
    """

    brightness: float = 0.25
    contrast: float = 0.25
    gamma: float = 0.25
    gray_share: float = 1.0 / 3.0
    saturation: float = 0.6
    balance: float = 0.3
    hue_deg: float = 15.0
    swap_share: float = 0.03
    dark_share: float = 0.12
    dark_gain: float = 0.15
    bright_share: float = 0.08
    bright_gain: float = 2.0
    noise: float = 0.02
    blur_share: float = 0.2
    motion_share: float = 0.12
    motion: float = 0.08
    jpeg_share: float = 0.15
    jpeg_quality: int = 12
    vignette_share: float = 0.15
    vignette: float = 0.7
    occluder_share: float = 0.25
    occluder_area: float = 1.0 / 3.0
    roll_share: float = 0.25
    roll_deg: float = 20.0
    rotation_deg: float = 5.0
    smallest_crop: float = 0.65
    shape: float = 0.2

    @classmethod
    def none(cls) -> AugmentConfig:
        """Leaves every frame as it is."""
        zero: dict[str, Any] = {f.name: 0 for f in dataclasses.fields(cls)}
        return cls(**{**zero, "smallest_crop": 1.0})


@dataclass(frozen=True)
class Photometric:
    """What :func:`photometric` does to each frame; one row of every tensor a frame.

    Attributes:
        colours: ``[B, 3, 3]``, white balance, saturation, hue and gray in one matrix.
        tone: ``[B, 4]``: gain, brightness, contrast, gamma.
        noise: ``[B]``, standard deviation.
        blurred: bool ``[B]``.
        motion: ``[B, 2]``: length as a fraction of the side (0: none), direction in radians.
        quality: int ``[B]`` of JPEG; 0 for none.
        vignette: ``[B]``, how dark corners are.
        occluder: ``[B, 5]``: centre x, y and half-axes x, y in 0..1, and how round; 0 axes: none.
        seed: int ``[B]``, of noise and of the occluder's look.
    """

    colours: Tensor
    tone: Tensor
    noise: Tensor
    blurred: Tensor
    motion: Tensor
    quality: Tensor
    vignette: Tensor
    occluder: Tensor
    seed: Tensor

    def __getitem__(self, part: slice) -> Photometric:
        """Those of some frames."""
        values = {f.name: getattr(self, f.name)[part] for f in dataclasses.fields(self)}
        return Photometric(**values)


def draw_photometric(count: int, config: AugmentConfig, generator: torch.Generator) -> Photometric:
    """Numbers for :func:`photometric`, for ``count`` frames."""

    def around(width: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * width

    def chosen(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    saturation = (1 + around(config.saturation)) * (~chosen(config.gray_share))
    colours = camera.colour_matrices(
        torch.exp(around(config.balance, 3)),
        saturation,
        around(config.hue_deg) * (math.pi / 180),
        chosen(config.swap_share),
    )
    dark, bright = chosen(config.dark_share), chosen(config.bright_share)
    darkness = torch.exp(uniform(math.log(max(config.dark_gain, 1e-3)), math.log(0.6)))
    gain = torch.where(dark, darkness, torch.ones(count))
    gain = torch.where(
        bright & ~dark, uniform(min(1.3, config.bright_gain), config.bright_gain), gain
    )
    tone = torch.stack(
        [
            gain,
            1 + around(config.brightness),
            1 + around(config.contrast),
            1 + around(config.gamma),
        ],
        dim=1,
    )
    area = uniform(0.05, max(0.05, config.occluder_area)) * chosen(config.occluder_share)
    slender = torch.exp(uniform(-0.7, 1.1))  # height to width: mostly upright, as people are
    half_height = (area * slender).sqrt().clamp(max=1.0) / 2
    half_width = area / (4 * half_height).clamp_min(1e-6)
    occluder = torch.stack(
        [uniform(0.1, 0.9), uniform(0.3, 0.9), half_width, half_height, uniform(0, 1)], dim=1
    )
    return Photometric(
        colours=colours,
        tone=tone,
        noise=uniform(0, config.noise) * (1 + 3 * dark),
        blurred=chosen(config.blur_share),
        motion=torch.stack(
            [uniform(0, config.motion) * chosen(config.motion_share), uniform(0, math.pi)], dim=1
        ),
        quality=(uniform(config.jpeg_quality, 60) * chosen(config.jpeg_share)).long(),
        vignette=uniform(0, config.vignette) * chosen(config.vignette_share),
        occluder=occluder,
        seed=torch.randint(2**31, (count,), generator=generator),
    )


def photometric(x: Tensor, drawn: Photometric) -> Tensor:
    """Scene, lens, sensor and codec in the order in which light meets them.

    Args:
        x: ``[B, 3, H, W]`` in 0..1.
    """
    x = camera.occlude(x, drawn.occluder, drawn.seed)
    x = camera.smear(x, drawn.motion)
    if bool(drawn.blurred.any()):
        boxed = F.avg_pool2d(F.pad(x[drawn.blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = x.index_put((drawn.blurred.nonzero()[:, 0],), boxed)
    x = camera.darken_corners(x, drawn.vignette)
    x = camera.recolour(x, drawn.colours)
    column = drawn.tone[:, :, None, None, None]
    x = camera.add_noise(x * column[:, 0] * column[:, 1], drawn.noise, drawn.seed)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = ((x - mean) * column[:, 2] + mean).clamp(1e-4, 1) ** column[:, 3]
    return camera.through_jpeg(x, drawn.quality)


def draw_geometric(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Affine matrices of crops and rotations, ``[count, 2, 3]``."""
    u = torch.rand(count, 6, generator=generator)
    widths = torch.where(u[:, 5] < config.roll_share, config.roll_deg, config.rotation_deg)
    angle = (u[:, 0] * 2 - 1) * widths * torch.pi / 180
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

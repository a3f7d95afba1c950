"""What a scene, a lens, a sensor and a codec do to frames ``[B, 3, H, W]`` in 0..1.

Each function takes one number or row for every frame, and leaves frames alone whose number says
"nothing". Used by ``augment.py``.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

#: Luma of ITU-R BT.601, as mono conversion and JPEG have it.
LUMA = (0.299, 0.587, 0.114)
#: Cells of the random texture of an occluder.
_TEXTURE = 5
#: Samples along the line of a motion blur.
_SMEAR_TAPS = 9


def colour_matrices(balance: Tensor, saturation: Tensor, hue: Tensor, swapped: Tensor) -> Tensor:
    """One matrix for each frame, ``[B, 3, 3]``.

    Args:
        balance: gain of each channel ``[B, 3]``.
        saturation: ``[B]``; 0 is gray.
        hue: turn of colours about the gray axis, radians ``[B]``.
        swapped: bool ``[B]``, red and blue taken for each other.
    """
    count = len(balance)
    eye = torch.eye(3).expand(count, 3, 3)
    gray = torch.tensor(LUMA).expand(3, 3)
    # Rodrigues' rotation about (1, 1, 1): gray stays what it is.
    axis = 3**-0.5
    cross = torch.tensor([[0.0, -axis, axis], [axis, 0.0, -axis], [-axis, axis, 0.0]])
    sin, cos = hue.sin()[:, None, None], hue.cos()[:, None, None]
    turned = cos * eye + sin * cross + (1 - cos) * torch.full((3, 3), 1 / 3)
    share = saturation[:, None, None]
    matrices = (share * eye + (1 - share) * gray) @ turned @ torch.diag_embed(balance)
    return torch.where(swapped[:, None, None], matrices.flip(1), matrices)


def recolour(x: Tensor, matrices: Tensor) -> Tensor:
    """``matrices [B, 3, 3]`` on the colours of ``x``."""
    return torch.einsum("bij,bjhw->bihw", matrices, x).clamp_min(0)


def occlude(x: Tensor, shape: Tensor, seed: Tensor) -> Tensor:
    """Something in front: an ellipse or box with a texture of its own.

    Args:
        shape: ``[B, 5]``: centre x, y, half-axes x, y as fractions of the frame, and roundness: up
            to a half a box, above an ellipse. Axes of 0: nothing in front.
    """
    rows = (shape[:, 2] > 0).nonzero()[:, 0]
    if not len(rows):
        return x
    x = x.clone()
    height, width = x.shape[2:]
    v = (torch.arange(height) + 0.5)[:, None] / height
    u = (torch.arange(width) + 0.5)[None, :] / width
    for row in rows.tolist():
        cx, cy, ax, ay, roundness = shape[row].tolist()
        du, dv = ((u - cx) / ax).abs(), ((v - cy) / ay).abs()
        inside = (du**2 + dv**2 <= 4 / math.pi) if roundness > 0.5 else (du.maximum(dv) <= 1)
        texture = torch.rand(1, 3, _TEXTURE, _TEXTURE, generator=_generator(seed[row], 1))
        drawn = F.interpolate(texture, (height, width), mode="bicubic", align_corners=False)
        x[row] = torch.where(inside, drawn[0].clamp(0, 1), x[row])
    return x


def smear(x: Tensor, motion: Tensor) -> Tensor:
    """Motion blur: the mean along a line of ``motion [B, 2]`` (length of sides, radians)."""
    rows = (motion[:, 0] > 0).nonzero()[:, 0]
    if not len(rows):
        return x
    moving, (length, way) = x[rows], motion[rows].unbind(1)
    total = torch.zeros_like(moving)
    for at in torch.linspace(-1, 1, _SMEAR_TAPS).tolist():  # grid units: the side is 2 long
        theta = torch.eye(2, 3).repeat(len(rows), 1, 1)
        theta[:, 0, 2], theta[:, 1, 2] = at * length * way.cos(), at * length * way.sin()
        grid = F.affine_grid(theta, list(moving.shape), align_corners=False)
        total += F.grid_sample(moving, grid, padding_mode="border", align_corners=False)
    return x.index_put((rows,), total / _SMEAR_TAPS)


def darken_corners(x: Tensor, strength: Tensor) -> Tensor:
    """Vignetting: light falls with the square of the distance from the centre, by ``strength [B]``
    in the corners."""
    if not bool((strength > 0).any()):
        return x
    height, width = x.shape[2:]
    v = torch.linspace(-1, 1, height)[:, None]
    u = torch.linspace(-1, 1, width)[None, :]
    return x * (1 - strength[:, None, None, None] * (u**2 + v**2) / 2)


def add_noise(x: Tensor, deviation: Tensor, seed: Tensor) -> Tensor:
    """Gaussian noise of ``deviation [B]`` on every value, then clipped as a sensor clips."""
    rows = (deviation > 0).nonzero()[:, 0].tolist()
    if rows:
        x = x.clone()
    for row in rows:
        noise = torch.randn(x.shape[1:], generator=_generator(seed[row], 2))
        x[row] += noise * deviation[row]
    return x.clamp(0, 1)


def through_jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Frames written as JPEG of ``quality [B]`` and read again; 0 leaves a frame alone."""
    rows = (quality > 0).nonzero()[:, 0].tolist()
    if rows:
        x = x.clone()
    for row in rows:
        levels = torch.round(x[row].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "JPEG", quality=int(quality[row]))
        read = np.array(Image.open(buffer))
        x[row] = torch.from_numpy(read).permute(2, 0, 1).float() / 255
    return x


def _generator(seed: Tensor, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(4 * int(seed) + purpose)

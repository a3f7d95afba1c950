"""Everything that can be compared: our models, the teacher, and hand-made baselines.

A describer turns square frames into unit descriptors at a given k. Those without a gate know only
k = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.models.data.frames import squash
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.teachers.base import Teacher
from tatvpr_edge.runtime.views import place_of_views, views_of

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]
_BATCH = 32


class Describer(Protocol):
    """Frames in, descriptors out.

    Attributes:
        name: in tables and JSON.
        image_px: side of its frames.
        ks: the fractions at which it is evaluated.
        size_mb: megabytes (10^6 bytes) of weights as deployed; 0 for hand-made descriptors.
        tokens: the share of its tokens that it keeps.
        lowest_k: the least k that it takes.
    """

    name: str
    image_px: int
    ks: Sequence[float]
    size_mb: float
    tokens: float
    lowest_k: float

    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """``uint8 [N, image_px, image_px, 3] -> float32 [N, D]``, rows of unit length.

        Args:
            tokens: another share of the tokens than the describer's own.
        """

    def macs(self, k: float) -> int:
        """Multiply-accumulates of one frame at ``k``."""


def _named(name: str, tokens: float) -> str:
    return name if tokens >= 1 else f"{name}, tokens {tokens:g}"


def frames_for(describer: Describer, images: Sequence[Image.Image]) -> Frames:
    """``images`` squashed to the describer's square."""
    return np.stack([squash(image, describer.image_px) for image in images])


def places_of(
    describer: Describer,
    images: Sequence[Image.Image],
    settings: Sequence[tuple[float, float | None]],
    several: bool = True,
) -> list[Floats]:
    """Descriptors of ``images`` as places of a map, float32 [N, D] for each (k, tokens): from the
    views from which ``tatvpr-edge map build`` describes a place, whoever describes; not of
    ``several`` views: from the images alone."""
    if not several:
        frames = frames_for(describer, images)
        return [describer.describe(frames, k, tokens) for k, tokens in settings]

    def squashed(image: Image.Image) -> Frames:
        views = views_of(np.asarray(image.convert("RGB")))
        return np.stack([squash(Image.fromarray(view), describer.image_px) for view in views])

    frames = np.stack([squashed(image) for image in images], axis=1)

    return [
        place_of_views(
            describer.describe,
            list(frames),
            k,
            describer.tokens if tokens is None else tokens,
            describer.lowest_k,
        )
        for k, tokens in settings
    ]


@dataclass
class ModelDescriber:
    """One of our models, run by torch."""

    model: PlaceModel
    ks: Sequence[float]
    name: str = ""
    tokens: float = 1.0
    lowest_k: float = 0.0

    def __post_init__(self) -> None:
        self.model.eval()
        self.name = _named(self.name or self.model.config.name, self.tokens)
        self.image_px = self.model.config.backbone.image_px
        self.size_mb = deployed_bytes(self.model) / 1e6

    @torch.no_grad()
    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """See :class:`Describer`."""
        share = self.tokens if tokens is None else tokens
        parts = [
            self.model(torch.from_numpy(frames[i : i + _BATCH]), k, share).numpy()
            for i in range(0, len(frames), _BATCH)
        ]
        return np.concatenate(parts)

    def macs(self, k: float) -> int:
        """See :class:`Describer`."""
        from tatvpr_edge.models.evaluate.compute import count_macs

        return count_macs(self.model.config, k, self.tokens).total


class ArtifactDescriber:
    """A built artifact, run by ``runtime.Localizer`` as on a device: the deployed model itself.

    Args:
        path: artifact folder for this machine.
        ks: fractions to evaluate.
        name: in tables; None for the model's name and the board's.
        tokens: share of the tokens kept.

    Raises:
        UsageError: k or tokens that it was not built for.
    """

    def __init__(
        self, path: Path, ks: Sequence[float], name: str | None = None, tokens: float = 1.0
    ) -> None:
        from tatvpr_edge.runtime import Localizer

        self._localizer = Localizer(path, threads=1)
        for k in ks:  # refuses what the artifact was not built for before anything is described
            self._localizer.k = k
        self._localizer.tokens = tokens
        manifest = self._localizer.artifact.manifest
        self.ks = ks
        self.tokens = tokens
        self.lowest_k = manifest.k_range[0]
        self.name = _named(name or f"{manifest.model.name} on {manifest.board}", tokens)
        self.image_px = manifest.model.image_size
        self.size_mb = manifest.memory["weight_bytes"] / 1e6
        self._macs = {
            row["k"]: int(row["macs"]) for row in manifest.compute if row["tokens"] == tokens
        }

    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """See :class:`Describer`."""
        self._localizer.k = k
        self._localizer.tokens = self.tokens if tokens is None else tokens
        return np.stack([self._localizer.describe(frame) for frame in frames])

    def macs(self, k: float) -> int:
        """See :class:`Describer`; 0 where the manifest does not count this k."""
        return self._macs.get(k, 0)


@dataclass
class TeacherDescriber:
    """A teacher, zero-shot, as the convolutional baseline."""

    teacher: Teacher
    size_mb: float
    macs_per_frame: int
    ks: Sequence[float] = (1.0,)
    tokens: float = 1.0
    lowest_k: float = 1.0

    def __post_init__(self) -> None:
        self.name, self.image_px = self.teacher.name, self.teacher.image_px

    @torch.no_grad()
    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """See :class:`Describer`."""
        parts = [
            self.teacher.descriptors(
                self.teacher.features(torch.from_numpy(frames[i : i + _BATCH]))
            ).numpy()
            for i in range(0, len(frames), _BATCH)
        ]
        return np.concatenate(parts)

    def macs(self, k: float) -> int:
        """See :class:`Describer`."""
        return self.macs_per_frame


class _HandMade:
    """Knows k = 1 and all tokens alone; nothing of it is learned."""

    size_mb, tokens, lowest_k = 0.0, 1.0, 1.0
    ks: Sequence[float] = (1.0,)

    def macs(self, k: float) -> int:
        """See :class:`Describer`."""
        return 0


class Gray32(_HandMade):
    """32 x 32 gray pixels, mean removed: what a place looks like to a thumbnail."""

    name, image_px = "gray32", 32

    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """See :class:`Describer`."""
        gray = _gray(frames).reshape(len(frames), -1)
        return _unit(gray - gray.mean(1, keepdims=True))


class HOG(_HandMade):
    """Histograms of oriented gradients (Dalal and Triggs, 2005): cells of 8 x 8 px at 64 x 64 px,
    9 unsigned orientations, blocks of 2 x 2 cells, L2 with clipping at 0.2.
    """

    name, image_px = "hog", 64
    _cell, _bins = 8, 9

    def describe(self, frames: Frames, k: float, tokens: float | None = None) -> Floats:
        """See :class:`Describer`."""
        gray = _gray(frames)
        dx = np.zeros_like(gray)
        dy = np.zeros_like(gray)
        dx[:, :, 1:-1] = gray[:, :, 2:] - gray[:, :, :-2]
        dy[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
        strength = np.hypot(dx, dy)
        # Each gradient is shared between its two nearest orientations.
        angle = (np.arctan2(dy, dx) % np.pi) / np.pi * self._bins - 0.5
        low = np.floor(angle).astype(np.int64)
        upper = (angle - low).astype(np.float32)
        cells = gray.shape[1] // self._cell
        histogram = np.zeros((len(gray), cells, cells, self._bins), np.float32)
        for bin_, share in ((low % self._bins, 1 - upper), ((low + 1) % self._bins, upper)):
            weight = strength * share
            for orientation in range(self._bins):
                part = np.where(bin_ == orientation, weight, 0)
                tiles = part.reshape(len(gray), cells, self._cell, cells, self._cell)
                histogram[..., orientation] += tiles.sum((2, 4))
        corners = (slice(None, -1), slice(1, None))
        blocks = np.concatenate([histogram[:, r, c] for r in corners for c in corners], axis=-1)
        blocks = np.minimum(_unit(blocks), 0.2)
        return _unit(_unit(blocks).reshape(len(gray), -1))


def _gray(frames: Frames) -> Floats:
    gray = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return (gray / np.float32(255)).astype(np.float32)


def _unit(x: Floats) -> Floats:
    length = np.sqrt((x * x).sum(-1, keepdims=True))
    return (x / np.maximum(length, 1e-9)).astype(np.float32)


def deployed_bytes(model: PlaceModel) -> int:
    """Bytes of weights in the exported file: two bits for a ternary weight, one byte for a patch
    weight, four for everything else. Zeros in place of biases are stored once for each size; a
    head's table of the tokens counts as well.
    """
    from tatvpr_edge.models.nn.layers import PatchEmbed, TernaryLayer

    if not model.config.backbone.ternary:
        return sum(p.numel() * 4 for p in model.parameters())
    total = 0
    seen: set[int] = set()
    unbiased: set[int] = set()
    for module in model.modules():
        if isinstance(module, (TernaryLayer, PatchEmbed)):
            rows, columns = module.weight.shape
            packed = isinstance(module, TernaryLayer)
            total += rows * (-(-columns // 4) if packed else columns)
            if isinstance(module, TernaryLayer) and module.bias is None:
                unbiased.add(rows)
            else:
                total += 4 * rows
            per_row = not packed or (isinstance(module, TernaryLayer) and module.row_scales)
            total += 4 * (rows if per_row else 1)
            seen.update(id(p) for p in module.parameters())
    head: Any = model.head
    table = head.table() if hasattr(head, "table") else None
    total += 4 * sum(unbiased) + (0 if table is None else table.nbytes)
    return total + sum(4 * p.numel() for p in model.parameters() if id(p) not in seen)

"""Where one can stand on a map and how far one can see, from its blocking lines."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Walls:
    """The blocking lines of a map, float64 [N, 4] as x1 y1 x2 y2."""

    def __init__(self, lines: Array) -> None:
        self._start = lines[:, :2]
        self._span = lines[:, 2:] - lines[:, :2]

    def clearance(self, x: float, y: float) -> float:
        """Return the distance from a point to the nearest wall."""
        offset = np.array([x, y]) - self._start
        length2 = np.maximum((self._span**2).sum(1), 1e-9)
        along = np.clip((offset * self._span).sum(1) / length2, 0.0, 1.0)
        return float(np.hypot(*(offset - along[:, None] * self._span).T).min())

    def free_distance(self, x: float, y: float, headings: Array) -> Array:
        """Return how far rays at `headings` (degrees, [R]) go before the first wall."""
        ray = np.stack([np.cos(np.radians(headings)), np.sin(np.radians(headings))], 1)
        offset = self._start - np.array([x, y])
        cross = ray[:, :1] * self._span[None, :, 1] - ray[:, 1:] * self._span[None, :, 0]
        safe = np.where(np.abs(cross) < 1e-9, np.inf, cross)
        along_ray = (offset[:, 0] * self._span[:, 1] - offset[:, 1] * self._span[:, 0]) / safe
        along_wall = (offset[None, :, 0] * ray[:, 1:] - offset[None, :, 1] * ray[:, :1]) / safe
        hit = np.isfinite(safe) & (along_ray > 0) & (along_wall >= 0) & (along_wall <= 1)
        return np.asarray(np.where(hit, along_ray, np.inf).min(1))

    def reach(self, x: float, y: float, to_x: float, to_y: float) -> bool:
        """Tell whether the straight way between two points meets no wall."""
        heading = np.array([math.degrees(math.atan2(to_y - y, to_x - x))])
        return bool(self.free_distance(x, y, heading)[0] > math.hypot(to_x - x, to_y - y))

"""The structure of a frame (``tatvpr_frame_structure``) once more, in NumPy and in floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS, SAMPLES, DEGREE = 16, 8, 4


def structure_of(luma: NDArray[np.uint8]) -> float:
    """Gray levels of structure of uint8 [H, W]."""
    rows, columns = (spread(size) for size in luma.shape)
    levels = luma[rows][:, columns].astype(np.float64)
    cells = levels.reshape(CELLS, SAMPLES, CELLS, SAMPLES).mean(axis=(1, 3)).reshape(-1)
    smooth = smooth_surfaces()
    left = cells - smooth @ (smooth.T @ cells)
    return float(np.sqrt(np.mean(left * left)))


def spread(size: int) -> NDArray[np.intp]:
    """Indices of the samples along a side, evenly over 0 .. size - 1."""
    count = CELLS * SAMPLES
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)


def smooth_surfaces() -> NDArray[np.float64]:
    """Orthonormal columns that span x^i y^j, i + j <= 4, over the cells: float64 [256, 15]."""
    at = np.linspace(-1, 1, CELLS)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(at, at, indexing="ij"))
    columns = [x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return np.asarray(np.linalg.qr(np.stack(columns, axis=1))[0])

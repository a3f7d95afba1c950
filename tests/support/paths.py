"""A camera on its way along invented places, and what a map says of its answers."""

from __future__ import annotations

import numpy as np

from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration

#: The places of a map that stays.
HELD = object()
#: Of a calibration of sequences: all count.
WEIGHTS = (-2.0, 1.5, 6.0, 0.5, 3.0, 0.1)


def judging(
    elsewhere_m: float, frames: int, threshold: float = 0.0, kind: str = "logistic"
) -> Calibration:
    """A calibration whose weights are all used."""
    sequence = SequenceCalibration(frames, threshold, WEIGHTS, 0.95, 0.3)
    return Calibration(kind, 0.0, (0.0, 1.0, 1.0), elsewhere_m, 0, 0.95, 0.1, sequence)


def line(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(drives, xy) of one drive along x, a metre a place."""
    return np.zeros(count, int), np.stack([np.arange(count), np.zeros(count)], axis=1).astype(float)


def seen_at(place: float, count: int, alike: float = 0.3) -> np.ndarray:
    """Scores of a frame taken at ``place``: high there, falling off within three places."""
    near = 1 - np.abs(np.arange(count) - place) / 3
    return np.maximum(alike, 0.9 * near).astype(np.float32)

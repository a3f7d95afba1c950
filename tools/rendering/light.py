"""The light of a frame: the engine's own, and what a camera makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Light:
    """The light of one view. `Light()` is the map's own."""

    visibility: float = 8.0  # the engine's r_visibility; 8 is its default
    exposure: float = 1.0
    gamma: float = 1.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)  # gains of red, green, blue
    noise: float = 0.0  # standard deviation of the sensor's noise, grey levels

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float) -> Light:
        """Draw a light at random; `strength` 0 is the map's own, 1 the widest range."""
        warmth, tint = strength * rng.uniform(-0.22, 0.22), strength * rng.uniform(-0.08, 0.08)
        return cls(
            visibility=8.0 * 2.0 ** (strength * rng.uniform(-1.5, 1.5)),
            exposure=2.0 ** (strength * rng.uniform(-0.9, 0.9)),
            gamma=2.0 ** (strength * rng.uniform(-0.5, 0.5)),
            cast=(2.0**warmth, 2.0**tint, 2.0**-warmth),
            noise=strength * rng.uniform(0.0, 4.0),
        )

    def apply(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Give `frame` (uint8 [H, W, 3]) this camera's exposure, cast, gamma and noise."""
        levels = frame.astype(np.float64) / 255.0 * self.exposure * np.asarray(self.cast)
        levels = 255.0 * np.clip(levels, 0.0, 1.0) ** self.gamma
        if self.noise > 0:
            levels += rng.normal(0.0, self.noise, (*frame.shape[:2], 1))
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)

"""The CPU backend: the artifact's own compiled library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame, squashed
from tatvpr_edge.runtime.library import FrameTooLarge, Library
from tatvpr_edge.spec.artifact import Artifact


class CpuBackend:
    """See :class:`tatvpr_edge.runtime.backends.Backend`."""

    name = "cpu"

    def __init__(self, artifact: Artifact, kernels: str | None = None, threads: int = 0) -> None:
        self.library = Library.of(artifact, kernels=kernels, threads=threads)

    def describe(self, frame: CameraFrame, k: float, tokens: float) -> NDArray[np.float32]:
        """Descriptor float32 [D] of unit length."""
        try:
            return self.library.describe(frame, k, tokens).descriptor
        except FrameTooLarge:
            # The arena is planned for the model, not for the largest frame on earth. The
            # reference squashes such a frame to the same bytes, only slower.
            small = squashed(frame, self.library.info.image_size)
            return self.library.describe(small, k, tokens).descriptor

    def close(self) -> None:
        """Nothing is held outside Python's own memory."""


def open_backend(artifact: Artifact, kernels: str | None = None, threads: int = 0) -> CpuBackend:
    """The CPU backend over ``artifact``; see :class:`Library` for errors."""
    return CpuBackend(artifact, kernels=kernels, threads=threads)

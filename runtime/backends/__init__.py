"""Ways to run an artifact. Each is a module ``runtime/backends/NAME`` with ``open_backend``.

``cpu`` runs the artifact's own library and is always there. An artifact may name others in its
manifest (``backends``); they may refuse a machine with ToolError, and the CPU takes over.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.values import choice

NAMES = ("cpu", "tensorrt")


class Backend(Protocol):
    """What a backend offers to ``Localizer``. ``describe`` may be called by several threads."""

    name: str

    def describe(self, frame: CameraFrame, k: float, tokens: float) -> NDArray[np.float32]:
        """Descriptor float32 [D] of unit length for a checked frame."""

    def close(self) -> None:
        """Give back what is held outside Python."""


def open_backend(name: str, artifact: Artifact, **options: Any) -> Backend:
    """The backend ``name`` over ``artifact``; ``options`` are its own.

    Raises:
        UsageError: no such backend, or the artifact was not built for it.
        ToolError: the backend cannot run on this machine.
        ArtifactError: the artifact does not fit the machine.
    """
    choice(name, NAMES, "backend")
    if name != "cpu" and name not in artifact.manifest.backends:
        raise UsageError(
            f"{artifact.root} was not built for the backend {name}: build it with --backend {name}"
        )
    module = importlib.import_module(f"tatvpr_edge.runtime.backends.{name}")
    backend: Backend = module.open_backend(artifact, **options)
    return backend

"""Jetson GPUs: TensorRT engines between launches of our own kernels.

``open_backend`` takes an engine that ``finish`` built and verified on this very machine, and
nothing else. Nothing here is imported before it is asked for; ``tensorrt`` only inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tatvpr_edge.runtime.backends.tensorrt.backend import TensorRtBackend
    from tatvpr_edge.spec.artifact import Artifact


def open_backend(
    artifact: Artifact, cuda_context: Any = None, cuda_stream: Any = None
) -> TensorRtBackend:
    """The GPU backend over ``artifact``.

    Raises:
        ToolError: no CUDA driver, no TensorRT, or no finished engine for this machine.
        ArtifactError: the artifact was not built for TensorRT, or for another GPU.
    """
    from tatvpr_edge.runtime.backends.tensorrt.backend import TensorRtBackend

    return TensorRtBackend(artifact, cuda_context, cuda_stream)

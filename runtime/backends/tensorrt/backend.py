"""The TensorRT backend of ``Localizer``: a finished engine, and the CPU library behind it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.backends.cpu import CpuBackend
from tatvpr_edge.runtime.backends.tensorrt import cache
from tatvpr_edge.runtime.backends.tensorrt.device import load_pipeline, open_device
from tatvpr_edge.runtime.backends.tensorrt.machine import this_machine
from tatvpr_edge.runtime.backends.tensorrt.pipeline import Pipeline
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.frame import CameraFrame, squashed
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ToolError

_LOG = logging.getLogger("tatvpr_edge")


class TensorRtBackend:
    """See :class:`tatvpr_edge.runtime.backends.Backend`. Calls from several threads take turns.

    If the GPU fails later, or after a fork (a CUDA context does not survive one), the CPU library
    of the same artifact answers from then on, and one line says so.

    Args:
        cuda_context, cuda_stream: a caller's; see ``runtime.cuda.driver.open_driver``. A caller's
            stream is not recorded as a graph, because he may queue work on it himself.

    Raises:
        ToolError: no CUDA driver, no TensorRT, or no finished engine for this machine.
        ArtifactError: the artifact is for another GPU.
    """

    def __init__(
        self, artifact: Artifact, cuda_context: Any = None, cuda_stream: Any = None
    ) -> None:
        self.name = "tensorrt"
        self._artifact = artifact
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._cpu: CpuBackend | None = None
        self._size = artifact.manifest.model.image_size
        finish = f"run python -m tatvpr_edge.runtime finish {artifact.root}"
        if not cache.has_any(artifact):  # CUDA once opened holds its memory until the process ends
            raise ToolError(f"no finished engine on this machine: {finish}")
        self._device = open_device(artifact, cuda_context, cuda_stream)
        machine = this_machine(self._device.driver)
        entry = cache.find(cache.entry_key(artifact, machine))
        if entry is None:
            raise ToolError(
                f"no finished engine for {machine.gpu} with TensorRT {machine.tensorrt}: {finish}"
            )
        with self._device.driver:
            self._pipeline: Pipeline | None = load_pipeline(
                artifact, self._device, entry.plugin(), entry.read
            )
        tell_children(self)

    def describe(self, frame: CameraFrame, k: float, tokens: float) -> NDArray[np.float32]:
        """Descriptor float32 [D] of unit length."""
        with self._lock:
            if self._cpu is None:
                try:
                    return self._on_gpu(frame, k, tokens)
                except ToolError as error:
                    self._give_up(str(error))
            assert self._cpu is not None
        return self._cpu.describe(frame, k, tokens)

    def _on_gpu(self, frame: CameraFrame, k: float, tokens: float) -> NDArray[np.float32]:
        if self._process != os.getpid():
            raise ToolError("this process was forked from the one that opened the GPU")
        if self._pipeline is None:
            raise ToolError("the backend is closed")
        pixels = squashed(frame, self._size).planes[0]
        with self._device.driver:
            descriptor = self._pipeline.run(pixels, k, tokens)
        if not np.isfinite(descriptor).all():
            raise ToolError("the descriptor is not finite")
        return descriptor

    def _give_up(self, reason: str) -> None:
        self._cpu = CpuBackend(self._artifact)
        self.name = "cpu"
        _LOG.warning("tensorrt stopped (%s); using the CPU library", reason)

    def _after_fork(self) -> None:
        """A child's own lock."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the GPU's memory back."""
        with self._lock:
            # In a forked child the engines stay: ending them would call CUDA, which is not there.
            if self._pipeline is not None and self._process == os.getpid():
                with contextlib.suppress(ToolError), self._device.driver:  # of a GPU that failed
                    self._pipeline.close()
                self._pipeline = None

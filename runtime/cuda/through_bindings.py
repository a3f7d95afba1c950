"""The CUDA driver through NVIDIA's cuda-bindings: wheels for x86-64 and aarch64, no compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.cuda.driver import Argument, Driver, Graph, no_driver, packed
from tatvpr_edge.spec.errors import ToolError, UsageError

#: Of cuStreamCreate: not ordered with the default stream. While one is recorded that is, whatever
#: anybody in the process gives to the default stream (cudaMemcpy) is refused.
_NON_BLOCKING = 1


class BindingsDriver(Driver):
    """See :class:`tatvpr_edge.runtime.cuda.driver.Driver`."""

    through = "cuda-bindings"

    def __init__(self, device: int, context: Any, stream: Any) -> None:
        from cuda.bindings import driver as cuda

        self._cuda = cuda
        try:
            self.call(cuda.cuInit, 0)
        except (RuntimeError, OSError) as error:  # the package looks for the driver's library here
            raise no_driver(error) from None
        self._device = self.call(cuda.cuDeviceGet, device)
        self._context = self._context_of(context)
        #: A caller may queue work beside ours, which a recording would swallow.
        self.can_record = stream is None
        with self:
            if context is not None:
                self._device = self.call(cuda.cuCtxGetDevice)
            self._stream = (
                self.call(cuda.cuStreamCreate, _NON_BLOCKING)
                if stream is None
                else cuda.CUstream(_handle(stream, "stream"))
            )

    def _context_of(self, given: Any) -> Any:
        if given is not None:
            return self._cuda.CUcontext(_handle(given, "context"))
        current = self.call(self._cuda.cuCtxGetCurrent)
        if int(current):
            return current
        return self.call(self._cuda.cuDevicePrimaryCtxRetain, self._device)

    def call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """What the driver's ``function`` gives.

        Raises:
            ToolError: it refused.
        """
        result, *values = function(*arguments)
        if result != self._cuda.CUresult.CUDA_SUCCESS:
            raise ToolError(f"the CUDA driver refused {function.__name__}: {result.name}")
        return values[0] if values else None

    def _push(self) -> None:
        self.call(self._cuda.cuCtxPushCurrent, self._context)

    def _pop(self) -> None:
        self.call(self._cuda.cuCtxPopCurrent)

    @property
    def stream(self) -> int:
        return int(self._stream)

    def device_name(self) -> str:
        name: bytes = self.call(self._cuda.cuDeviceGetName, 256, self._device)
        return name.partition(b"\0")[0].decode(errors="replace")

    def architecture(self) -> str:
        kinds = self._cuda.CUdevice_attribute
        numbers = [
            self.call(self._cuda.cuDeviceGetAttribute, kind, self._device)
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        ]
        return "sm_{}{}".format(*numbers)

    def _version(self) -> int:
        return int(self.call(self._cuda.cuDriverGetVersion))

    def allocate(self, size_bytes: int) -> int:
        return int(self.call(self._cuda.cuMemAlloc, max(1, size_bytes)))

    def free(self, pointer: int) -> None:
        self.call(self._cuda.cuMemFree, pointer)

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        self.call(
            self._cuda.cuMemcpyHtoDAsync, pointer, array.ctypes.data, array.nbytes, self._stream
        )

    def download(self, array: NDArray[Any], pointer: int) -> None:
        assert array.flags.c_contiguous
        self.call(
            self._cuda.cuMemcpyDtoHAsync, array.ctypes.data, pointer, array.nbytes, self._stream
        )

    def zero(self, pointer: int, size_bytes: int, stream: int | None = None) -> None:
        self.call(self._cuda.cuMemsetD8Async, pointer, 0, size_bytes, self._on(stream))

    def synchronise(self) -> None:
        self.call(self._cuda.cuStreamSynchronize, self._stream)

    def wait_for(self, stream: int) -> None:
        self.call(self._cuda.cuStreamSynchronize, self._on(stream))

    def load(self, cubin: bytes) -> Callable[[str], Any]:
        module = self.call(self._cuda.cuModuleLoadData, cubin)
        return lambda name: self.call(self._cuda.cuModuleGetFunction, module, name.encode())

    def launch(
        self,
        function: Any,
        grid: Sequence[int],
        block: int,
        shared_bytes: int,
        arguments: Sequence[Argument],
        stream: int | None = None,
    ) -> None:
        held = [np.array(packed(a)) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(h.ctypes.data for h in held))
        x, y = (*grid, 1)[:2]
        self.call(
            self._cuda.cuLaunchKernel,
            function,
            *(x, y, 1, block, 1, 1, shared_bytes),
            self._on(stream),
            ctypes.addressof(pointers),
            0,
        )

    def _on(self, stream: int | None) -> Any:
        return self._stream if stream is None else self._cuda.CUstream(stream)

    def begin_capture(self) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.call(self._cuda.cuStreamBeginCapture, self._stream, mode)

    def end_capture(self) -> Graph:
        graph = self.call(self._cuda.cuStreamEndCapture, self._stream)
        try:
            made = self.call(self._cuda.cuGraphInstantiate, graph, 0)
            return Graph(
                partial(self.call, self._cuda.cuGraphLaunch, made, self._stream),
                partial(self.call, self._cuda.cuGraphExecDestroy, made),
            )
        finally:
            self.call(self._cuda.cuGraphDestroy, graph)


def _handle(given: Any, what: str) -> int:
    """The driver's handle of a context or stream of any package.

    Raises:
        UsageError: it has none that is known.
    """
    for value in (given, getattr(given, "handle", None), getattr(given, "cuda_stream", None)):
        if value is not None and hasattr(value, "__int__"):
            return int(value)
    if hasattr(given, "__cuda_stream__"):
        return int(given.__cuda_stream__()[1])
    raise UsageError(f"{type(given).__name__} is no CUDA {what}: give its handle, an int")

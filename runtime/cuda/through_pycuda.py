"""The CUDA driver through pycuda: robots that hold its contexts, streams and arrays share them.

pycuda cannot record a stream, and knows no stream that it did not make.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from tatvpr_edge.runtime.cuda.driver import Argument, Driver, Graph, no_driver, packed
from tatvpr_edge.spec.errors import ToolError


class PycudaDriver(Driver):
    """See :class:`tatvpr_edge.runtime.cuda.driver.Driver`."""

    through = "pycuda"
    can_record = False

    def __init__(self, device: int, context: Any, stream: Any) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:  # it is linked with libcuda
            raise no_driver(error) from None
        self._cuda = cuda
        self._held: dict[int, Any] = {}  # allocations, which pycuda frees with their objects
        with self._refusals("cuInit"):
            cuda.init()
            if context is None:
                context = cuda.Context.get_current()
            if context is None:
                context = cuda.Device(device).retain_primary_context()
            self._context = context
        with self, self._refusals("cuStreamCreate"):
            self._device = cuda.Context.get_device()
            self._stream = cuda.Stream() if stream is None else stream

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise ToolError(f"the CUDA driver refused {what}: {error}") from None

    def _push(self) -> None:
        with self._refusals("cuCtxPushCurrent"):
            self._context.push()

    def _pop(self) -> None:
        with self._refusals("cuCtxPopCurrent"):
            self._cuda.Context.pop()

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def device_name(self) -> str:
        return str(self._device.name())

    def architecture(self) -> str:
        return "sm_{}{}".format(*self._device.compute_capability())

    def _version(self) -> int:
        return int(self._cuda.get_driver_version())

    def allocate(self, size_bytes: int) -> int:
        with self._refusals("cuMemAlloc"):
            made = self._cuda.mem_alloc(max(1, size_bytes))
        self._held[int(made)] = made
        return int(made)

    def free(self, pointer: int) -> None:
        with self._refusals("cuMemFree"):
            self._held.pop(pointer).free()

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        with self._refusals("cuMemcpyHtoDAsync"):
            self._cuda.memcpy_htod_async(pointer, array, self._stream)

    def download(self, array: NDArray[Any], pointer: int) -> None:
        assert array.flags.c_contiguous
        with self._refusals("cuMemcpyDtoHAsync"):
            self._cuda.memcpy_dtoh_async(array, pointer, self._stream)

    def zero(self, pointer: int, size_bytes: int, stream: int | None = None) -> None:
        with self._refusals("cuMemsetD8Async"):
            self._cuda.memset_d8_async(pointer, 0, size_bytes, self._on(stream))

    def synchronise(self) -> None:
        with self._refusals("cuStreamSynchronize"):
            self._stream.synchronize()

    def wait_for(self, stream: int) -> None:
        with self._refusals("cuCtxSynchronize"):  # a stream by its handle is nothing to pycuda
            self._cuda.Context.synchronize()

    def load(self, cubin: bytes) -> Callable[[str], Any]:
        with self._refusals("cuModuleLoadData"):
            module = self._cuda.module_from_buffer(cubin)

        def function(name: str) -> Any:
            with self._refusals("cuModuleGetFunction"):
                return module.get_function(name)

        return function

    def launch(
        self,
        function: Any,
        grid: Sequence[int],
        block: int,
        shared_bytes: int,
        arguments: Sequence[Argument],
        stream: int | None = None,
    ) -> None:
        with self._refusals("cuLaunchKernel"):
            function(
                *map(packed, arguments),
                grid=(*grid, 1)[:2],
                block=(block, 1, 1),
                shared=shared_bytes,
                stream=self._on(stream),
            )

    def _on(self, stream: int | None) -> Any:
        if stream is not None and stream != self.stream:
            raise ToolError(
                "TensorRT runs a plugin on a stream that pycuda does not know: build the C++ "
                "plugin (docs/gpu.md), or use cuda-bindings in a Python without pycuda"
            )
        return self._stream

    def begin_capture(self) -> None:
        raise ToolError(
            "pycuda cannot record a stream: use cuda-bindings ('tatvpr-edge[cuda]') in a Python "
            "without pycuda"
        )

    def end_capture(self) -> Graph:
        raise ToolError("nothing was recorded")

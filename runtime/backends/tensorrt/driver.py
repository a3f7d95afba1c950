"""The part of the CUDA driver that the device runtime needs, by ctypes.

Every Jetson has ``libcuda``; nothing has to be built or installed for it. In: cubins, sizes,
NumPy arrays. Out: device pointers as ints, launches on a stream. Called by the TensorRT backend
and by the kernels' tests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import ToolError

_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76
_CAPTURE_MODE_THREAD_LOCAL = 1

Argument = int | float | None


class Driver:
    """One GPU, its primary context current on the calling thread, and one stream.

    Raises:
        ToolError: there is no CUDA driver or no GPU; later, any call that the driver refuses.
    """

    def __init__(self, library: str = "libcuda.so.1", device: int = 0) -> None:
        try:
            # Global, because the plugin library on a board leaves the driver's symbols to us.
            self._lib = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise ToolError(f"no CUDA driver on this machine ({library}): {error}") from None
        self._call("cuInit", 0)
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), device)
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._context = context
        self.make_current()
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self._stream = stream

    def _call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._lib, name)(*arguments)
        if result:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorName(result, ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {result}"
            raise ToolError(f"the CUDA driver refused {name}: {reason}")

    def make_current(self) -> None:
        """Bind the context to the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def device_name(self) -> str:
        """Such as ``"Orin"``."""
        buffer = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", buffer, len(buffer), self._device)
        return buffer.value.decode(errors="replace")

    def architecture(self) -> str:
        """Such as ``"sm_87"``."""
        numbers = []
        for attribute in (_COMPUTE_MAJOR, _COMPUTE_MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
            numbers.append(value.value)
        return "sm_{}{}".format(*numbers)

    def version(self) -> str:
        """CUDA version that the driver speaks, such as ``"12.6"``."""
        value = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"

    def allocate(self, size_bytes: int) -> int:
        """Device memory; free it with :meth:`free`."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(1, size_bytes)))
        return pointer.value

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous array to the device, in the stream's order."""
        assert array.flags.c_contiguous
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(pointer),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            self._stream,
        )

    def download(self, array: NDArray[Any], pointer: int) -> None:
        """Copy from the device into a C-contiguous array; complete after :meth:`synchronise`."""
        assert array.flags.c_contiguous
        self._call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_uint64(pointer),
            ctypes.c_size_t(array.nbytes),
            self._stream,
        )

    def to_device(self, array: NDArray[Any]) -> int:
        """Allocate and upload."""
        array = np.ascontiguousarray(array)
        pointer = self.allocate(array.nbytes)
        self.upload(pointer, array)
        self.synchronise()
        return pointer

    def zero(self, pointer: int, size_bytes: int, stream: int | None = None) -> None:
        """Fill device memory with zero bytes, in the order of ``stream`` (ours without one)."""
        self._call(
            "cuMemsetD8Async",
            ctypes.c_uint64(pointer),
            ctypes.c_ubyte(0),
            ctypes.c_size_t(size_bytes),
            self._stream if stream is None else ctypes.c_void_p(stream),
        )

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def load(self, cubin: bytes) -> Module:
        """Load a cubin; its kernels are found by name."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), cubin)
        return Module(self, module)

    def launch(
        self,
        function: ctypes.c_void_p,
        grid: Sequence[int],
        block: int,
        shared_bytes: int,
        arguments: Sequence[Argument | ctypes._SimpleCData[Any]],
        stream: int | None = None,
    ) -> None:
        """Launch on ``stream`` (ours without one).

        Plain ints are int32, pointers are ``c_uint64``, None is a null pointer.
        """
        held = [_argument(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
        x, y = (*grid, 1)[:2]
        self._call(
            "cuLaunchKernel",
            function,
            *(x, y, 1, block, 1, 1, shared_bytes),
            self._stream if stream is None else ctypes.c_void_p(stream),
            pointers,
            None,
        )

    def begin_capture(self) -> None:
        """Record what follows on the stream instead of running it."""
        self._call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_MODE_THREAD_LOCAL)

    def end_capture(self) -> Graph:
        """The recorded work, ready to be run again and again."""
        graph = ctypes.c_void_p()
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        executable = ctypes.c_void_p()
        try:
            self._call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(executable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            if graph.value:
                self._call("cuGraphDestroy", graph)
        return Graph(self, executable)


class Module:
    """A loaded cubin."""

    def __init__(self, driver: Driver, handle: ctypes.c_void_p) -> None:
        self._driver = driver
        self._handle = handle

    def function(self, name: str) -> ctypes.c_void_p:
        """The kernel of that name.

        Raises:
            ToolError: the cubin has no such kernel.
        """
        function = ctypes.c_void_p()
        self._driver._call(
            "cuModuleGetFunction", ctypes.byref(function), self._handle, name.encode()
        )
        return function


class Graph:
    """Captured work."""

    def __init__(self, driver: Driver, handle: ctypes.c_void_p) -> None:
        self._driver = driver
        self._handle = handle

    def launch(self) -> None:
        """Run it on the driver's stream."""
        self._driver._call("cuGraphLaunch", self._handle, self._driver._stream)

    def close(self) -> None:
        """Give it back."""
        if self._handle.value:
            self._driver._call("cuGraphExecDestroy", self._handle)
            self._handle = ctypes.c_void_p()


def _argument(value: Any) -> ctypes._SimpleCData[Any]:
    if value is None:
        return ctypes.c_uint64(0)
    if isinstance(value, int):
        return ctypes.c_int32(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    assert isinstance(value, ctypes._SimpleCData)
    return value

"""A stand-in for ``pycuda.driver`` over whatever ``libcuda.so.1`` the process finds.

What of pycuda 2026.1 we call, with its names, its argument orders and its strictness: contexts and
streams are objects that only it makes, an allocation lives as long as its object, and a function
takes NumPy's numbers alone.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np

try:
    _LIBRARY = ctypes.CDLL("libcuda.so.1")
except OSError as missing:  # pycuda's own module is linked with it
    raise ImportError(str(missing)) from None


class Error(Exception):
    pass


def _call(name: str, *arguments: Any) -> None:
    result = getattr(_LIBRARY, name)(*arguments)
    if result:
        text = ctypes.c_char_p()
        _LIBRARY.cuGetErrorName(result, ctypes.byref(text))
        raise Error(f"{name} failed: {(text.value or b'').decode()}")


def init(flags: int = 0) -> None:
    _call("cuInit", flags)


def get_driver_version() -> int:
    value = ctypes.c_int()
    _call("cuDriverGetVersion", ctypes.byref(value))
    return value.value


class Context:
    def __init__(self, handle: int) -> None:
        self.handle = handle

    def push(self) -> None:
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self.handle))

    @staticmethod
    def pop() -> None:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    @staticmethod
    def get_current() -> Context | None:
        handle = ctypes.c_void_p()
        _call("cuCtxGetCurrent", ctypes.byref(handle))
        return Context(handle.value) if handle.value else None

    @staticmethod
    def get_device() -> Device:
        number = ctypes.c_int()
        _call("cuCtxGetDevice", ctypes.byref(number))
        return Device(number.value)

    @staticmethod
    def synchronize() -> None:
        pass  # the library's streams never run behind


class Device:
    def __init__(self, number: int) -> None:
        self._number = number

    def retain_primary_context(self) -> Context:
        handle = ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), self._number)
        return Context(handle.value or 0)

    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        _call("cuDeviceGetName", text, len(text), self._number)
        return text.value.decode()

    def compute_capability(self) -> tuple[int, int]:
        made = []
        for attribute in (75, 76):
            value = ctypes.c_int()
            _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._number)
            made.append(value.value)
        return made[0], made[1]


class Stream:
    def __init__(self, flags: int = 0) -> None:
        handle = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(handle), flags)
        self.handle = handle.value or 0

    def synchronize(self) -> None:
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        pointer = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._pointer: int | None = pointer.value

    def __int__(self) -> int:
        assert self._pointer is not None
        return self._pointer

    def free(self) -> None:
        _call("cuMemFree_v2", ctypes.c_uint64(int(self)))
        self._pointer = None

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None:
            self.free()


def mem_alloc(size: int) -> DeviceAllocation:
    return DeviceAllocation(size)


def _stream(stream: Stream | None) -> ctypes.c_void_p:
    assert stream is None or isinstance(stream, Stream), "pycuda takes streams of its own alone"
    return ctypes.c_void_p(stream.handle if stream else None)


def memcpy_htod_async(dest: int, src: np.ndarray[Any, Any], stream: Stream | None = None) -> None:
    _call(
        "cuMemcpyHtoDAsync_v2",
        *(ctypes.c_uint64(int(dest)), ctypes.c_void_p(src.ctypes.data)),
        *(ctypes.c_size_t(src.nbytes), _stream(stream)),
    )


def memcpy_dtoh_async(dest: np.ndarray[Any, Any], src: int, stream: Stream | None = None) -> None:
    _call(
        "cuMemcpyDtoHAsync_v2",
        *(ctypes.c_void_p(dest.ctypes.data), ctypes.c_uint64(int(src))),
        *(ctypes.c_size_t(dest.nbytes), _stream(stream)),
    )


def memset_d8_async(dest: int, data: int, size: int, stream: Stream | None = None) -> None:
    _call(
        "cuMemsetD8Async",
        *(ctypes.c_uint64(int(dest)), ctypes.c_ubyte(data)),
        *(ctypes.c_size_t(size), _stream(stream)),
    )


class Function:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(
        self,
        *args: np.generic,
        grid: tuple[int, int] = (1, 1),
        block: tuple[int, int, int],
        shared: int = 0,
        stream: Stream | None = None,
    ) -> None:
        assert all(isinstance(value, np.number) for value in args), "invalid type on parameter"
        packed = struct.pack("".join(value.dtype.char for value in args), *args)
        size = ctypes.c_size_t(len(packed))
        extra = (ctypes.c_void_p * 5)(
            *(1, ctypes.cast(packed, ctypes.c_void_p).value),
            *(2, ctypes.addressof(size), 0),
        )
        _call(
            "cuLaunchKernel",
            ctypes.c_void_p(self._handle),
            *(*grid, 1, *block, shared),
            *(_stream(stream), None, extra),
        )


class Module:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def get_function(self, name: str) -> Function:
        function = ctypes.c_void_p()
        _call(
            "cuModuleGetFunction",
            *(ctypes.byref(function), ctypes.c_void_p(self._handle), name.encode()),
        )
        return Function(function.value or 0)


def module_from_buffer(buffer: bytes) -> Module:
    handle = ctypes.c_void_p()
    _call("cuModuleLoadData", ctypes.byref(handle), buffer)
    return Module(handle.value or 0)

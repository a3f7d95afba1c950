"""Runs a model's library on this machine, before any artifact exists: for golden vectors, drift.

ctypes over ``tatvpr.h``. What runs on devices is ``runtime.backends``; this needs a library and a
blob only, and can be used by several threads (each makes its own :class:`Run`).
"""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import ToolError

F32 = NDArray[np.float32]
_ALIGN = 64
_RGB888 = 1


class _Model(c.Structure):
    _fields_ = [("program", c.c_void_p), ("weights", c.c_void_p), ("kernels", c.c_void_p)]


class _Arena(c.Structure):
    _fields_ = [("base", c.c_void_p), ("bytes", c.c_size_t)]


class _Frame(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("format", c.c_uint32),
        ("width", c.c_int32),
        ("height", c.c_int32),
        ("planes", c.c_void_p * 3),
        ("strides", c.c_int32 * 3),
    ]


class _Options(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("k", c.c_float),
        ("tokens", c.c_float),
        ("threads", c.c_int32),
        ("read_power", c.c_void_p),
        ("trace", c.c_void_p),
        ("user", c.c_void_p),
        ("tokens_out", c.c_void_p),
        ("tokens_out_floats", c.c_size_t),
        ("token_count_out", c.c_void_p),
    ]


class _Info(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("abi", c.c_uint32),
        ("name", c.c_char_p),
        ("model_hash", c.c_void_p),
        ("image_size", c.c_int32),
        ("descriptor_size", c.c_int32),
        ("token_dim", c.c_int32),
        ("max_tokens", c.c_int32),
        ("arena_bytes", c.c_size_t),
        ("weight_bytes", c.c_size_t),
    ]


class CoreLibrary:
    """A compiled model on this machine with its weights.

    Raises:
        ToolError: the library does not load here, or refuses the weights.
    """

    def __init__(self, library: Path, blob: bytes, kernels: str | None = None) -> None:
        try:
            self._lib = c.CDLL(str(library))
        except OSError as error:
            raise ToolError(f"{library.name} does not load on this machine: {error}") from error
        self._declare()
        program = self._lib.tatvpr_program_get()
        self._blob = _aligned(len(blob))
        self._blob[:] = np.frombuffer(blob, dtype=np.uint8)
        name = kernels.encode() if kernels is not None else None
        self.prepared_bytes = int(self._lib.tatvpr_prepared_bytes(program, name))
        self._prepared = _aligned(self.prepared_bytes)
        self._model = _Model()
        status = self._lib.tatvpr_model_init(
            c.byref(self._model),
            program,
            self._blob.ctypes.data,
            len(blob),
            name,
            self._prepared.ctypes.data if self.prepared_bytes else None,
            self.prepared_bytes,
        )
        self._check(status, "tatvpr_model_init")
        info = _Info(c.sizeof(_Info))
        self._check(
            self._lib.tatvpr_model_get_info(program, c.byref(info)), "tatvpr_model_get_info"
        )
        self.descriptor_size = int(info.descriptor_size)
        self.token_dim = int(info.token_dim)
        self.max_tokens = int(info.max_tokens)
        self.arena_bytes = int(self._lib.tatvpr_arena_bytes(c.byref(self._model), 1))

    def kernels(self) -> tuple[str, ...]:
        """Names of the kernel variants in the library, best first."""
        names: list[str] = []
        while (name := self._lib.tatvpr_kernels_name(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    def run(self) -> Run:
        """An arena of its own on this model; one for each thread."""
        return Run(self)

    def _declare(self) -> None:
        lib, p = self._lib, c.c_void_p
        lib.tatvpr_program_get.restype = p
        lib.tatvpr_program_get.argtypes = []
        lib.tatvpr_prepared_bytes.restype = c.c_size_t
        lib.tatvpr_prepared_bytes.argtypes = [p, c.c_char_p]
        lib.tatvpr_model_init.argtypes = [p, p, p, c.c_size_t, c.c_char_p, p, c.c_size_t]
        lib.tatvpr_model_get_info.argtypes = [p, p]
        lib.tatvpr_arena_bytes.restype = c.c_size_t
        lib.tatvpr_arena_bytes.argtypes = [p, c.c_int32]
        lib.tatvpr_describe.argtypes = [p, _Arena, p, p, p]
        lib.tatvpr_kernels_name.restype = c.c_char_p
        lib.tatvpr_kernels_name.argtypes = [c.c_int32]
        lib.tatvpr_status_text.restype = c.c_char_p
        lib.tatvpr_status_text.argtypes = [c.c_int]

    def _check(self, status: int, what: str) -> None:
        if status:
            raise ToolError(f"{what}: {self._lib.tatvpr_status_text(status).decode()}")


class Run:
    """One caller's arena."""

    def __init__(self, library: CoreLibrary) -> None:
        self._library = library
        self._arena = _aligned(library.arena_bytes)

    def describe(self, frame: NDArray[np.uint8], k: float, tokens: float = 1.0) -> F32:
        """uint8 [H, W, 3] to float32 [descriptor_size].

        Raises:
            ToolError: the library refused; with its status in words.
        """
        return self._call(frame, k, tokens, None, None)

    def tokens(self, frame: NDArray[np.uint8], k: float, tokens: float = 1.0) -> tuple[F32, F32]:
        """(descriptor, the last block's tokens [T, D])."""
        room = np.zeros((self._library.max_tokens, self._library.token_dim), dtype=np.float32)
        count = c.c_int32()
        descriptor = self._call(frame, k, tokens, room, count)
        return descriptor, room[: count.value]

    def _call(
        self, frame: NDArray[np.uint8], k: float, tokens: float, room: F32 | None, count: Any
    ) -> F32:
        pixels = np.ascontiguousarray(frame, dtype=np.uint8)
        view = _Frame(c.sizeof(_Frame), _RGB888, pixels.shape[1], pixels.shape[0])
        view.planes[0] = pixels.ctypes.data
        view.strides[0] = pixels.strides[0]
        options = _Options(c.sizeof(_Options), k, tokens, 1)
        if room is not None:
            options.tokens_out = room.ctypes.data
            options.tokens_out_floats = room.size
            options.token_count_out = c.addressof(count)
        descriptor = np.zeros(self._library.descriptor_size, dtype=np.float32)
        status = self._library._lib.tatvpr_describe(
            c.byref(self._library._model),
            _Arena(self._arena.ctypes.data, self._arena.size),
            c.byref(view),
            c.byref(options),
            descriptor.ctypes.data,
        )
        self._library._check(status, "tatvpr_describe")
        return descriptor


def _aligned(size: int) -> NDArray[np.uint8]:
    memory = np.zeros(size + _ALIGN, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGN
    return memory[start : start + size]

"""The C interface of ``runtime/core/include/tatvpr.h`` that describes frames, through ctypes.

One :class:`Library` is one loaded artifact: its code, its weights, and a pool of arenas, so that
any number of threads may describe at once.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.cfields import FLOAT, INT32, POINTER, SIZE, UINT32, c_fields
from tatvpr_edge.runtime.engine import (
    Engine,
    FrameTooLarge,
    Model,
    Signatures,
    code_for_this_machine,
    in_int32,
)
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.variants import fastest_kernels
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError, UsageError
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import yuv_code
from tatvpr_edge.spec.sealed import Sealed, seal_file
from tatvpr_edge.spec.values import whole

__all__ = ["Described", "FrameTooLarge", "Library", "Trace", "c_frame"]

ALIGN = 64

Trace = Callable[[str, bool], None]

_TRACE = ctypes.CFUNCTYPE(None, POINTER, ctypes.c_char_p, ctypes.c_int)
_POWER = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER)


class _Frame(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size format"),
        (INT32, "width height"),
        (POINTER * 3, "planes"),
        (INT32 * 3, "strides"),
        (UINT32, "reserved yuv"),
    )


_FRAME_BYTES = ctypes.sizeof(_Frame)


class _Options(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size"),
        (FLOAT, "k tokens"),
        (INT32, "threads"),
        (_POWER, "read_power"),
        (_TRACE, "trace"),
        (POINTER, "user tokens_out"),
        (SIZE, "tokens_out_floats"),
        (ctypes.POINTER(INT32), "token_count_out"),
    )


class _Arena(ctypes.Structure):
    _fields_ = c_fields((POINTER, "base"), (SIZE, "bytes"))


@dataclass(frozen=True)
class Described:
    """A descriptor float32 [D] and, where asked for, the last block's tokens float32 [T, C]."""

    descriptor: NDArray[np.float32]
    tokens: NDArray[np.float32] | None = None


def aligned_bytes(count: int) -> NDArray[np.uint8]:
    """``count`` zeroed bytes at a multiple of ALIGN. Private memory: a fork gets its own."""
    block = np.zeros(count + ALIGN, dtype=np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start : start + count]


_SIGNATURES: Signatures = {
    "tatvpr_prepared_bytes": (SIZE, [POINTER, ctypes.c_char_p]),
    "tatvpr_model_init": (
        ctypes.c_int,
        [POINTER, POINTER, POINTER, SIZE, ctypes.c_char_p, POINTER, SIZE],
    ),
    "tatvpr_arena_bytes": (SIZE, [POINTER, INT32]),
    "tatvpr_describe": (ctypes.c_int, [POINTER, _Arena, POINTER, POINTER, POINTER]),
}


class Library(Engine):
    """Compiled code bound to its weights.

    Args:
        code: the shared library of a model, for this machine. It is loaded from a sealed copy, so
            that nobody can put another file in its place between its hash and its first call.
        weights: the weight blob made with it, mapped from a sealed copy.
        kernels: a variant named in the manifest, or None for the first that runs here
            (:meth:`of` takes the fastest).
        threads: threads of one describe call; 0 for the calling thread alone.

    Raises:
        ArtifactError: code that cannot be loaded here, or code and weights that do not fit.
        UsageError: unknown kernels, or more threads than the library was built for.
    """

    def __init__(
        self,
        code: Path | Sealed,
        weights: Path | Sealed,
        kernels: str | None = None,
        threads: int = 0,
    ) -> None:
        # First, because sealed copies are ours to close, whatever else is wrong.
        self._weights = _mapped(weights if isinstance(weights, Sealed) else seal_file(weights))
        super().__init__(code, kernels)
        self.threads = whole(threads, 0, "threads", "a whole number from 0 to 1024", 1024)
        self.declare(_SIGNATURES)
        self._model = self._bind()
        self._arena_bytes = self.c.tatvpr_arena_bytes(ctypes.byref(self._model), self.threads)
        if self._arena_bytes == 0:
            raise UsageError(f"{threads} threads: this code was not built for so many; use 0")
        self._arenas: list[NDArray[np.uint8]] = []
        self._reads_yuv: bool | None = None  # whether the library knows tatvpr_frame.yuv
        self._lock = threading.Lock()
        tell_children(self)

    @classmethod
    def of(cls, artifact: Artifact, kernels: str | None = None, threads: int = 0) -> Library:
        """The library of an artifact that ``read_artifact`` checked; without ``kernels``, with the
        variant that was measured to be the fastest on this machine.

        Raises:
            ArtifactError: also where it is for another machine, or the manifest names another
                model than the code.
        """
        weights = artifact.sealed(artifact.manifest.weights)
        try:
            code = code_for_this_machine(artifact)
        except BaseException:
            weights.close()
            raise
        library = cls(code, weights, kernels, threads)
        library.check_made_for(artifact)
        if kernels is None:
            library.use(fastest_kernels(library, artifact))
        return library

    def use(self, kernels: str | None) -> None:
        """Describe and search with another variant; not while another thread does either.

        Raises:
            UsageError: a variant that is not there or cannot run here.
        """
        self.search_with(kernels)
        self._model = self._bind()

    def _bind(self) -> Model:
        name = self.kernels_argument
        self._prepared: NDArray[np.uint8] | None = None  # room for the next one's
        needed = self.c.tatvpr_prepared_bytes(self.program, name)
        self._prepared = aligned_bytes(needed) if needed else None
        model = Model()
        status = self.c.tatvpr_model_init(
            ctypes.byref(model),
            self.program,
            self._weights.ctypes.data,
            self._weights.nbytes,
            name,
            self._prepared.ctypes.data if self._prepared is not None else None,
            needed,
        )
        self.check(status)
        return model

    # ---- use ----

    @property
    def pays_below(self) -> float:
        """The k from which on, up to 1, less k saves nothing on this processor; 1 where a library
        of an older build does not say."""
        try:
            ask = self.c.tatvpr_k_pays_below
        except AttributeError:
            return 1.0
        ask.restype, ask.argtypes = FLOAT, [POINTER]
        return float(ask(ctypes.byref(self._model)))

    def describe(
        self,
        frame: CameraFrame,
        k: float,
        tokens: float,
        *,
        trace: Trace | None = None,
        want_tokens: bool = False,
    ) -> Described:
        """Frame to descriptor. Safe to call from several threads.

        Raises:
            FrameTooLarge: the arena has no room for this frame's resize tables.
            FrameError, UsageError: as the C interface says.
            ArtifactError: the descriptor is not finite.
        """
        descriptor = np.empty(self.info.descriptor_size, dtype=np.float32)
        options = _Options(size=ctypes.sizeof(_Options), k=k, tokens=tokens, threads=self.threads)
        if trace is not None:
            hook = trace
            options.trace = _TRACE(lambda _, layer, begin: hook(layer.decode(), bool(begin)))
        last, count = None, INT32()
        if want_tokens:
            last = np.empty((self.info.max_tokens, self.info.token_dim), dtype=np.float32)
            options.tokens_out = last.ctypes.data
            options.tokens_out_floats = last.size
            options.token_count_out = ctypes.pointer(count)
        given = c_frame(frame)
        if given.yuv:
            self._check_yuv(options)
        self.check(self._run(given, options, descriptor))
        return Described(descriptor, None if last is None else last[: count.value])

    def _run(self, frame: _Frame, options: _Options, descriptor: NDArray[np.float32]) -> int:
        arena = self._take_arena()
        try:
            status: int = self.c.tatvpr_describe(
                ctypes.byref(self._model),
                _Arena(arena.ctypes.data, arena.nbytes),
                ctypes.byref(frame),
                ctypes.byref(options),
                descriptor.ctypes.data,
            )
        finally:
            self._give_back(arena)
        return status

    def _check_yuv(self, options: _Options) -> None:
        """A library older than the field ``yuv`` takes what this one refuses: YUV of RGB pixels.

        Raises:
            ArtifactError: it would read the frame as BT.601 full range without a word.
        """
        if self._reads_yuv is None:
            probe = c_frame(CameraFrame((np.zeros((1, 3), np.uint8),), "RGB888", 1, 1))
            probe.yuv = 1
            plain = _Options(size=ctypes.sizeof(_Options), k=options.k, tokens=options.tokens)
            descriptor = np.empty(self.info.descriptor_size, dtype=np.float32)
            self._reads_yuv = self._run(probe, plain, descriptor) != 0
        if not self._reads_yuv:
            raise ArtifactError(
                "this artifact's library reads YUV as BT.601 full range alone: build it again, or "
                "leave yuv_range and yuv_matrix out"
            )

    def _take_arena(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._arenas:
                return self._arenas.pop()
        return aligned_bytes(self._arena_bytes)

    def _give_back(self, arena: NDArray[np.uint8]) -> None:
        with self._lock:
            self._arenas.append(arena)

    def _after_fork(self) -> None:
        """A child's own lock."""
        self._lock = threading.Lock()


def c_frame(frame: CameraFrame) -> _Frame:
    """A tatvpr_frame that points into the planes of ``frame``, which has to outlive it."""
    result = _Frame(
        size=_FRAME_BYTES,
        yuv=yuv_code(frame.pixel_format, frame.yuv_range, frame.yuv_matrix),
        format=FORMATS[frame.pixel_format],
        width=in_int32(frame.width, "the width of a frame"),
        height=in_int32(frame.height, "the height of a frame"),
    )
    for index, plane in enumerate(frame.planes[:3]):
        result.planes[index] = plane.ctypes.data
        # A lone row has no next one; its distance is whatever is long enough.
        stride = plane.strides[0] if plane.shape[0] > 1 else plane.shape[1]
        result.strides[index] = in_int32(stride, "the bytes from row to row of a frame")
    return result


def _mapped(sealed: Sealed) -> NDArray[np.uint8]:
    """A sealed copy's bytes, read-only (page alignment exceeds ALIGN); its descriptor is closed."""
    try:
        if sealed.bytes == 0:
            raise ArtifactError(f"{sealed.name} is empty: build the artifact again")
        # Private, because older kernels refuse a shared mapping of what is sealed against writing.
        pages = mmap.mmap(sealed.descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        sealed.close()
    return np.frombuffer(pages, dtype=np.uint8)

"""The C interface of ``runtime/core/include/tatvpr.h``, through ctypes.

One :class:`Library` is one loaded artifact: its code, its weights, and a pool of arenas, so that
any number of threads may describe at once.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError, FrameError, TatvprError, UsageError
from tatvpr_edge.spec.frames import FORMATS
from tatvpr_edge.spec.sealed import Sealed, seal_file

ABI = 2
ALIGN = 64

_ERR_K, _ERR_TOKENS, _ERR_FRAME, _ERR_FORMAT = 5, 6, 7, 8
ERR_FRAME_TOO_LARGE = 9
_ERR_KERNELS, _ERR_NOT_FINITE, _ERR_THREADS, _ERR_ARGUMENT = 16, 25, 26, 27
_ERRORS: dict[int, type[TatvprError]] = {
    _ERR_K: UsageError,
    _ERR_TOKENS: UsageError,
    _ERR_FRAME: FrameError,
    _ERR_FORMAT: FrameError,
    ERR_FRAME_TOO_LARGE: FrameError,
    _ERR_KERNELS: UsageError,
    _ERR_THREADS: UsageError,
    _ERR_ARGUMENT: UsageError,
}

Trace = Callable[[str, bool], None]

_TRACE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_POWER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Frame(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("format", ctypes.c_uint32),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("planes", ctypes.c_void_p * 3),
        ("strides", ctypes.c_int32 * 3),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("k", ctypes.c_float),
        ("tokens", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("read_power", _POWER),
        ("trace", _TRACE),
        ("user", ctypes.c_void_p),
        ("tokens_out", ctypes.c_void_p),
        ("tokens_out_floats", ctypes.c_size_t),
        ("token_count_out", ctypes.POINTER(ctypes.c_int32)),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("program", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("segments", ctypes.c_void_p),
        ("kernels", ctypes.c_void_p),
        ("costs", ctypes.c_void_p),
    ]


class _ModelInfo(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("abi", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("model_hash", ctypes.POINTER(ctypes.c_uint8)),
        ("image_size", ctypes.c_int32),
        ("descriptor_size", ctypes.c_int32),
        ("token_dim", ctypes.c_int32),
        ("max_tokens", ctypes.c_int32),
        ("arena_bytes", ctypes.c_size_t),
        ("weight_bytes", ctypes.c_size_t),
    ]


class _Arena(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


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


def native_triple_matches(triple: str) -> bool:
    """Whether code for ``triple`` can run on this processor and system."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return triple.split("-")[0] == machine and "linux" in triple


class Library:
    """Compiled code bound to its weights.

    Args:
        code: the shared library of a model, for this machine. It is loaded from a sealed copy, so
            that nobody can put another file in its place between its hash and its first call.
        weights: the weight blob made with it, mapped from a sealed copy.
        kernels: a variant named in the manifest, or None for the fastest that runs here.
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
        self._library = _load(code if isinstance(code, Sealed) else seal_file(code), code)
        self.threads = _check_threads(threads)
        self._program = self._library.tatvpr_program_get()
        self.info = _ModelInfo(size=ctypes.sizeof(_ModelInfo))
        self._raise(self._library.tatvpr_model_get_info(self._program, ctypes.byref(self.info)))
        if self.info.abi != ABI:
            name = code.name if isinstance(code, Sealed) else code
            raise ArtifactError(f"{name} has another C interface than this runtime: build it again")
        self.kernel_names = self._names()
        self.kernels = self._choose(kernels)
        self._model = self._bind()
        self._arena_bytes = self._library.tatvpr_arena_bytes(
            ctypes.byref(self._model), self.threads
        )
        if self._arena_bytes == 0:
            raise UsageError(f"{threads} threads: this code was not built for so many; use 0")
        self._arenas: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()
        _reset_after_fork(self)

    @classmethod
    def of(cls, artifact: Artifact, kernels: str | None = None, threads: int = 0) -> Library:
        """The library of an artifact that ``read_artifact`` checked.

        Raises:
            ArtifactError: also where it is for another machine, or the manifest names another
                model than the code.
        """
        manifest = artifact.manifest
        code, model = manifest.code, manifest.model
        if code.kind != "shared-library" or not native_triple_matches(code.triple):
            raise ArtifactError(
                f"{artifact.root} holds a {code.kind} for {code.triple}; this machine is "
                f"{platform.machine()}: build it with --board host, or run it on its board"
            )
        weights = artifact.sealed(manifest.weights)
        try:
            sealed_code = artifact.sealed(code.path)
        except BaseException:
            weights.close()
            raise
        library = cls(sealed_code, weights, kernels, threads)
        info = library.info
        made = (info.descriptor_size, info.image_size, info.token_dim, info.max_tokens)
        named = (model.descriptor_size, model.image_size, model.token_dim, model.max_tokens)
        if library.model_hash != model.hash or made != named:
            raise ArtifactError(
                f"{artifact.root}: the code was compiled for another model than the manifest "
                "names: build the artifact again"
            )
        return library

    # ---- set-up ----

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        while (name := self._library.tatvpr_kernels_name(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    def _choose(self, kernels: str | None) -> str | None:
        if kernels is None:
            return None
        if kernels not in self.kernel_names:
            raise UsageError(
                f"kernels {kernels!r} are not in this artifact: {', '.join(self.kernel_names)}"
            )
        if not self._library.tatvpr_kernels_usable(kernels.encode()):
            raise UsageError(f"kernels {kernels!r} cannot run on this processor: leave them out")
        return kernels

    def usable_kernels(self) -> tuple[str, ...]:
        """Variants that this processor can run, best first."""
        return tuple(
            name for name in self.kernel_names if self._library.tatvpr_kernels_usable(name.encode())
        )

    def _bind(self) -> _Model:
        name = None if self.kernels is None else self.kernels.encode()
        needed = self._library.tatvpr_prepared_bytes(self._program, name)
        self._prepared = aligned_bytes(needed) if needed else None
        model = _Model()
        status = self._library.tatvpr_model_init(
            ctypes.byref(model),
            self._program,
            self._weights.ctypes.data,
            self._weights.nbytes,
            name,
            self._prepared.ctypes.data if self._prepared is not None else None,
            needed,
        )
        self._raise(status)
        return model

    # ---- use ----

    @property
    def model_hash(self) -> str:
        """Hex SHA-256 of the canonical graph and weights that the code was made from."""
        return bytes(self.info.model_hash[:32]).hex()

    @property
    def resident_bytes(self) -> int:
        """RAM for weights prepared at start and one arena a concurrent call."""
        prepared = 0 if self._prepared is None else self._prepared.nbytes
        return prepared + self._arena_bytes

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
        last, count = None, ctypes.c_int32()
        if want_tokens:
            last = np.empty((self.info.max_tokens, self.info.token_dim), dtype=np.float32)
            options.tokens_out = last.ctypes.data
            options.tokens_out_floats = last.size
            options.token_count_out = ctypes.pointer(count)
        arena = self._take_arena()
        try:
            status = self._library.tatvpr_describe(
                ctypes.byref(self._model),
                _Arena(arena.ctypes.data, arena.nbytes),
                ctypes.byref(_c_frame(frame)),
                ctypes.byref(options),
                descriptor.ctypes.data,
            )
        finally:
            self._give_back(arena)
        self._raise(status)
        return Described(descriptor, None if last is None else last[: count.value])

    def _take_arena(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._arenas:
                return self._arenas.pop()
        return aligned_bytes(self._arena_bytes)

    def _give_back(self, arena: NDArray[np.uint8]) -> None:
        with self._lock:
            self._arenas.append(arena)

    def _after_fork(self) -> None:
        # Another thread of the parent may have held the lock, and holds it for ever here.
        self._lock = threading.Lock()

    def _raise(self, status: int) -> None:
        if status == 0:
            return
        text = self._library.tatvpr_status_text(status).decode()
        if status == ERR_FRAME_TOO_LARGE:
            raise FrameTooLarge(text)
        if status == _ERR_NOT_FINITE:
            raise ArtifactError(
                "the descriptor is not finite: the model's weights are unusable; verify the "
                "artifact, or export and build the model again"
            )
        raise _ERRORS.get(status, ArtifactError)(text)


class FrameTooLarge(FrameError):
    """The arena has no room for the resize tables of a frame this large."""


def _check_threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 1024:
        raise UsageError(f"threads is {threads!r}: a whole number from 0 up")
    return threads


def _c_frame(frame: CameraFrame) -> _Frame:
    result = _Frame(
        size=ctypes.sizeof(_Frame),
        format=FORMATS[frame.pixel_format],
        width=frame.width,
        height=frame.height,
    )
    for index, plane in enumerate(frame.planes[:3]):
        result.planes[index] = plane.ctypes.data
        # A lone row has no next one; its distance is whatever is long enough.
        result.strides[index] = plane.strides[0] if plane.shape[0] > 1 else plane.shape[1]
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


#: Libraries of this process by the SHA-256 of their file. The loader knows a library by its name,
#: and a descriptor's number is its name here: so a loaded one's descriptor stays open, and the same
#: bytes are loaded once. (Libraries are never unloaded anyway.)
_LOADED: dict[str, ctypes.CDLL] = {}
_LOADED_LOCK = threading.Lock()


def _load(sealed: Sealed, shown: Path | Sealed) -> ctypes.CDLL:
    path = shown.name if isinstance(shown, Sealed) else shown
    with _LOADED_LOCK:
        if sealed.sha256 in _LOADED:
            sealed.close()
            return _LOADED[sealed.sha256]
        try:
            library = ctypes.CDLL(sealed.path)
        except OSError as error:
            sealed.close()
            raise ArtifactError(
                f"cannot load {path}: {error}; build it again with --board host"
            ) from None
        _declare(library, path)
        _LOADED[sealed.sha256] = library
    return library


def _declare(library: ctypes.CDLL, path: str | Path) -> None:
    """Types of our C interface."""
    pointer, size, i32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
    signatures: dict[str, tuple[object, list[object]]] = {
        "tatvpr_status_text": (ctypes.c_char_p, [ctypes.c_int]),
        "tatvpr_program_get": (pointer, []),
        "tatvpr_prepared_bytes": (size, [pointer, ctypes.c_char_p]),
        "tatvpr_model_init": (
            ctypes.c_int,
            [pointer, pointer, pointer, size, ctypes.c_char_p, pointer, size],
        ),
        "tatvpr_model_get_info": (ctypes.c_int, [pointer, pointer]),
        "tatvpr_kernels_name": (ctypes.c_char_p, [i32]),
        "tatvpr_kernels_usable": (i32, [ctypes.c_char_p]),
        "tatvpr_arena_bytes": (size, [pointer, i32]),
        "tatvpr_describe": (ctypes.c_int, [pointer, _Arena, pointer, pointer, pointer]),
    }
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise ArtifactError(f"{path} lacks part of our C interface ({error})") from None


_LIVE: weakref.WeakSet[Library] = weakref.WeakSet()


def _reset_after_fork(library: Library) -> None:
    _LIVE.add(library)


def _after_fork() -> None:
    global _LOADED_LOCK
    _LOADED_LOCK = threading.Lock()
    for library in list(_LIVE):
        library._after_fork()


os.register_at_fork(after_in_child=_after_fork)

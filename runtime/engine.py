"""The compiled code of an artifact, loaded: what every binding of the C core stands on.

:class:`Engine` loads a library, checks its interface, knows its kernel variants and turns its
statuses into errors. :class:`tatvpr_edge.runtime.library.Library` adds the weights, and describes;
:mod:`tatvpr_edge.runtime.search` searches maps, which needs no weights.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.cfields import INT32, POINTER, SIZE, UINT32, c_fields
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError, FrameError, TatvprError, UsageError
from tatvpr_edge.spec.sealed import Sealed, seal_file
from tatvpr_edge.spec.shortage import ran_out, shortage
from tatvpr_edge.spec.values import shown

ABI = 2

#: Name of a C function: (type of its result, types of its arguments).
Signatures = Mapping[str, tuple[object, Sequence[object]]]

_ERR_K, _ERR_TOKENS, _ERR_FRAME, _ERR_FORMAT = 5, 6, 7, 8
ERR_FRAME_TOO_LARGE = 9
_ERR_KERNELS, _ERR_NOT_FINITE, _ERR_THREADS, _ERR_ARGUMENT = 16, 25, 26, 27
_ERRORS: dict[int, type[TatvprError]] = {
    _ERR_K: UsageError,
    _ERR_TOKENS: UsageError,
    _ERR_FRAME: FrameError,
    _ERR_FORMAT: FrameError,
    _ERR_KERNELS: UsageError,
    _ERR_THREADS: UsageError,
    _ERR_ARGUMENT: UsageError,
}
_AGAIN = "build its artifact again with 'tatvpr-edge build'"


class FrameTooLarge(FrameError):
    """The arena has no room for the resize tables of a frame this large."""


class Model(ctypes.Structure):
    """tatvpr_model"""

    _fields_ = c_fields((POINTER, "program weights segments kernels costs"))


class ModelInfo(ctypes.Structure):
    """tatvpr_model_info"""

    _fields_ = c_fields(
        (UINT32, "size abi"),
        (ctypes.c_char_p, "name"),
        (ctypes.POINTER(ctypes.c_uint8), "model_hash"),
        (INT32, "image_size descriptor_size token_dim max_tokens"),
        (SIZE, "arena_bytes weight_bytes"),
    )


_SIGNATURES: Signatures = {
    "tatvpr_status_text": (ctypes.c_char_p, [ctypes.c_int]),
    "tatvpr_program_get": (POINTER, []),
    "tatvpr_model_get_info": (ctypes.c_int, [POINTER, POINTER]),
    "tatvpr_kernels_name": (ctypes.c_char_p, [INT32]),
    "tatvpr_kernels_usable": (INT32, [ctypes.c_char_p]),
    "tatvpr_model_searcher": (ctypes.c_int, [POINTER, POINTER, ctypes.c_char_p]),
}


def native_triple_matches(triple: str) -> bool:
    """Whether code for ``triple`` can run on this processor and system."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return triple.split("-")[0] == machine and "linux" in triple


def runs_here(artifact: Artifact) -> bool:
    """Whether this machine can run the artifact's code."""
    code = artifact.manifest.code
    return code.kind == "shared-library" and native_triple_matches(code.triple)


class Engine(OneProcess):
    """Compiled code, without weights.

    Args:
        code: the shared library of a model, for this machine; it is loaded from a sealed copy.
        kernels: a variant named in the manifest, or None for the fastest that runs here.

    Raises:
        ArtifactError: code that cannot be loaded here.
        UsageError: unknown kernels.
    """

    _elsewhere = "hand on the Localizer, which opens its artifact there"

    def __init__(self, code: Path | Sealed, kernels: str | None = None) -> None:
        self.code = code.name if isinstance(code, Sealed) else os.fspath(code)
        self.c = _load(code if isinstance(code, Sealed) else seal_file(code), self.code)
        self._declared: dict[int, Signatures] = {}
        self.declare(_SIGNATURES)
        self.program = self.c.tatvpr_program_get()
        self.info = ModelInfo(size=ctypes.sizeof(ModelInfo))
        self.check(self.c.tatvpr_model_get_info(self.program, ctypes.byref(self.info)))
        if self.info.abi != ABI:
            raise ArtifactError(f"{self.code} has another C interface than this runtime: {_AGAIN}")
        self.kernel_names = self._names()
        self.search_with(kernels)

    def search_with(self, kernels: str | None) -> None:
        """Take a kernel variant, or None for the first that runs here; not during a search.

        Raises:
            UsageError: a variant that is not there or cannot run here.
        """
        self.kernels = self._choose(kernels)
        self.searcher = Model()
        self.check(
            self.c.tatvpr_model_searcher(
                ctypes.byref(self.searcher), self.program, self.kernels_argument
            )
        )

    @classmethod
    def of(cls, artifact: Artifact, kernels: str | None = None) -> Engine:
        """The code of an artifact that ``read_artifact`` checked, without its weights.

        Raises:
            ArtifactError: also where it is for another machine, or the manifest names another
                model than the code.
        """
        engine = Engine(code_for_this_machine(artifact), kernels)
        engine.check_made_for(artifact)
        return engine

    def check_made_for(self, artifact: Artifact) -> None:
        """Raise ArtifactError where the manifest names another model than the code's."""
        model, info = artifact.manifest.model, self.info
        made = (info.descriptor_size, info.image_size, info.token_dim, info.max_tokens)
        named = (model.descriptor_size, model.image_size, model.token_dim, model.max_tokens)
        if self.model_hash != model.hash or made != named:
            raise ArtifactError(
                f"{artifact.root}: the code was compiled for another model than the manifest "
                "names: build the artifact again"
            )

    def declare(self, signatures: Signatures) -> None:
        """Say what the library's functions take and give.

        Raises:
            ArtifactError: the library lacks one of them.
        """
        if id(signatures) in self._declared:
            return
        try:
            for name, (result, arguments) in signatures.items():
                function = getattr(self.c, name)
                function.restype, function.argtypes = result, list(arguments)
        except AttributeError:
            raise ArtifactError(
                f"{self.code} is older than this runtime and lacks {name}: {_AGAIN}"
            ) from None
        self._declared[id(signatures)] = signatures

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        while (name := self.c.tatvpr_kernels_name(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    def _choose(self, kernels: str | None) -> str | None:
        if kernels is None:
            return None
        if not isinstance(kernels, str) or kernels not in self.kernel_names:
            raise UsageError(
                f"kernels {shown(kernels)} are not in this artifact: {', '.join(self.kernel_names)}"
            )
        if not self.c.tatvpr_kernels_usable(kernels.encode()):
            raise UsageError(f"kernels {kernels!r} cannot run on this processor: leave them out")
        return kernels

    @property
    def kernels_argument(self) -> bytes | None:
        """The chosen kernels as C takes them; None for the best that run here."""
        return None if self.kernels is None else self.kernels.encode()

    def usable_kernels(self) -> tuple[str, ...]:
        """Variants that this processor can run, best first."""
        return tuple(
            name for name in self.kernel_names if self.c.tatvpr_kernels_usable(name.encode())
        )

    @property
    def model_hash(self) -> str:
        """Hex SHA-256 of the canonical graph and weights that the code was made from."""
        return bytes(self.info.model_hash[:32]).hex()

    def check(self, status: int) -> None:
        """Raise the error that a status stands for; 0 is none.

        Raises:
            FrameTooLarge, FrameError, UsageError, ArtifactError: as the C interface says.
        """
        if status == 0:
            return
        text = self.c.tatvpr_status_text(status).decode()
        if status == ERR_FRAME_TOO_LARGE:
            raise FrameTooLarge(text)
        if status == _ERR_NOT_FINITE:
            raise ArtifactError(
                "the descriptor is not finite: the model's weights are unusable; verify the "
                "artifact, or export and build the model again"
            )
        raise _ERRORS.get(status, ArtifactError)(text)


def code_for_this_machine(artifact: Artifact) -> Sealed:
    """A sealed copy of the shared library of an artifact.

    Raises:
        ArtifactError: it is for another machine.
    """
    code = artifact.manifest.code
    if not runs_here(artifact):
        raise ArtifactError(
            f"{artifact.root} holds a {code.kind} for {code.triple}; this machine is "
            f"{platform.machine()}: build it with --board host, or run it on its board"
        )
    return artifact.sealed(code.path)


def in_int32(value: Any, name: str) -> int:
    """``value`` as C's int32 holds it: ctypes would cut it off without a word.

    Raises:
        FrameError: it does not fit.
    """
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise FrameError(f"{name} is {number}: at most {2**31 - 1}")
    return number


#: Libraries of this process by the SHA-256 of their file: the same bytes are loaded once, and stay.
_LOADED: dict[str, ctypes.CDLL] = {}
_LOADED_LOCK = threading.Lock()


def _load(sealed: Sealed, shown: str) -> ctypes.CDLL:
    with _LOADED_LOCK:
        if sealed.sha256 in _LOADED:
            sealed.close()
            return _LOADED[sealed.sha256]
        try:
            library = ctypes.CDLL(sealed.loaded_as())
        except OSError as error:
            if ran_out(error):
                raise ArtifactError(shortage(f"the code of {shown}")) from None
            raise ArtifactError(
                f"cannot load {shown}: {error}; build it again with --board host on this machine, "
                "or with a board file that states its `glibc`"
            ) from None
        finally:
            sealed.close()
        _LOADED[sealed.sha256] = library
    return library


def _after_fork() -> None:
    # Another thread of the parent may have held the lock, and holds it for ever here.
    global _LOADED_LOCK
    _LOADED_LOCK = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

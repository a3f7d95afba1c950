"""The part of the CUDA driver that the device runtime needs, whoever brings it to Python.

In: cubins, sizes, NumPy arrays. Out: device pointers as ints, launches on a stream. Called by the
TensorRT backend, by the kernels' tests, and for frames that lie on the GPU.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import ToolError

#: Of a kernel: a plain int is an int32, a pointer is a ``c_uint64``, None is a null pointer.
Argument = int | float | None | ctypes.c_uint64

_PYCUDA, _BINDINGS = "pycuda", "cuda.bindings"


def open_driver(device: int = 0, *, context: Any = None, stream: Any = None) -> Driver:
    """The machine's CUDA driver and one of its GPUs.

    Args:
        device: which GPU, where no context says it.
        context: a caller's: a pycuda ``Context``, or the handle of a CUcontext. None: the one that
            is current on this thread, else the GPU's primary one.
        stream: a caller's, on which everything is queued: a pycuda ``Stream``, what has
            ``__cuda_stream__``, ``handle`` or ``cuda_stream`` (torch), or the handle. None: one of
            our own.

    Raises:
        ToolError: no CUDA driver, no GPU, or no Python package that reaches it; later, any call
            that the driver refuses.
    """
    theirs = [one for one in (context, stream) if one is not None]
    if _has(_PYCUDA) and all(type(one).__module__.startswith("pycuda.") for one in theirs):
        from tatvpr_edge.runtime.cuda.through_pycuda import PycudaDriver

        return PycudaDriver(device, context, stream)
    if _has(_BINDINGS):
        from tatvpr_edge.runtime.cuda.through_bindings import BindingsDriver

        return BindingsDriver(device, context, stream)
    if _has(_PYCUDA):
        raise ToolError(
            "pycuda takes a Context and a Stream of its own alone: give those, or "
            "pip install 'tatvpr-edge[cuda]' for handles of others"
        )
    raise ToolError(
        "CUDA is reached through pycuda or cuda-bindings, and this Python has neither: "
        "pip install 'tatvpr-edge[cuda]'"
    )


def _has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package's parent
        return False


def packed(value: Argument) -> np.generic:
    """A kernel's argument as wide as kernels declare it: 32 bits for numbers, else a pointer."""
    if value is None:
        return np.uint64(0)
    if isinstance(value, int):
        return np.int32(value)
    if isinstance(value, float):
        return np.float32(value)
    return np.uint64(value.value)


def no_driver(error: Exception) -> ToolError:
    """That a package is there and the driver is not."""
    reason = " ".join(str(error).split())
    return ToolError(f"no CUDA driver on this machine (libcuda.so.1): {reason}")


@dataclass(frozen=True)
class Graph:
    """Captured work: ``launch`` runs it on the driver's stream, ``close`` gives it back."""

    launch: Callable[[], object]
    close: Callable[[], object]


class Driver(ABC):
    """One GPU, a context and one stream. ``with driver:`` makes the context current on the
    calling thread, as everything but opening it needs, and leaves the thread as it was found.
    """

    #: Package that reaches the driver.
    through: str
    #: Whether work on the stream can be recorded as a graph.
    can_record: bool

    @property
    @abstractmethod
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""

    def __enter__(self) -> Driver:
        self._push()
        return self

    def __exit__(self, *_: object) -> None:
        self._pop()

    @abstractmethod
    def _push(self) -> None:
        """Make the context current on the calling thread."""

    @abstractmethod
    def _pop(self) -> None:
        """Give the thread the context that it had."""

    @abstractmethod
    def device_name(self) -> str:
        """Such as ``"Orin"``."""

    @abstractmethod
    def architecture(self) -> str:
        """Such as ``"sm_87"``."""

    @abstractmethod
    def _version(self) -> int:
        """The driver's own number for the CUDA version that it speaks, such as 12060."""

    def version(self) -> str:
        """CUDA version that the driver speaks, such as ``"12.6"``."""
        number = self._version()
        return f"{number // 1000}.{number % 1000 // 10}"

    @abstractmethod
    def allocate(self, size_bytes: int) -> int:
        """Device memory; free it with :meth:`free`."""

    @abstractmethod
    def free(self, pointer: int) -> None:
        """Give device memory back."""

    @abstractmethod
    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous array to the device, in the stream's order."""

    @abstractmethod
    def download(self, array: NDArray[Any], pointer: int) -> None:
        """Copy from the device into a C-contiguous array; complete after :meth:`synchronise`."""

    def to_device(self, array: NDArray[Any]) -> int:
        """Allocate and upload."""
        array = np.ascontiguousarray(array)
        pointer = self.allocate(array.nbytes)
        self.upload(pointer, array)
        self.synchronise()
        return pointer

    @abstractmethod
    def zero(self, pointer: int, size_bytes: int, stream: int | None = None) -> None:
        """Fill device memory with zero bytes, in the order of ``stream`` (ours without one)."""

    @abstractmethod
    def synchronise(self) -> None:
        """Wait for the stream."""

    @abstractmethod
    def wait_for(self, stream: int) -> None:
        """Wait for a stream of somebody else's, by its handle."""

    @abstractmethod
    def load(self, cubin: bytes) -> Callable[[str], Any]:
        """Load a cubin, for as long as what this gives is held: it finds a kernel by its name, as
        :meth:`launch` takes it.

        Raises:
            ToolError: the driver refused; later, the cubin has no such kernel.
        """

    @abstractmethod
    def launch(
        self,
        function: Any,
        grid: Sequence[int],
        block: int,
        shared_bytes: int,
        arguments: Sequence[Argument],
        stream: int | None = None,
    ) -> None:
        """Launch a kernel that :meth:`load` found, on ``stream`` (ours without one)."""

    @abstractmethod
    def begin_capture(self) -> None:
        """Record what follows on the stream instead of running it."""

    @abstractmethod
    def end_capture(self) -> Graph:
        """The recorded work, ready to be run again and again."""

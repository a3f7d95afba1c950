"""Memory that ran out, which each library says in a way of its own: NumPy, the dynamic loader, ONNX
Runtime, TVM, PyTorch, the operating system.

Called by both command lines, by builds and by the service. What the kernel kills for want of memory
(no limit was set) says nothing at all; a process with a limit (``ulimit -v``) comes here.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tatvpr_edge.spec.errors import TatvprError, ToolError

_SAID = re.compile(
    r"std::bad_alloc|bad allocation|(?:cannot|can't|could not|failed to|unable to) allocate"
    r"|failed to map segment|can't start new thread|out of memory",
    re.IGNORECASE,
)
_MB = 1_000_000
_KIB = 1024
#: Address space that NumPy takes with one thread; loaded with less, it ends the process.
_NUMPY_MB = 96
#: Together with PyTorch.
TORCH_MB = 750
_LITTLE_MB = 1000
#: What a thread should find: its stack, a heap of its own, and what it works on.
_THREAD_MB = 64


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out: ``error`` says so, or what it was raised from, or while handling."""
    return any(_lacks(at, errno.ENOMEM) or _says_so(at) for at in _chain(error))


def is_passing(error: BaseException) -> bool:
    """Whether what a process may have ran out, memory or open files: a file that could not be read
    for it may be whole."""
    return any(_lacks(at, errno.ENOMEM, errno.EMFILE, errno.ENFILE) for at in _chain(error))


def _lacks(error: BaseException, *scarce: int) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in scarce)


def _says_so(error: BaseException) -> bool:
    """By its words: of libraries that have no number for it. With a number, the words may be those
    of a file's name; an error of ours may quote anything. Python's parser, where it finds no memory
    for a module that is imported, may call its syntax wrong."""
    if isinstance(error, SyntaxError):
        return _left_bytes() is not None
    numbered = isinstance(error, OSError) and error.errno is not None
    ours = isinstance(error, TatvprError)
    return not (numbered or ours) and _SAID.search(str(error)) is not None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def shortage(what: str, megabytes: int | None = None) -> str:
    """The line for a user: what there is no memory for, how much it takes where that is known, and
    what helps."""
    left = _left_bytes()
    known = [] if megabytes is None else [f"it takes about {megabytes} MB"]
    known += [] if left is None else [f"this process's limit leaves {max(left, 0) // _MB} MB"]
    sizes = f" ({', '.join(known)})" if known else ""
    return (
        f"there is not enough memory for {what}{sizes}: close other programs, raise the limit "
        "('ulimit -v unlimited', a container's memory), or use a machine with more"
    )


def refuse_shortage(error: Exception, what: str) -> None:
    """Where whatever a library raises is taken for a damaged file: nothing, unless memory ran out.

    Raises:
        ToolError: it did; the file may be whole.
    """
    if not isinstance(error, TatvprError) and ran_out(error):
        raise ToolError(shortage(what)) from error


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Around what may run out of memory.

    Raises:
        ToolError: it did; the text says for what, and what helps.
    """
    try:
        yield
    except Exception as error:
        refuse_shortage(error, what)
        raise


def room_to_start(command: str, megabytes: int = _NUMPY_MB) -> None:
    """Whether there is room for NumPy, which every command needs; where there is little, it gets
    one thread, because each takes a stack and a buffer.

    Raises:
        ToolError: there is none.
    """
    left = _left_bytes()
    if left is not None and left < _LITTLE_MB * _MB:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    check_room(megabytes, command)


def check_room(megabytes: int, what: str) -> None:
    """Whether this process's limit leaves so much address space, where a library ends the process
    without it, or is left half loaded.

    Raises:
        ToolError: it does not.
    """
    left = _left_bytes()
    if left is not None and left < megabytes * _MB:
        raise ToolError(shortage(what, megabytes))


def threads_with_room(wanted: int) -> int:
    """As many threads as find room in what this process's limit leaves, at most ``wanted``; with 0
    the caller had better work alone: a thread that finds no memory to begin with may never say so.
    """
    left = _left_bytes()
    return wanted if left is None else max(0, min(wanted, left // (_THREAD_MB * _MB)))


def _left_bytes() -> int | None:
    """Address space that this process may still ask for; None without a limit."""
    try:
        import resource  # not on every system

        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        if allowed == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmSize:")]
        return allowed - int(sizes[0]) * _KIB
    except (ImportError, OSError, ValueError, IndexError):
        return None

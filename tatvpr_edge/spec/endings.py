"""SIGTERM and SIGHUP end a command in order, as Ctrl-C does.

By Python's default they end it at once: its temporary files stay, its compiler or ssh runs on as
nobody's child, and as the first process of a container it would not end at all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
#: ``timeout`` sends its signal twice, and so does a shell whose terminal is closed: what comes so
#: soon after the first disturbs no clean-up.
_TWICE_S = 1.0
_ended_by = signal.SIGINT
_ended_s = -_TWICE_S


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Have them raise KeyboardInterrupt in the main thread; those that somebody ignores (nohup) or
    handles stay as they are."""
    global _ended_by
    _ended_by = signal.SIGINT
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        global _ended_by, _ended_s
        if os.getpid() != owner:  # a fork that was never told of this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        now_s = time.monotonic()
        if now_s - _ended_s >= _TWICE_S:
            _ended_by, _ended_s = signal.Signals(number), now_s
            raise KeyboardInterrupt

    taken = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def ended() -> bool:
    """Whether one of them came."""
    return _ended_by != signal.SIGINT


def interrupted() -> tuple[str, int]:
    """What is said of the KeyboardInterrupt that ended a command, and its exit status."""
    said = f"ended by {_ended_by.name}" if ended() else "interrupted"
    return said, 128 + _ended_by


def tell(line: str) -> None:
    """``line`` on standard error, if anybody reads that: the terminal may be the one that was
    closed, and what is told on a full disk is lost."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        no_more_output(2)


def no_more_output(*descriptors: int) -> None:
    """What is left to be printed goes nowhere: the interpreter's end would complain again."""
    void = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(void, descriptor)
    os.close(void)

"""Signals that end a program, in tests; also where the suite itself runs in the background.

A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and so begin their children.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


def heed() -> None:
    """For ``preexec_fn``: the program begins as on a terminal, where signals end it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt in this process, as in a program on a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

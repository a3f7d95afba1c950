"""Standard input, output and error of a program that was started without some of them.

A service manager, cron or ``<&-`` may close a descriptor from 0 to 2. The next file that is opened
would get that number, and whatever prints, a compiler or ssh among it, would write into the file;
and Python has None in the stream's place. Called first thing by both command lines.
"""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Put /dev/null wherever a standard stream is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one: those before it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)

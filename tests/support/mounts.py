"""Small disks, to become full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.tools import lacking


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tmpfs at ``folder``; the test is skipped where this user may not mount."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", folder], capture_output=True
    )
    if done.returncode:
        lacking("the right to mount a small tmpfs", "run the tests as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)

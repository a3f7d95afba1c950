"""Small disks, to become full, and folders that cannot be written."""

from __future__ import annotations

import contextlib
import os
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


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """``folder``, in which nothing can be written: by its mode; for root, whom no mode holds, by a
    mount."""
    if os.geteuid() == 0:
        if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
            lacking("the right to mount a folder read-only", "run the tests as another user")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
        return
    places = [Path(place) for place, _, _ in os.walk(folder)]
    try:
        for place in places:
            place.chmod(0o555)
        yield folder
    finally:
        for place in places:
            place.chmod(0o755)

"""Another user than the one whose files they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_other_user(*files: Path) -> Iterator[None]:
    """Files that may not be read, and a user who may not read them although tests run as root."""
    modes = [file.stat().st_mode for file in files]
    for file in files:
        file.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for file, mode in zip(files, modes, strict=True):
            file.chmod(mode)

"""Fixtures of the deploy tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def ram_path(tmp_path: Path) -> Iterator[Path]:
    """A new folder in memory where there is one: a thousand syncs cost nothing there."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="tatvpr-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

"""External programs that tests need: skip with the package to install, or fail in CI."""

from __future__ import annotations

import os
import shutil

import pytest

NO_SKIP = os.environ.get("TATVPR_NO_SKIP") == "1"


def lacking(what: str, remedy: str) -> None:
    """Skip the calling test because ``what`` is missing; in CI, where nothing may be, fail."""
    message = f"{what} is missing: {remedy}"
    if NO_SKIP:
        pytest.fail(message)
    pytest.skip(message)


def require_tool(executable: str, *packages: str) -> str:
    """Path of ``executable``; without it the calling test is skipped (CI: fails)."""
    path = shutil.which(executable) or shutil.which(executable, path="/usr/sbin:/sbin")
    if path is None:
        lacking(executable, f"apt-get install {' '.join(packages)}")
    assert path is not None
    return path

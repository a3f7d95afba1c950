"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

pytest_plugins = ["support.artifacts"]

# Two slow cores share this suite with compilers and emulators: a deadline would assert wall time.
# Developers' machines look for new examples in every run; CI says the same of a commit every time.
settings.register_profile(
    "tatvpr",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tatvpr")


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The top folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real frames beside the project; tests that want it are skipped without it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(
            "no real frames beside the project (../shared/data): optional data, not a package"
        )
    return path

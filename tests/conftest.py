"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from support.faults import Faults, summary  # noqa: E402 - after the path above

pytest_plugins = ["support.artifacts"]

# A thousand processes of a run import the project: bytecode that is kept spares each a tenth of a
# second, and seconds where it is emulated; and the next run the rewriting of every assertion. What
# may leave none behind has to see to that itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many faults were injected, and that each left the old state or the new."""
    line = summary(terminalreporter.getreports(""))
    if line is not None:
        terminalreporter.write_line(line)


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
def own_cache(project_root: Path) -> Iterator[None]:
    """Objects and drift go to a cache of the test suite, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(project_root / ".pytest_cache" / "tatvpr"))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real frames beside the project; tests that want it are skipped without it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(
            "no real frames beside the project (../shared/data): optional data, not a package"
        )
    return path


@pytest.fixture
def faults(record_property: Callable[[str, Any], None]) -> Iterator[Faults]:
    """Counts the faults that a test injects, for the line at the end of the run."""
    count = Faults()
    yield count
    count.record(record_property)


@pytest.fixture
def ram_path(tmp_path: Path) -> Iterator[Path]:
    """A new folder in memory where there is one: a thousand syncs cost nothing there."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="tatvpr-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

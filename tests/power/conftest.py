"""The governor's C, compiled for this machine as the simulation compiles it."""

from __future__ import annotations

import pytest

from support.tools import require_tool
from tatvpr_edge.compilers.governor import host_governor
from tatvpr_edge.runtime.governor import GovernorCore


@pytest.fixture(scope="session")
def core() -> GovernorCore:
    require_tool("gcc", "gcc")
    return host_governor()

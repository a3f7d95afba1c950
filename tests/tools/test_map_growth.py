"""tools/map_growth.py: what a map costs a robot that drives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "map_growth.py"


@pytest.mark.slow
def test_the_memory_of_a_robot_is_told_without_that_of_the_compiler() -> None:
    """The peak was of the build of `micro`, 359 MB, whatever the map took."""
    command = [sys.executable, str(TOOL), "--frames", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0.5 < found["coverage"] <= 1, "courses that were not driven are not asked for"
    assert 0 < found["places"] <= 50
    assert found["peak_rss_mb"] < 200

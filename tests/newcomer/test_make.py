"""`make` in a fresh clone sets itself up, or says what it lacks, as often as it is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.tools import require_tool


def test_an_environment_that_was_not_made_is_made_again(project_root: Path, tmp_path: Path) -> None:
    """Debian's python3 without python3-venv leaves one that has no pip. Once that was installed,
    make took what was left for an environment, and said "No module named pip"."""
    require_tool("make", "make")
    programs, venv = tmp_path / "bin", tmp_path / "venv"
    programs.mkdir()
    python = programs / "python3.11"
    broken = '#!/bin/sh\n[ "$1" = -m ] || exit 0\nmkdir -p "$3/bin"; : >"$3/bin/python"\n'
    python.write_text(f"{broken}exit 1\n")
    python.chmod(0o755)
    make = ["make", "--no-print-directory", f"VENV={venv}", f"{venv}/bin/python"]
    path = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    assert subprocess.run(make, cwd=project_root, env=path, capture_output=True).returncode == 2
    python.write_text(f"{broken}echo made\n")
    done = subprocess.run(make, cwd=project_root, env=path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("made\n")

"""Python interpreters on this machine, for what has to run on versions that the suite does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def find_interpreter(version: str) -> Path | None:
    """A working Python of ``version`` ("3.10") with venv; None where there is none at hand."""
    candidates = [shutil.which(f"python{version}")]
    versions = Path.home() / ".pyenv" / "versions"
    candidates += sorted(map(str, versions.glob(f"{version}.*/bin/python")))
    code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return Path(candidate)
    return None

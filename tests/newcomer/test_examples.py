"""Examples say which package they lack, and how it is had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("close_loops", "gtsam", "slam"), ("own_head", "torch", "train")],
)
def test_an_example_without_its_package_names_what_installs_it(
    name: str, package: str, extra: str, project_root: Path
) -> None:
    script = project_root / "examples" / f"{name}.py"
    lacking = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"pip install 'tatvpr-edge[{extra}]'\n")
    assert done.stderr.count("\n") == 1

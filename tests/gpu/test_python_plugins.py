"""The Python plugins under TensorRT's real bindings, 10.3 to 11.4, our kernels on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.tensorrt_bindings import VERSIONS, bindings, stub_library

pytestmark = pytest.mark.slow
TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("version", VERSIONS)
def test_the_classes_construct_answer_and_compute(
    version: str, cuda_on_cpu: Path, tmp_path: Path
) -> None:
    folder = bindings(version)
    stub = stub_library(int(version.split(".")[0]), tmp_path)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("python_plugins_child.py"))],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]),
            "LD_LIBRARY_PATH": os.pathsep.join([str(stub), str(cuda_on_cpu.parent)]),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["runs"] == 8
    assert version.startswith(seen["version"])

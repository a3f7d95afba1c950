"""CUDA through pycuda and cuda-bindings: what a robot that holds GPU arrays, a context and a stream
gives us and gets back, and what is said where something is missing.

No GPU: cuda-bindings itself loads the driver's stand-in; pycuda, which wants CUDA's headers to be
built, is a stand-in over the same. Neither says anything about a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cuda import FAKE_PYCUDA, ROBOT, has_gpu
from tatvpr_edge.runtime import Localizer, UsageError

_OPEN = """
import sys
from tatvpr_edge.runtime.cuda.driver import open_driver
from tatvpr_edge.spec.errors import TatvprError
for name in sys.argv[1:]:
    sys.modules[name] = None
try:
    with open_driver() as driver:
        print(driver.through, driver.device_name())
except TatvprError as error:
    print("refused:", error)
"""


def run(program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )


def test_a_missing_driver_is_one_line() -> None:
    """cuda-bindings is loaded and asks for the driver; nothing ran on a GPU."""
    if has_gpu():
        pytest.skip("this machine has a CUDA GPU")
    (line,) = run(_OPEN, "pycuda").stdout.splitlines()
    assert line.startswith("refused: no CUDA driver on this machine (libcuda.so.1): ")


def test_pycuda_without_a_driver_is_the_same_line() -> None:
    if has_gpu():
        pytest.skip("this machine has a CUDA GPU")
    done = run(_OPEN, PYTHONPATH=FAKE_PYCUDA)
    assert done.stdout.startswith("refused: no CUDA driver on this machine (libcuda.so.1): ")
    assert done.stdout.count("\n") == 1, done.stdout


def test_without_either_package_the_remedy_is_named() -> None:
    done = run(_OPEN, "pycuda", "cuda")
    assert done.stdout == (
        "refused: CUDA is reached through pycuda or cuda-bindings, and this Python has neither: "
        "pip install 'tatvpr-edge[cuda]'\n"
    )


def test_pycuda_goes_first_where_it_is_installed(cuda_on_cpu: Path) -> None:
    there = {"LD_LIBRARY_PATH": str(cuda_on_cpu.parent)}
    assert run(_OPEN, **there).stdout == "cuda-bindings CUDA on CPU\n"
    assert run(_OPEN, PYTHONPATH=FAKE_PYCUDA, **there).stdout == "pycuda CUDA on CPU\n"


@pytest.mark.parametrize("package", ["pycuda", "cuda-bindings"])
def test_frames_on_the_gpu_are_described_by_the_cpu_library_too(
    package: str, gpu_artifact: Path, cuda_on_cpu: Path
) -> None:
    path = {"PYTHONPATH": FAKE_PYCUDA} if package == "pycuda" else {}
    done = run(ROBOT, gpu_artifact, package, "cpu", LD_LIBRARY_PATH=str(cuda_on_cpu.parent), **path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["same"] and seen["by"] == "cpu" and seen["through"] == package
    assert seen["on_their_stream"] >= (0 if package == "pycuda" else 3), "what writes is waited for"
    assert seen["on_default"] >= (0 if package == "pycuda" else 1), "also what has no stream"
    kinds, masked, huge, number = seen["refused"]
    assert "float32" in kinds and "masked" in masked and "shape (1048576, 1048576, 3)" in huge
    assert "shape (): expected" in number


def test_a_stream_is_refused_where_the_cpu_library_would_ignore_it(gpu_artifact: Path) -> None:
    with pytest.raises(UsageError, match="for the backend tensorrt"):
        Localizer(gpu_artifact, backend="cpu", cuda_stream=7)

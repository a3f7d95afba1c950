"""The GPU tools: what they say without a GPU, and that they run where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cuda import ON_CPU, has_gpu


def _run(tool: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tool), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )


def test_the_bench_says_that_there_is_no_gpu(project_root: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a CUDA GPU")
    done = _run(project_root / "tools" / "bench_gpu.py")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: no CUDA driver on this machine")


@pytest.mark.slow
def test_the_bench_checks_and_measures_what_it_finds(project_root: Path, cuda_on_cpu: Path) -> None:
    """On the stand-in, which its report names: the figures there mean nothing."""
    done = _run(
        project_root / "tools" / "bench_gpu.py",
        *("--tokens", "17", "--shapes", "64x32", "--k", "1,0.4", "--repeats", "1", "--json"),
        LD_LIBRARY_PATH=str(cuda_on_cpu.parent),
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["gpu"] == ON_CPU and seen["kernel_cases_bit_exact"] > 40
    assert [(row["scope"], row["k"]) for row in seen["matmul"]] == [
        *(("token", k) for k in (1.0, 0.4)),
        *(("image", k) for k in (1.0, 0.4)),
    ]


def test_the_plugin_tool_names_the_headers_that_it_lacks(
    project_root: Path, tmp_path: Path
) -> None:
    if any(Path("/usr/include").glob("**/NvInferRuntime.h")):
        pytest.skip("this machine has TensorRT's headers")
    output = str(tmp_path / "plugin.so")
    done = _run(project_root / "tools" / "build_plugin.py", "--output", output, TENSORRT_INCLUDE="")
    assert done.returncode == 1
    assert "NvInferRuntime.h is not found: TENSORRT_INCLUDE=DIR" in done.stderr

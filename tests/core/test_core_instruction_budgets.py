"""Instructions that the AVX2 kernels take at the shipped widths, counted by valgrind: a regression
shows without a clock. (Whole frames on Arm: tests/tools/test_arm_counts.py; microcontrollers:
tests/mcu/test_mcu_counts.py. valgrind does not know AVX-512.)

Budgets are some 8 % above what was counted when they were recorded (GCC 12, -O3). A kernel that
gets faster should have its budget lowered here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.kernels import KernelBench
from support.tools import require_tool

#: (what, tokens, K, N, k, group) -> instructions of one run; widths and tokens are those of `micro`
BUDGETS = {
    ("dense", 65, 192, 576, 1.0, 1): 786_000,
    ("dense", 65, 768, 192, 1.0, 1): 971_000,
    ("sparse", 65, 192, 576, 0.2, 1): 384_000,
    ("sparse", 65, 768, 192, 0.2, 1): 421_000,
    ("sparse", 65, 768, 192, 0.2, 4): 303_000,
    ("select", 65, 768, 64, 0.2, 2): 288_000,
    ("select", 65, 768, 64, 0.2, 4): 171_000,
    ("select", 65, 768, 64, 0.2, 8): 145_000,
    ("select", 65, 768, 64, 0.2, 16): 140_000,
    ("select", 65, 192, 64, 0.2, 1): 64_400,
    ("select", 65, 768, 64, 0.2, 1): 209_400,
    ("quantise", 65, 768, 64, 0.2, 1): 66_800,
    ("layer_norm", 65, 192, 64, 0.2, 1): 37_700,
    ("gelu", 65, 768, 64, 0.2, 1): 262_000,
    ("attention", 65, 192, 3, 1.0, 1): 709_000,
    ("patch", 128, 16, 192, 1.0, 1): 2_843_000,
}


@pytest.fixture(scope="module")
def program(native_arch: str) -> Path:
    require_tool("gcc", "gcc")
    if native_arch != "x86_64":
        pytest.skip("budgets are recorded for the AVX2 kernels of x86-64")
    return KernelBench().program


def instructions(program: Path, folder: Path, arguments: tuple[object, ...], rounds: int) -> int:
    """Instructions of the whole program with that many rounds."""
    valgrind = require_tool("valgrind", "valgrind")
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out", str(program)]
    command += ["avx2", *map(str, (*arguments, rounds))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and "cannot run here" in done.stderr:
        pytest.skip("this CPU, as valgrind shows it, has no AVX2")
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr
    return int(found.group(1))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", BUDGETS, ids=lambda a: "-".join(map(str, a)))
def test_kernel_stays_within_its_budget(
    program: Path, tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    version = subprocess.run(
        [shutil.which("gcc") or "gcc", "-dumpversion"], capture_output=True, text=True
    ).stdout
    if not version.startswith("12"):
        pytest.skip(f"budgets are recorded with GCC 12, this is {version.strip()}")
    few = instructions(program, tmp_path, arguments, 1)
    more = instructions(program, tmp_path, arguments, 3)
    counted = (more - few) // 2
    budget = BUDGETS[arguments]
    assert counted <= budget, f"{counted} instructions, {budget} allowed"
    assert counted > budget * 0.6, f"{counted} instructions: record a lower budget than {budget}"

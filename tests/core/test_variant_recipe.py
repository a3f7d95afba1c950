"""The recipe of CONTRIBUTING.md, done on a copy of the tree: a kernel variant is one file and one
row."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import require_tool

#: AVX2 with a hamming distance of its own: table, kernel and the question whether it can run here.
FILE = """\
#include "avx2.h"
#include "cpu.h"

static void hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                    int32_t count, int32_t *distance) {
    for (int32_t n = 0; n < count; n++, rows += stride) {
        distance[n] = 0;
        for (int32_t i = 0; i < bytes; i++) {
            distance[n] += (int32_t)_mm_popcnt_u32((uint32_t)(query[i] ^ rows[i]));
        }
    }
}

TATVPR_VARIANT(newcomer, TATVPR_AVX2_TABLE,
    .name = "newcomer",
    .usable = tatvpr_cpu_avx2,
    .hamming = hamming
)
"""
ROW = 'TATVPR_ROW(newcomer, "-mavx2 -mpopcnt")\n'

#: Run with the copy's own package: builds the driver and compares the newcomer with plain C.
CHECK = """\
import sys
from pathlib import Path
import numpy as np
from core_driver import Driver, LinearCase, build, native_compiler
from tatvpr_edge.compilers.core_sources import core_folder
assert Path(sys.argv[1]) in core_folder().parents, core_folder()
driver = Driver([str(build("x86_64", native_compiler(), ("-O1",), Path(sys.argv[2]) / "driver"))])
assert "newcomer" in driver.kernels, driver.kernels
rng = np.random.default_rng(1)
for k in (0.2, 1.0):
    case = LinearCase(
        rng.standard_normal((7, 192)).astype(np.float32),
        rng.integers(-1, 2, (100, 192)).astype(np.int8),
        np.ones(1, np.float32), np.zeros(100, np.float32), k,
    )
    assert driver.linear("newcomer", case).tobytes() == driver.linear("portable", case).tobytes()
driver.close()
"""


@pytest.mark.slow
def test_a_kernel_variant_is_one_file_and_one_row(
    tmp_path: Path, project_root: Path, native_arch: str
) -> None:
    require_tool("gcc", "gcc")
    if native_arch != "x86_64":
        pytest.skip("the recipe's variant is written for x86-64")
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.onnx", "*.safetensors", "*.npz", "*.jpg")
    for folder in ("tatvpr_edge", "runtime", "compilers", "boards", "tests/core", "tests/support"):
        shutil.copytree(project_root / folder, tree / folder, symlinks=True, ignore=ignored)
    room = tree / "runtime" / "core" / "x86"
    (room / "newcomer.c").write_text(FILE)
    with (room / "variants.h").open("a") as rows:
        rows.write(ROW)
    paths = [str(tree), str(tree / "tests" / "core"), str(tree / "tests")]
    program = f"import sys; sys.path[:0] = {paths!r}\n{CHECK}"
    command = [sys.executable, "-c", program, str(tree), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree)
    assert done.returncode == 0, done.stderr

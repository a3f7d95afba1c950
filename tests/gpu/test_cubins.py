"""Every kernel compiles for every GPU of the boards, within its budget; no GPU is needed."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from support.cuda import kernel_sources
from support.tools import require_tool
from tatvpr_edge.compilers.tensorrt import cubins as cubins_module
from tatvpr_edge.compilers.tensorrt.cubins import TARGETS, compile_all, compile_cubins
from tatvpr_edge.spec.errors import ToolError

# 128 threads a block: up to 128 registers would still leave four blocks a multiprocessor. The
# budgets stand a little above what the compilers give (docs/gpu.md), so that a change shows.
REGISTERS = {"tatvpr_ternary_mma": 80, "tatvpr_ternary_dp4a": 64, "tatvpr_attention_quantise": 64}
OTHER_REGISTERS = 56
SHARED_BYTES = 8240
CUBIN_BYTES = 96_000
EM_CUDA = 190


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "major"), TARGETS)
def test_registers_spills_and_sizes_stay_within_their_budgets(
    architecture: str, major: int
) -> None:
    cubins = compile_all(architecture, major)
    assert [c.source for c in cubins] == [s.stem for s in kernel_sources()]
    assert sum(len(c.kernels) for c in cubins) == 14
    for cubin in cubins:
        assert cubin.architecture == architecture
        assert cubin.cuda.split(".")[0] == str(major)
        assert cubin.code[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", cubin.code, 18) == (EM_CUDA,)
        assert len(cubin.code) <= CUBIN_BYTES, cubin.source
        for kernel in cubin.kernels:
            assert kernel.spill_store_bytes == kernel.spill_load_bytes == 0, kernel.name
            assert kernel.registers <= REGISTERS.get(kernel.name, OTHER_REGISTERS), kernel
            assert kernel.shared_bytes <= SHARED_BYTES, kernel


def test_a_source_that_does_not_compile_is_named_with_its_first_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void k(int *x) { *x = nothing; }')
    with pytest.raises(ToolError, match=r"broken\.cu does not compile for sm_87: .*nothing"):
        compile_cubins([source], "sm_87", 12)


@pytest.mark.parametrize(
    ("ends", "said"),
    [("abort();", "ended by SIGABRT: build again"), ("return 7;", "failed: NVRTC failed opening")],
)
def test_a_compiler_that_falls_over_takes_no_build_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, said: str
) -> None:
    """It runs in a process of its own."""
    require_tool("gcc", "gcc")
    (tmp_path / "nvrtc.c").write_text(
        "#include <stdlib.h>\n"
        'const char *nvrtcGetErrorString(int code) { (void)code; return "broken"; }\n'
        "int nvrtcCreateProgram(void) { " + ends + " }\n"
    )
    library = str(tmp_path / "libnvrtc.so.12")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", library, str(tmp_path / "nvrtc.c")], check=True
    )
    monkeypatch.setattr(cubins_module, "_library", lambda major: library)
    with pytest.raises(ToolError, match=said):
        compile_cubins(kernel_sources(), "sm_87", 12)

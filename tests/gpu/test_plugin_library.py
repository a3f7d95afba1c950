"""The C++ plugin library, driven through TensorRT's real interface with our kernels on the CPU.

Needs TensorRT's headers, which are in no package that can be installed here: set
TENSORRT_INCLUDE=DIR (and CUDA_INCLUDE=DIR) to run these tests.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cuda import Array
from support.tools import require_tool
from tatvpr_edge.compilers.tensorrt.cubins import compile_all, source_folder
from tatvpr_edge.compilers.tensorrt.names import names_header
from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.backends.tensorrt.plugin_library import compile_plugin, find_headers
from tatvpr_edge.spec import golden, reference
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.operators import PLUGINS
from tatvpr_edge.spec.packing import pack_ternary

HARNESS = Path(__file__).parent / "plugin_harness.cpp"


def test_names_come_from_the_one_table() -> None:
    text = names_header()
    for name, operator in PLUGINS.items():
        assert f'#define TATVPR_{operator.snake_name.upper()} "{name}"' in text
    assert '#define TATVPR_PLUGIN_NAMESPACE "ai.tatvpr"' in text
    sources = "".join(p.read_text() for p in (source_folder() / "plugin").iterdir())
    for name in PLUGINS:
        assert f'"{name}"' not in sources, "names are written once, in the table"


def test_missing_headers_are_named_with_the_remedy(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
    folders = ("tatvpr_edge.runtime.backends.tensorrt.plugin_library._FOLDERS", ())
    monkeypatch.setattr(*folders)
    with pytest.raises(ToolError, match="TENSORRT_INCLUDE=DIR"):
        find_headers()


@pytest.mark.parametrize("compiler", ["", "env g++"])
def test_headers_among_the_systems_own_hide_none_of_these(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ubuntu's package of CUDA has them: ``-isystem /usr/include`` hides <stdlib.h> from C++."""
    require_tool("g++", "g++")
    monkeypatch.setenv("CXX", compiler)  # with a wrapper before it, as ccache is
    for name in ("plugins.cpp", "launch.cpp"):
        (tmp_path / name).write_text("#include <cstdlib>\n#include <string>\n")
    (tmp_path / "cubins.S").touch()
    system = Path("/usr/include")
    assert compile_plugin(tmp_path, tmp_path, tmp_path / "plugin.so", (tmp_path, system)).is_file()


def test_a_compiler_whose_path_has_a_space_is_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "my tools" / "c++"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\nfor output; do :; done\n: > "$output"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    assert compile_plugin(tmp_path, tmp_path, tmp_path / "plugin.so", ()).is_file()


def test_what_is_no_compiler_leaves_the_python_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ '-O2")
    with pytest.raises(ToolError, match=r"CXX is .*no command: No closing quotation"):
        compile_plugin(tmp_path, tmp_path, tmp_path / "plugin.so", ())


@pytest.fixture(scope="module")
def headers() -> tuple[Path, Path]:
    if not os.environ.get("TENSORRT_INCLUDE"):
        pytest.skip("no TensorRT headers (no package has them): set TENSORRT_INCLUDE=DIR")
    return find_headers()


@pytest.fixture(scope="module")
def library(headers: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin library with an Orin's cubins inside."""
    require_tool("g++", "g++")
    folder = tmp_path_factory.mktemp("plugin")
    for cubin in compile_all("sm_87", 12):
        (folder / f"{cubin.source}.cubin").write_bytes(cubin.code)
    for source in (source_folder() / "plugin").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "names.h").write_text(names_header())
    options = ("-Wall", "-Wextra", "-Werror")
    return compile_plugin(folder, folder, folder / "plugin.so", headers, options)


@pytest.fixture(scope="module")
def harness(headers: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("harness") / "plugin_harness"
    includes = ("-isystem", str(headers[0]), "-isystem", str(headers[1]))
    command = ["g++", "-std=c++17", "-O1", "-Wall", *includes, str(HARNESS), "-o", str(program)]
    subprocess.run([*command, "-ldl"], check=True)
    return program


def _text(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode()


def _case(name: str, attributes: dict[str, int], inputs: Sequence[Array]) -> bytes:
    parts = [_text(name), struct.pack("<i", len(attributes))]
    parts += [_text(key) + struct.pack("<i", value) for key, value in attributes.items()]
    parts.append(struct.pack("<i", len(inputs)))
    for array in inputs:
        kind = 0 if array.dtype == np.float32 else 1
        parts.append(struct.pack(f"<ii{array.ndim}i", kind, array.ndim, *array.shape))
        parts.append(array.tobytes())
    return b"".join(parts)


class Plugin:
    """Runs one case in the harness: its workspace in bytes, its outputs."""

    def __init__(self, harness: Path, cuda: Path, library: Path, folder: Path) -> None:
        self._command = [str(harness), str(cuda), str(library)]
        self._folder = folder

    def run(
        self, name: str, attributes: dict[str, int], inputs: Sequence[Array]
    ) -> tuple[int, list[Array]]:
        given, made = self._folder / "case", self._folder / "outputs"
        given.write_bytes(_case(name, attributes, inputs))
        done = subprocess.run(
            [*self._command, str(given), str(made)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        data, outputs = made.read_bytes(), []
        while data:
            (rank,) = struct.unpack_from("<i", data)
            shape = struct.unpack_from(f"<{rank}i", data, 4)
            start = 4 + 4 * rank
            end = start + 4 * int(np.prod(shape, dtype=int))
            outputs.append(np.frombuffer(data[start:end], np.float32).reshape(shape))
            data = data[end:]
        return int(done.stdout), outputs


@pytest.fixture
def plugin(harness: Path, cuda_on_cpu: Path, library: Path, tmp_path: Path) -> Plugin:
    return Plugin(harness, cuda_on_cpu, library, tmp_path)


def test_nothing_but_the_two_entry_points_is_exported(library: Path) -> None:
    nm = require_tool("nm", "binutils")
    done = subprocess.run(
        [nm, "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    # C++ templates of the standard library are weak and stay so.
    kinds = {line.split()[-1]: line.split()[-2] for line in done.stdout.splitlines()}
    ours = {name for name, kind in kinds.items() if kind not in "VWu"}
    assert ours == {"getCreators", "setLoggerFinder"}


@pytest.mark.parametrize("scope", [0, 1], ids=["token", "image"])
@pytest.mark.parametrize(
    ("tokens", "channels", "outputs", "group"),
    [(1, 64, 20, 1), (5, 96, 33, 4), (17, 192, 70, 1), (65, 192, 192, 4)],
)
def test_gated_matmul_is_bit_exact_through_the_interface(
    plugin: Plugin, tokens: int, channels: int, outputs: int, group: int, scope: int
) -> None:
    rng = np.random.default_rng(tokens)
    x = rng.normal(size=(tokens, channels)).astype(np.float32)
    w = pack_ternary(rng.integers(-1, 2, (outputs, channels)).astype(np.int8)).view(np.int8)
    scale = rng.uniform(0.01, 0.1, outputs if scope else 1).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    for k in (0.1, 0.4, 1.0):
        inputs = [x, np.asarray(k, np.float32), w, scale, bias]
        gate = {"group": group, "scope": scope}
        workspace, (y,) = plugin.run("GatedTernaryMatMul", gate, inputs)
        q, s = reference.top_k_gate(x, k, group, scope)
        assert np.array_equal(y, reference.ternary_mat_mul(q, s, w, scale, bias))
        sizes = {"tokens": tokens, "channels": channels, "outputs": outputs}
        assert workspace == Kernels.gated_mat_mul_workspace(**sizes, **gate)


def test_attention_is_bit_exact_through_the_interface(plugin: Plugin) -> None:
    for case in golden.attention_cases():
        qkv, heads = case.inputs["QKV"], case.attributes["heads"]
        workspace, (y, a) = plugin.run("QuantAttention", {"heads": heads}, [qkv])
        assert np.array_equal(y, case.outputs["Y"]), case.name
        assert np.array_equal(a, case.outputs["A"]), case.name
        sizes = {"tokens": qkv.shape[0], "dim": qkv.shape[1] // 3, "heads": heads}
        assert workspace == Kernels.attention_workspace(**sizes)

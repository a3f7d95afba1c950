"""Heads that the core does not know are TVM's: the same numbers within 1e-5, wherever they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.arm64 import run_arm64
from support.forcing import reference_of
from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.checks import check_model
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS
from tatvpr_edge.compilers.golden import synthetic_frame
from tatvpr_edge.compilers.job import is_exact
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.objects import compile_object
from tatvpr_edge.compilers.toolchains import build_library, find_compiler
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.models import registry
from tatvpr_edge.models.export import build_proto
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library

F32 = NDArray[np.float32]
SETTINGS = ((1.0, 1.0), (0.2, 1.0), (0.4, 0.5), (0.05, 0.1))

PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library

library = Library(Path(sys.argv[1]), Path(sys.argv[2]))
for frame in np.load(sys.argv[3]):
    for k, tokens in eval(sys.argv[4]):
        made = library.describe(check_frame(frame), k, tokens, want_tokens=True)
        print(made.descriptor.tobytes().hex(), made.tokens.tobytes().hex())
"""


@pytest.fixture(scope="module")
def learned(tiny: Callable[..., onnx.ModelProto]) -> Lowered:
    return lower(check_model(tiny("learned")), "learned")


def head_model(kind: str) -> onnx.ModelProto:
    """A learned head of ours on a backbone so small that roundings seldom flip."""
    backbone = ViTConfig(image_px=64, patch=8, dim=48, depth=2, heads=3, keep_after=0)
    model = ModelConfig("tiny", backbone, HeadConfig(kind))
    return build_proto(registry.create(model, seed=0))


@pytest.fixture(scope="module")
def library(learned: Lowered, tmp_path_factory: pytest.TempPathFactory) -> Library:
    require_tool("gcc", "gcc")
    folder = tmp_path_factory.mktemp("learned") / "host"
    return open_library(compile_linux(learned, load("host"), folder), learned)


def frames() -> NDArray[np.uint8]:
    return np.stack([synthetic_frame(seed, 32, 32) for seed in range(3)])


def close(a: F32, b: F32) -> bool:
    return bool(np.abs(a - b).max() <= 1e-5 * np.abs(b).max())


def test_the_artifact_does_not_promise_the_same_bytes(learned: Lowered) -> None:
    assert not is_exact(learned)
    assert len(learned.compiled_operators) > 3


def test_kernels_as_c_source_agree_with_kernels_as_objects(
    learned: Lowered, library: Library, tmp_path: Path
) -> None:
    """What a microcontroller gets against what a Linux board gets."""
    host = load("host")
    model_c, kernels_c = tmp_path / "model.c", tmp_path / "kernels.c"
    model_c.write_text(learned.model_c)
    kernels_c.write_text(learned.kernels_source())
    compiler = find_compiler(host)
    made = compile_object(
        compiler, kernels_c, [*NUMERIC_FLAGS, "-O2", "-fPIC"], tmp_path / "kernels.o"
    )
    build_library(host, model_c, [made], tmp_path / "source.so")
    from_source = open_library(tmp_path / "source.so", learned)
    for frame in frames():
        for k, tokens in SETTINGS:
            a = library.describe(check_frame(frame), k, tokens).descriptor
            b = from_source.describe(check_frame(frame), k, tokens).descriptor
            assert close(a, b)


@pytest.mark.parametrize("kind", registry.LEARNED_HEADS)
def test_our_learned_heads_agree_with_onnx_runtime(kind: str, tmp_path: Path) -> None:
    """Wherever the backbone's tokens agree to the last floats, so does the descriptor."""
    require_tool("gcc", "gcc")
    model = head_model(kind)
    lowered = lower(check_model(model), kind)
    library = open_library(compile_linux(lowered, load("host"), tmp_path / "host"), lowered)
    reference = reference_of(model)
    compared = 0
    for seed in range(6):
        frame = synthetic_frame(seed, 64, 64)
        for k, tokens in SETTINGS:
            wanted = reference.run(frame, k, tokens)
            got = library.describe(check_frame(frame), k, tokens, want_tokens=True)
            last = wanted["blocks.1.residual2"]
            assert got.tokens is not None and got.tokens.shape == last.shape
            if np.abs(got.tokens - last).max() <= 1e-6 * np.abs(last).max():
                compared += 1
                assert close(got.descriptor, wanted["descriptor"]), (seed, k, tokens)
    assert compared >= 3


@pytest.mark.parametrize("kind", registry.LEARNED_HEADS)
def test_our_learned_heads_have_c_sources(kind: str, tmp_path: Path) -> None:
    """For a microcontroller: C that compiles, calls nothing but <math.h> and allocates nothing."""
    require_tool("gcc", "gcc")
    source = tmp_path / "kernels.c"
    source.write_text(lower(check_model(head_model(kind)), kind).kernels_source())
    assert "TVM" not in source.read_text().replace("Generated by TVM", "")
    flags = [*NUMERIC_FLAGS, "-O2", "-Wall", "-Werror"]
    compile_object(find_compiler(load("host")), source, flags, tmp_path / "kernels.o")


@pytest.mark.slow
def test_an_aarch64_board_agrees(learned: Lowered, library: Library, tmp_path: Path) -> None:
    """Emulated. The core's tokens are the same bytes; the head is within 1e-5."""
    board = load("jetson-orin-nano")
    require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    require_tool("qemu-aarch64", "qemu-user")
    code = compile_linux(learned, board, tmp_path / "board")
    (tmp_path / "weights.bin").write_bytes(learned.blob)
    np.save(tmp_path / "frames.npy", frames())
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_arm64(
        str(tmp_path / "program.py"),
        str(code),
        str(tmp_path / "weights.bin"),
        str(tmp_path / "frames.npy"),
        repr(SETTINGS),
    )
    assert done.returncode == 0, done.stderr
    lines = iter(done.stdout.splitlines())
    for frame in frames():
        for k, tokens in SETTINGS:
            descriptor, last = (bytes.fromhex(part) for part in next(lines).split())
            made = library.describe(check_frame(frame), k, tokens, want_tokens=True)
            assert made.tokens is not None and made.tokens.tobytes() == last
            assert close(np.frombuffer(descriptor, "<f4"), made.descriptor)

"""The CUDA kernels' own source, run thread by thread on the CPU, equals the golden vectors.

This proves indexing, selection and ties without a GPU; it is no statement about speed.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.tools import require_tool
from tatvpr_edge.spec import golden, reference
from tatvpr_edge.spec.limits import kept
from tatvpr_edge.spec.packing import pack_ternary

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow
Array = np.ndarray[Any, np.dtype[Any]]


def _adapt(source: str) -> str:
    """Exchange the two lines that only a GPU understands."""
    source = source.replace(
        "extern __shared__ unsigned char shared[];", "unsigned char *shared = emu::dynamic_shared;"
    )
    return re.sub(
        r"asm volatile\(.*?\);\n", "emu::mma_16x8x32(c, a, b);\n", source, flags=re.DOTALL
    )


@pytest.fixture(scope="module")
def kernels(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = require_tool("g++", "g++")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    for source in (project_root / "runtime/core/cuda").glob("*.cu"):
        (folder / f"{source.stem}.inc").write_text(_adapt(source.read_text()))
    library = folder / "kernels.so"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w"),
            *("-I", str(folder), "-I", str(HERE), str(HERE / "cuda_on_cpu.cpp")),
            *("-o", str(library)),
        ],
        check=True,
    )
    return ctypes.CDLL(str(library))


def _pointer(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def _gate_token(kernels: ctypes.CDLL, x: Array, k: Array, group: int) -> tuple[Array, Array]:
    t, channels = x.shape
    q, s = np.empty((t, channels), np.int8), np.empty((t, 1), np.float32)
    kernels.run_gate_token(*map(_pointer, (x, k, q, s)), t, channels, group)
    return q, s


def _image(kernels: ctypes.CDLL, x: Array, k: Array, group: int) -> tuple[Array, Array, Array]:
    t, channels = x.shape
    q, s = np.empty((t, channels), np.int8), np.empty((t, 1), np.float32)
    score = np.zeros(channels // group, np.int32)
    index, count = np.zeros(channels, np.int32), np.zeros(1, np.int32)
    kernels.run_quantise_score(*map(_pointer, (x, q, s, score)), t, channels, group)
    kernels.run_image_select(*map(_pointer, (score, k, index, count)), channels // group, group)
    return q, s, index[: count[0]]


def test_gate_equals_the_golden_vectors(kernels: ctypes.CDLL) -> None:
    seen = 0
    for case in golden.gate_cases():
        x, k = case.inputs["X"], np.asarray(case.inputs["k"])
        group = case.attributes["group"]
        if case.attributes["scope"] == 0:
            q, s = _gate_token(kernels, x, k, group)
        else:
            dense, s, index = _image(kernels, x, k, group)
            assert len(index) == kept(float(k), x.shape[1] // group) * group
            assert (np.diff(index) > 0).all()
            q = np.zeros_like(dense)
            q[:, index] = dense[:, index]
        assert np.array_equal(q, case.outputs["Q"]), case.name
        assert np.array_equal(s, case.outputs["S"]), case.name
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("use_mma", [0, 1], ids=["dp4a", "tensor-core"])
def test_matmul_equals_the_golden_vectors(kernels: ctypes.CDLL, use_mma: int) -> None:
    """Bit for bit: the epilogue is unfused on the GPU as well."""
    for case in golden.matmul_cases():
        q, w = case.inputs["Q"], case.inputs["W"]
        padded = np.zeros((q.shape[0], w.shape[1] * 4), np.int8)
        padded[:, : q.shape[1]] = q
        s, scale, bias = (case.inputs[name] for name in ("S", "scale", "bias"))
        y = np.empty_like(case.outputs["Y"])
        kernels.run_ternary(
            use_mma,
            *map(_pointer, (padded, s, w, scale, bias, y)),
            *(q.shape[0], padded.shape[1], w.shape[0], w.shape[1], int(len(scale) > 1), None),
        )
        assert np.array_equal(y, case.outputs["Y"]), case.name


@pytest.mark.parametrize("k", [0.05, 0.4, 1.0])
def test_image_scope_shrinks_the_matmul_and_keeps_the_result(
    kernels: ctypes.CDLL, k: float
) -> None:
    rng = np.random.default_rng(11)
    t, channels, outputs, group = 21, 192, 70, 4
    x = rng.normal(size=(t, channels)).astype(np.float32)
    w = pack_ternary(rng.integers(-1, 2, (outputs, channels)).astype(np.int8))
    scale, bias = np.float32([0.02]), rng.normal(size=outputs).astype(np.float32)
    q, s, index = _image(kernels, x, np.asarray(k, np.float32), group)
    count = np.int32([len(index)])
    width = -(-len(index) // 32) * 32
    compact = np.empty((t, width), np.int8)
    packed = np.empty((outputs, width // 4), np.uint8)
    index = np.ascontiguousarray(index)
    kernels.run_image_compact(*map(_pointer, (q, index, count, compact)), t, channels, width)
    kernels.run_ternary_gather(
        *map(_pointer, (w, index, count, packed)), outputs, w.shape[1], width
    )
    y = np.empty((t, outputs), np.float32)
    kernels.run_ternary(
        1,
        *map(_pointer, (compact, s, packed, scale, bias, y)),
        t,
        width,
        outputs,
        width // 4,
        0,
        _pointer(count),
    )
    gated, s_ref = reference.top_k_gate(x, k, group, scope=1)
    assert np.array_equal(y, reference.ternary_mat_mul(gated, s_ref, w, scale, bias))


def test_patch_embedding_equals_the_golden_vectors(kernels: ctypes.CDLL) -> None:
    for case in golden.patch_cases():
        pixels, w, scale, bias = (case.inputs[n] for n in ("pixels", "W", "scale", "bias"))
        patch = round((w.shape[1] // 3) ** 0.5)
        if w.shape[1] % 4:
            continue  # odd patches are refused at build
        y = np.empty_like(case.outputs["Y"])
        kernels.run_patch_embed(
            *map(_pointer, (pixels, w, scale, bias, y)), pixels.shape[0], patch, w.shape[0]
        )
        assert np.array_equal(y, case.outputs["Y"]), case.name


def test_attention_equals_the_golden_vectors(kernels: ctypes.CDLL) -> None:
    for case in golden.attention_cases():
        qkv, heads = case.inputs["QKV"], case.attributes["heads"]
        t, dim = qkv.shape[0], qkv.shape[1] // 3
        padded = -(-t // 4) * 4
        y, a = np.empty((t, dim), np.float32), np.empty(t, np.float32)
        q8, k8 = np.empty(t * dim, np.int8), np.empty(t * dim, np.int8)
        v8 = np.zeros(padded * dim, np.int8)
        q_scales, scales = np.empty(heads * t, np.float32), np.empty(2 * heads, np.float32)
        cls = np.empty(heads * t, np.float32)
        kernels.run_attention(
            *map(_pointer, (qkv, y, a, q8, k8, v8, q_scales, scales, cls)), t, dim, heads, padded
        )
        assert np.array_equal(y, case.outputs["Y"]), case.name
        assert np.array_equal(a, case.outputs["A"]), case.name


def test_keep_tokens_equals_the_golden_vectors(kernels: ctypes.CDLL) -> None:
    for case in golden.keep_cases():
        x, a, expected = case.inputs["X"], case.inputs["A"], case.outputs["Y"]
        n = expected.shape[0] - 1
        source, y = np.empty(n + 1, np.int32), np.empty_like(expected)
        kernels.run_keep_tokens(*map(_pointer, (x, a, source, y)), x.shape[0], x.shape[1], n)
        assert np.array_equal(y, expected), case.name

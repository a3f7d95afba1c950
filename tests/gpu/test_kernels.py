"""Every CUDA kernel equals the golden vectors: on a GPU where there is one, and on the CPU always.

The CPU run executes the kernels' own source thread by thread, launched through the same driver
layer as on a board. It proves indexing, selection and ties; it says nothing about speed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from support import golden_cases
from support.cuda import Array, build_driver_on_cpu, has_gpu, kernel_sources
from tatvpr_edge.runtime.cuda.driver import Driver, open_driver
from tatvpr_edge.spec import golden, reference
from tatvpr_edge.spec.limits import kept
from tatvpr_edge.spec.packing import pack_ternary

pytestmark = pytest.mark.slow


class Device:
    """Launches kernels by name on NumPy arrays: inputs go up, outputs come back in place."""

    def __init__(self, driver: Driver, cubins: dict[str, bytes]) -> None:
        self.driver = driver
        self.modules = {source: driver.load(code) for source, code in cubins.items()}

    def run(
        self,
        source: str,
        kernel: str,
        grid: Sequence[int],
        *arguments: Array | int | None,
        block: int = 128,
        shared: int = 0,
    ) -> None:
        held: list[tuple[Array, int]] = []
        raw: list[Any] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                held.append((argument, self.driver.to_device(argument)))
                raw.append(ctypes.c_uint64(held[-1][1]))
            else:
                raw.append(argument)
        function = self.modules[source](kernel)
        self.driver.launch(function, grid, block, shared, raw)
        for array, pointer in held:
            if array.flags.writeable:
                self.driver.download(array, pointer)
        self.driver.synchronise()
        for _, pointer in held:
            self.driver.free(pointer)


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def device(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Device]:
    gpu = request.param == "gpu"
    if gpu and not has_gpu():
        pytest.skip("no CUDA GPU on this machine: the kernels ran on the CPU only")
    if not gpu and has_gpu():  # a process has one CUDA driver
        pytest.skip("the machine's GPU runs the kernels")
    if not gpu:
        library = build_driver_on_cpu(tmp_path_factory.mktemp("cuda_on_cpu"))
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    with open_driver() as driver:
        if gpu:
            from tatvpr_edge.compilers.tensorrt.cubins import compile_all

            major = int(driver.version().split(".")[0])
            compiled = compile_all(driver.architecture(), min(major, 13))
            cubins = {c.source: c.code for c in compiled}
        else:
            # the CPU driver finds kernels by name; the bytes only have to look like a cubin
            cubins = {s.stem: b"\x7fELF" for s in kernel_sources()}
        yield Device(driver, cubins)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _gate_token(device: Device, x: Array, k: Array, group: int) -> tuple[Array, Array]:
    t, channels = x.shape
    q, s = np.empty((t, channels), np.int8), np.empty((t, 1), np.float32)
    grid = (t,)
    device.run(
        "gate_token", "tatvpr_gate_token", grid, x, k, q, s, channels, group, shared=channels
    )
    return q, s


def _image(device: Device, x: Array, k: Array, group: int) -> tuple[Array, Array, Array]:
    t, channels = x.shape
    groups = channels // group
    q, s = np.empty((t, channels), np.int8), np.empty((t, 1), np.float32)
    score = np.zeros(groups, np.int32)
    index, count = np.zeros(channels, np.int32), np.zeros(1, np.int32)
    device.run("gate_image", "tatvpr_quantise_score", (t,), x, q, s, score, channels, group)
    device.run(
        "gate_image", "tatvpr_image_select", (1,), score, k, index, count, groups, group, block=256
    )
    return q, s, index[: count[0]]


def _matmul(
    device: Device, use_mma: bool, arrays: Sequence[Array], sizes: Sequence[int], active: Any = None
) -> None:
    tokens, _, outputs = sizes[:3]
    source = "ternary_mma" if use_mma else "ternary_dp4a"
    grid = (
        (_ceil(outputs, 64), _ceil(tokens, 64))
        if use_mma
        else (_ceil(outputs, 4), _ceil(tokens, 8))
    )
    device.run(source, f"tatvpr_{source}", grid, *arrays, *sizes, active)


def test_gate_equals_the_golden_vectors(device: Device) -> None:
    seen = 0
    for case in golden_cases.gate_cases():
        x, k = case.inputs["X"], np.asarray(case.inputs["k"])
        group = case.attributes["group"]
        if case.attributes["scope"] == 0:
            q, s = _gate_token(device, x, k, group)
        else:
            dense, s, index = _image(device, x, k, group)
            assert len(index) == kept(float(k), x.shape[1] // group) * group
            assert (np.diff(index) > 0).all()
            q = np.zeros_like(dense)
            q[:, index] = dense[:, index]
        assert np.array_equal(q, case.outputs["Q"]), case.name
        assert np.array_equal(s, case.outputs["S"]), case.name
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("use_mma", [False, True], ids=["dp4a", "tensor-core"])
def test_matmul_equals_the_golden_vectors(device: Device, use_mma: bool) -> None:
    """Bit for bit: the epilogue is unfused on the GPU as well."""
    for case in golden_cases.matmul_cases():
        q, w = case.inputs["Q"], case.inputs["W"]
        padded = np.zeros((q.shape[0], w.shape[1] * 4), np.int8)
        padded[:, : q.shape[1]] = q
        s, scale, bias = (case.inputs[name] for name in ("S", "scale", "bias"))
        y = np.empty_like(case.outputs["Y"])
        sizes = (q.shape[0], padded.shape[1], w.shape[0], w.shape[1], int(len(scale) > 1))
        _matmul(device, use_mma, (padded, s, w, scale, bias, y), sizes)
        assert np.array_equal(y, case.outputs["Y"]), case.name


@pytest.mark.parametrize("k", [0.05, 0.4, 1.0])
def test_image_scope_shrinks_the_matmul_and_keeps_the_result(device: Device, k: float) -> None:
    rng = np.random.default_rng(11)
    t, channels, outputs, group = 21, 192, 70, 4
    x = rng.normal(size=(t, channels)).astype(np.float32)
    w = pack_ternary(rng.integers(-1, 2, (outputs, channels)).astype(np.int8))
    scale, bias = np.array([0.02], np.float32), rng.normal(size=outputs).astype(np.float32)
    q, s, index = _image(device, x, np.asarray(k, np.float32), group)
    count = np.array([len(index)], np.int32)
    width = channels
    compact = np.empty((t, width), np.int8)
    packed = np.empty((outputs, width // 4), np.uint8)
    index = np.ascontiguousarray(index)
    device.run(
        "gate_image", "tatvpr_image_compact", (t,), q, index, count, compact, channels, width
    )
    device.run(
        "gate_image",
        *("tatvpr_ternary_gather", (outputs,), w, index, count, packed, w.shape[1], width),
    )
    # what lies beyond the kept channels must not be read: the loop ends at `count`
    beyond = -(-len(index) // 64) * 64
    packed[:, beyond // 4 :] = 0xFF
    y = np.empty((t, outputs), np.float32)
    sizes = (t, width, outputs, width // 4, 0)
    _matmul(device, True, (compact, s, packed, scale, bias, y), sizes, count)
    gated, s_ref = reference.top_k_gate(x, k, group, scope=1)
    assert np.array_equal(y, reference.ternary_mat_mul(gated, s_ref, w, scale, bias))


def test_patch_embedding_equals_the_golden_vectors(device: Device) -> None:
    seen = 0
    for case in golden.patch_cases():
        pixels, w, scale, bias = (case.inputs[n] for n in ("pixels", "W", "scale", "bias"))
        if w.shape[1] % 4:
            continue  # odd patches are refused at build
        patch = round((w.shape[1] // 3) ** 0.5)
        side, dim = pixels.shape[0], w.shape[0]
        y = np.empty_like(case.outputs["Y"])
        device.run(
            "patch_embed",
            *("tatvpr_patch_embed", (y.shape[0],), pixels, w, scale, bias, y, side, patch, dim),
            shared=w.shape[1],
        )
        assert np.array_equal(y, case.outputs["Y"]), case.name
        seen += 1
    assert seen >= 3


def test_attention_equals_the_golden_vectors(device: Device) -> None:
    for case in golden.attention_cases():
        qkv, heads = case.inputs["QKV"], case.attributes["heads"]
        t, dim = qkv.shape[0], qkv.shape[1] // 3
        padded = _ceil(t, 4) * 4
        y, a = np.empty((t, dim), np.float32), np.empty(t, np.float32)
        q8, k8 = np.empty(t * dim, np.int8), np.empty(t * dim, np.int8)
        v8 = np.zeros(padded * dim, np.int8)
        q_scales, scales = np.empty(heads * t, np.float32), np.empty(2 * heads, np.float32)
        cls = np.empty(heads * t, np.float32)
        shape = (t, dim, heads)
        device.run("attention", "tatvpr_attention_scales", (heads, 2), qkv, scales, *shape)
        device.run(
            "attention",
            *("tatvpr_attention_quantise", (t, _ceil(heads, 4))),
            *(qkv, scales, q8, k8, v8, q_scales, *shape, padded),
        )
        device.run(
            "attention",
            *("tatvpr_attention", (heads, _ceil(t, 4))),
            *(q8, k8, v8, q_scales, scales, y, cls, *shape, padded),
            shared=4 * padded * 5,
        )
        device.run("attention", "tatvpr_attention_cls", (_ceil(t, 128),), cls, a, t, heads)
        assert np.array_equal(y, case.outputs["Y"]), case.name
        assert np.array_equal(a, case.outputs["A"]), case.name


def test_keep_tokens_equals_the_golden_vectors(device: Device) -> None:
    for case in golden.keep_cases():
        x, a, expected = case.inputs["X"], case.inputs["A"], case.outputs["Y"]
        t, n, dim = x.shape[0], expected.shape[0] - 1, x.shape[1]
        source, y = np.empty(n + 1, np.int32), np.empty_like(expected)
        device.run(
            *("keep_tokens", "tatvpr_keep_select", (1,), a, source, t, n), block=256, shared=t
        )
        device.run("keep_tokens", "tatvpr_keep_gather", (n + 1,), x, source, y, dim)
        assert np.array_equal(y, expected), case.name

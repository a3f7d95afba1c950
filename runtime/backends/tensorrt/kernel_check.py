"""Operators at level (a) on the GPU at hand: our kernels against the golden cases, bit for bit.

``finish`` runs it on the board before an engine is trusted; tests run it on the CPU stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.cuda.driver import Driver
from tatvpr_edge.spec import golden, reference
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.packing import pack_ternary

Array = NDArray[Any]


class _Room:
    """Arrays on the device; an output holds a pattern first, so that it must be written."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._held: list[int] = []

    def put(self, array: Array) -> int:
        self._held.append(self._driver.to_device(array))
        return self._held[-1]

    def space(self, size_bytes: int) -> int:
        return self.put(np.full(max(1, size_bytes), 0xA5, np.uint8))

    def get(self, pointer: int, like: Array) -> Array:
        result = np.empty_like(like)
        self._driver.download(result, pointer)
        self._driver.synchronise()
        return result

    def close(self) -> None:
        for pointer in self._held:
            self._driver.free(pointer)


@contextmanager
def _room(driver: Driver) -> Iterator[_Room]:
    room = _Room(driver)
    try:
        yield room
    finally:
        room.close()


def check_kernels(driver: Driver, kernels: Kernels) -> int:
    """Run every operator's cases; how many were run.

    Raises:
        ToolError: a result differs in any bit; the case is named.
    """
    count = 0
    for name, outputs, expected in _results(driver, kernels):
        for made, wanted in zip(outputs, expected, strict=True):
            if made.tobytes() != wanted.tobytes():
                raise ToolError(f"this GPU computes {name} differently: its engine is not used")
        count += 1
    return count


def _results(
    driver: Driver, kernels: Kernels
) -> Iterator[tuple[str, tuple[Array, ...], tuple[Array, ...]]]:
    yield from _matmuls(driver, kernels)
    for case in golden.attention_cases():
        qkv, heads = case.inputs["QKV"], case.attributes["heads"]
        y, a = case.outputs["Y"], case.outputs["A"]
        sizes = {"tokens": qkv.shape[0], "dim": qkv.shape[1] // 3, "heads": heads}
        with _room(driver) as room:
            at, out = room.space(y.nbytes), room.space(a.nbytes)
            workspace = room.space(kernels.attention_workspace(**sizes))
            kernels.attention(room.put(qkv), at, out, workspace, **sizes)
            yield case.name, (room.get(at, y), room.get(out, a)), (y, a)
    for case in golden.patch_cases():
        pixels, w, scale, bias = (case.inputs[n] for n in ("pixels", "W", "scale", "bias"))
        if w.shape[1] % 4:
            continue  # odd patches are refused at build
        y = case.outputs["Y"]
        patch = round((w.shape[1] // 3) ** 0.5)
        with _room(driver) as room:
            at = room.space(y.nbytes)
            inputs = [room.put(array) for array in (pixels, w, scale, bias)]
            side = pixels.shape[0]
            kernels.patch_embed([*inputs, at], side=side, patch=patch, dim=w.shape[0])
            yield case.name, (room.get(at, y),), (y,)
    for case in golden.keep_cases():
        x, a, y = case.inputs["X"], case.inputs["A"], case.outputs["Y"]
        tokens, dim = x.shape
        with _room(driver) as room:
            at, source = room.space(y.nbytes), room.space(4 * tokens)
            sizes = {"tokens": tokens, "kept": y.shape[0] - 1, "dim": dim}
            kernels.keep_tokens(room.put(x), room.put(a), source, at, **sizes)
            yield case.name, (room.get(at, y),), (y,)


#: tokens, channels, outputs, group: few and many tokens, ragged tiles
_SHAPES = ((1, 64, 20, 1), (5, 96, 33, 4), (17, 192, 70, 1), (65, 192, 192, 4))


def _matmuls(
    driver: Driver, kernels: Kernels
) -> Iterator[tuple[str, tuple[Array, ...], tuple[Array, ...]]]:
    """Gate and ternary matmul as the plugin runs them, both scopes, against the reference."""
    rng = np.random.default_rng(2026)
    for tokens, channels, outputs, group in _SHAPES:
        x = rng.normal(size=(tokens, channels)).astype(np.float32)
        x[0, ::3] = x[0, 0]  # ties
        w = pack_ternary(rng.integers(-1, 2, (outputs, channels)).astype(np.int8))
        bias = rng.normal(size=outputs).astype(np.float32)
        for scope in (0, 1):
            for k in (0.1, 0.4, 1.0):
                per_row = scope == 0
                scale = rng.uniform(0.01, 0.1, outputs if per_row else 1).astype(np.float32)
                q, s = reference.top_k_gate(x, k, group, scope)
                y = reference.ternary_mat_mul(q, s, w, scale, bias)
                sizes = {"tokens": tokens, "channels": channels, "outputs": outputs}
                gate = {"group": group, "scope": scope}
                with _room(driver) as room:
                    at = room.space(y.nbytes)
                    workspace = room.space(kernels.gated_mat_mul_workspace(**sizes, **gate))
                    inputs = [
                        room.put(array) for array in (x, np.array([k], np.float32), w, scale, bias)
                    ]
                    kernels.gated_mat_mul(
                        [*inputs, at],
                        workspace,
                        row_bytes=w.shape[1],
                        scale_count=len(scale),
                        **sizes,
                        **gate,
                    )
                    name = f"gated_mat_mul_{tokens}x{channels}x{outputs}_s{scope}_k{k:g}"
                    yield name, (room.get(at, y),), (y,)

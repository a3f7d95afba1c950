"""Our kernels, operator by operator, launched on device pointers.

The Python twin of ``runtime/core/cuda/plugin/launch.cpp``: same launches, same workspace. In:
cubins and device pointers as ints. Out: nothing but what the kernels write. Used for the launches
between the engines, by the Python plugins and by the board's check of its kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from tatvpr_edge.runtime.cuda.driver import Driver

_THREADS, _SELECT_THREADS = 128, 256
# Below this many tokens a 64-token tensor-core tile would be mostly padding.
_FEW_TOKENS = 16
_IMAGE_SCOPE = 1
_KERNELS = {
    "gate_token": ("tatvpr_gate_token",),
    "gate_image": (
        "tatvpr_quantise_score",
        "tatvpr_image_select",
        "tatvpr_image_compact",
        "tatvpr_ternary_gather",
    ),
    "ternary_mma": ("tatvpr_ternary_mma",),
    "ternary_dp4a": ("tatvpr_ternary_dp4a",),
    "patch_embed": ("tatvpr_patch_embed",),
    "attention": (
        "tatvpr_attention_scales",
        "tatvpr_attention_quantise",
        "tatvpr_attention",
        "tatvpr_attention_cls",
    ),
    "keep_tokens": ("tatvpr_keep_select", "tatvpr_keep_gather"),
}


class _Carver:
    """Pieces of one workspace, 256-byte aligned; from base 0 it only counts."""

    def __init__(self, base: int) -> None:
        self._base = base
        self.used = 0

    def take(self, size_bytes: int) -> int:
        at = self._base + self.used
        self.used += -(-size_bytes // 256) * 256
        return at


class Kernels:
    """All kernels of one GPU architecture, loaded.

    Args:
        driver: the GPU.
        cubins: source name -> cubin.

    Raises:
        ToolError: a cubin does not load on this GPU, or lacks a kernel.
    """

    def __init__(self, driver: Driver, cubins: Mapping[str, bytes]) -> None:
        self._driver = driver
        self._modules = {source: driver.load(cubins[source]) for source in _KERNELS}
        self._functions = {
            name: self._modules[source](name)
            for source, names in _KERNELS.items()
            for name in names
        }

    def patch_embed(self, tensors: Sequence[int], *, side: int, patch: int, dim: int) -> None:
        """uint8 [side, side, 3] -> float32 [(side / patch)^2, dim].

        ``tensors``: pixels, W, scale, bias, y.
        """
        grid, shared = ((side // patch) ** 2,), patch * patch * 3
        self._launch("tatvpr_patch_embed", grid, tensors, (side, patch, dim), None, shared)

    def keep_tokens(
        self, x: int, a: int, source: int, y: int, *, tokens: int, kept: int, dim: int
    ) -> None:
        """x [tokens, dim], a [tokens] -> y [1 + kept, dim]; ``source``: int32 [1 + kept]."""
        select = "tatvpr_keep_select", (1,), (a, source), (tokens, kept)
        self._launch(*select, shared_bytes=tokens, threads=_SELECT_THREADS)
        self._launch("tatvpr_keep_gather", (kept + 1,), (x, source, y), (dim,))

    @staticmethod
    def gated_mat_mul_workspace(
        *, tokens: int, channels: int, outputs: int, group: int, scope: int
    ) -> int:
        """Bytes that :meth:`gated_mat_mul` needs."""
        carver = _Carver(0)
        _gate_buffers(carver, tokens, channels, outputs, group, scope)
        return carver.used

    def gated_mat_mul(
        self,
        tensors: Sequence[int],
        workspace: int,
        *,
        tokens: int,
        channels: int,
        outputs: int,
        row_bytes: int,
        scale_count: int,
        group: int,
        scope: int,
        stream: int | None = None,
    ) -> None:
        """TernaryMatMul(TopKGate(x, k)): x float32 [tokens, channels] -> y [tokens, outputs].

        ``tensors``: x, k, W, scale, bias, y.
        """
        x, k, weights, scale, bias, y = tensors
        buffers = _gate_buffers(_Carver(workspace), tokens, channels, outputs, group, scope)
        q, s, compact, score, index, count, gathered = buffers
        if scope == _IMAGE_SCOPE:
            groups = channels // group
            self._driver.zero(score, 4 * groups, stream)
            pointers, numbers = (x, q, s, score), (channels, group)
            self._launch("tatvpr_quantise_score", (tokens,), pointers, numbers, stream)
            select = "tatvpr_image_select", (1,), (score, k, index, count), (groups, group)
            self._launch(*select, stream, threads=_SELECT_THREADS)
            pointers, numbers = (q, index, count, compact), (channels, channels)
            self._launch("tatvpr_image_compact", (tokens,), pointers, numbers, stream)
            pointers, numbers = (weights, index, count, gathered), (row_bytes, channels)
            self._launch("tatvpr_ternary_gather", (outputs,), pointers, numbers, stream)
            q, weights, row_bytes = compact, gathered, channels // 4
        else:
            pointers, numbers = (x, k, q, s), (channels, group)
            self._launch("tatvpr_gate_token", (tokens,), pointers, numbers, stream, channels)
        few = tokens < _FEW_TOKENS
        name = "tatvpr_ternary_dp4a" if few else "tatvpr_ternary_mma"
        grid = _grid(outputs, tokens, 4, 8) if few else _grid(outputs, tokens, 64, 64)
        sizes = (tokens, channels, outputs, row_bytes, int(scale_count > 1), *_pointers(count))
        self._launch(name, grid, (q, s, weights, scale, bias, y), sizes, stream)

    @staticmethod
    def attention_workspace(*, tokens: int, dim: int, heads: int) -> int:
        """Bytes that :meth:`attention` needs."""
        carver = _Carver(0)
        _attention_buffers(carver, tokens, dim, heads)
        return carver.used

    def attention(
        self,
        qkv: int,
        y: int,
        a: int,
        workspace: int,
        *,
        tokens: int,
        dim: int,
        heads: int,
        stream: int | None = None,
    ) -> None:
        """qkv float32 [tokens, 3 * dim] -> y [tokens, dim], a [tokens]."""
        padded = _ceil(tokens, 4) * 4
        q, k, v, q_scales, scales, cls = _attention_buffers(_Carver(workspace), tokens, dim, heads)
        shape = (tokens, dim, heads)
        self._driver.zero(v, padded * dim, stream)
        self._launch("tatvpr_attention_scales", (heads, 2), (qkv, scales), shape, stream)
        made, grid = (qkv, scales, q, k, v, q_scales), (tokens, _ceil(heads, 4))
        self._launch("tatvpr_attention_quantise", grid, made, (*shape, padded), stream)
        mixed, grid = (q, k, v, q_scales, scales, y, cls), (heads, _ceil(tokens, 4))
        self._launch("tatvpr_attention", grid, mixed, (*shape, padded), stream, 4 * padded * 5)
        self._launch(
            "tatvpr_attention_cls", (_ceil(tokens, 128),), (cls, a), (tokens, heads), stream
        )

    def _launch(
        self,
        name: str,
        grid: Sequence[int],
        pointers: Sequence[int],
        numbers: Sequence[Any],
        stream: int | None = None,
        shared_bytes: int = 0,
        threads: int = _THREADS,
    ) -> None:
        function, arguments = self._functions[name], [*_pointers(*pointers), *numbers]
        self._driver.launch(function, grid, threads, shared_bytes, arguments, stream)


def _pointers(*addresses: int) -> list[ctypes.c_uint64]:
    return [ctypes.c_uint64(address) for address in addresses]


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _grid(outputs: int, tokens: int, tile_outputs: int, tile_tokens: int) -> tuple[int, int]:
    return _ceil(outputs, tile_outputs), _ceil(tokens, tile_tokens)


def _gate_buffers(
    carver: _Carver, tokens: int, channels: int, outputs: int, group: int, scope: int
) -> tuple[int, int, int, int, int, int, int]:
    """q, s, compact, score, index, count, gathered weights; zeros where the scope needs none."""
    q, s = carver.take(tokens * channels), carver.take(4 * tokens)
    if scope != _IMAGE_SCOPE:
        return q, s, 0, 0, 0, 0, 0
    return (
        q,
        s,
        carver.take(tokens * channels),
        carver.take(4 * (channels // group)),
        carver.take(4 * channels),
        carver.take(4),
        carver.take(outputs * (channels // 4)),
    )


def _attention_buffers(
    carver: _Carver, tokens: int, dim: int, heads: int
) -> tuple[int, int, int, int, int, int]:
    """q, k, v (padded), scales of q a token, scales of k and v, cls."""
    return (
        carver.take(tokens * dim),
        carver.take(tokens * dim),
        carver.take(_ceil(tokens, 4) * 4 * dim),
        carver.take(4 * heads * tokens),
        carver.take(8 * heads),
        carver.take(4 * heads * tokens),
    )

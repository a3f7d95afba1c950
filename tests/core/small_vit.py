"""The model of small_vit.c in NumPy: its weights, its blob, its descriptor."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from core_driver import ROWS2, Weights
from numpy.typing import NDArray

from tatvpr_edge.spec import reference
from tatvpr_edge.spec.packing import pack_ternary
from tatvpr_edge.spec.resize import squash

SIDE, PATCH, DIM, HIDDEN, HEADS = 32, 8, 64, 256, 2
MODEL_HASH = bytes([7] * 32)
F32 = NDArray[np.float32]


@dataclass
class SmallVit:
    """Seeded random weights; the sizes are macros of small_vit.c."""

    seed: int = 0
    side: int = SIDE
    patch_side: int = PATCH
    dim: int = DIM
    hidden: int = HIDDEN

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        f = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        ternary = lambda n, k: rng.integers(-1, 2, (n, k)).astype(np.int8)  # noqa: E731
        dim, hidden = self.dim, self.hidden
        patch_pixels, tokens = self.patch_side**2, (self.side // self.patch_side) ** 2 + 1
        self.patch = rng.integers(-127, 128, (dim, patch_pixels * 3)).astype(np.int8)
        self.patch_scale = np.full(dim, 1e-4, np.float32)
        self.patch_bias, self.cls, self.positions = f(dim), f(dim), f(tokens, dim)
        self.norms = [(f(dim), f(dim)) for _ in range(3)]
        one = np.full(1, 0.1, np.float32)
        self.linears: list[tuple[NDArray[np.int8], F32, F32]] = [
            (ternary(3 * dim, dim), one, f(3 * dim)),
            (ternary(dim, dim), np.abs(f(dim)), f(dim)),
            (ternary(hidden, dim), one, f(hidden)),
            (ternary(dim, hidden), one, f(dim)),
        ]

    def blob(self) -> bytearray:
        """The weights file, header included."""
        weights = Weights(bytearray(64))
        tensors: list[Any] = [self.patch, self.patch_scale, self.patch_bias, self.cls]
        tensors += [self.positions, *(part for norm in self.norms for part in norm)]
        for w, scale, bias in self.linears:
            tensors += [pack_ternary(w), scale, bias]
        for tensor in tensors:
            weights.add(tensor)
        return seal(weights.data)

    def describe(self, frame: NDArray[np.uint8], k: float, tokens: float) -> tuple[F32, F32]:
        """(descriptor [D], last tokens [T, D]) by the reference."""
        pixels = squash(frame, self.side)
        x = reference.patch_embed(pixels, self.patch, self.patch_scale, self.patch_bias)
        x = np.concatenate([self.cls[None], x]) + self.positions

        def linear(number: int, inputs: F32, group: int = 1) -> F32:
            w, scale, bias = self.linears[number]
            q, s = reference.top_k_gate(inputs, k, group)
            return reference.ternary_mat_mul(q, s, pack_ternary(w), scale, bias)

        qkv = linear(0, reference.layer_norm(x, *self.norms[0]))
        y, a = reference.quant_attention(qkv, HEADS)
        x = x + linear(1, y)
        x = reference.keep_tokens(x, a, tokens)
        hidden = linear(2, reference.layer_norm(x, *self.norms[1]))
        x = x + linear(3, reference.gelu(hidden), 4)
        x = reference.layer_norm(x, *self.norms[2])
        return reference.l2_normalize(x[0]), x


def seal(data: bytearray, version: int = 1, layout: int = ROWS2) -> bytearray:
    """Writes the header over the first 64 bytes."""
    crc = zlib.crc32(bytes(data[64:]))
    data[:64] = struct.pack("<8sIIQII32s", b"TVPRWTS1", version, layout, len(data), crc, 0,
                            MODEL_HASH)  # fmt: skip
    return data

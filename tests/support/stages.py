"""Single stages of a generated model.c, fed with any input: what teacher forcing needs.

A C file that includes model.c makes its static descriptors callable; nothing of the model or of
the core is written again here.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers import steps as ir
from tatvpr_edge.compilers.linux import llvm_target
from tatvpr_edge.compilers.names import STEP_PREFIX
from tatvpr_edge.compilers.toolchains import build_library
from tatvpr_edge.compilers.tvm.lower import Lowered

F32 = NDArray[np.float32]

_SHIM = """
#include <stdlib.h>
#include <string.h>
#include "{model_c}"

static const tatvpr_gated_linear *const stage_linears[] = {{ {linears} }};
static const tatvpr_norm *const stage_norms[] = {{ {norms} }};
static const tatvpr_attention *const stage_attentions[] = {{ {attentions} }};

static tatvpr_model stage_model;
static tatvpr_options stage_options = {{.size = sizeof(tatvpr_options)}};
static tatvpr_context stage_context;

static uint8_t *aligned(size_t bytes) {{
    void *memory = NULL;
    return posix_memalign(&memory, 64, bytes) == 0 ? memory : NULL;
}}

TATVPR_API int tatvpr_stage_open(const uint8_t *blob, size_t bytes, const char *kernels) {{
    const size_t prepared = tatvpr_prepared_bytes(&program, kernels);
    uint8_t *memory = aligned(bytes + prepared + 64);
    uint8_t *room = memory + (bytes + 63) / 64 * 64;
    memcpy(memory, blob, bytes);
    const tatvpr_status status = tatvpr_model_init(&stage_model, &program, memory, bytes, kernels,
                                                   prepared ? room : NULL, prepared);
    if (status != TATVPR_OK) return status;
    stage_context.model = &stage_model;
    stage_context.options = &stage_options;
    stage_context.scratch_bytes = tatvpr_scratch_bytes(&program, 1);
    stage_context.scratch = aligned(stage_context.scratch_bytes);
    return status;
}}

TATVPR_API int tatvpr_stage_patch_embed(const uint8_t *pixels, float *y) {{
    stage_context.pixels = pixels;
    return tatvpr_op_patch_embed(&stage_context, program.patch_embed, y);
}}

/* The gate and the product alone: what comes before them is fed from outside. */
TATVPR_API int tatvpr_stage_linear(int i, float k, const float *x, int t, float *y) {{
    tatvpr_gated_linear bare = *stage_linears[i];
    bare.norm = NULL;
    bare.gelu = 0;
    stage_context.k = k;
    return tatvpr_op_gated_linear(&stage_context, &bare, x, t, NULL, y);
}}

TATVPR_API int tatvpr_stage_norm(int i, const float *x, int t, int dim, float *y) {{
    return tatvpr_op_layer_norm(&stage_context, stage_norms[i], x, t, dim, y);
}}

TATVPR_API int tatvpr_stage_gelu(const float *x, int count, float *y) {{
    return tatvpr_op_gelu(&stage_context, x, count, y);
}}

TATVPR_API int tatvpr_stage_attention(int i, const float *x, int t, float *y, float *a) {{
    return tatvpr_op_attention(&stage_context, stage_attentions[i], x, t, y, a);
}}

TATVPR_API int tatvpr_stage_keep(float tokens, const float *x, const float *a, int t, int dim,
                                 float *y, int32_t *kept) {{
    stage_context.tokens = tokens;
    return tatvpr_op_keep_tokens(&stage_context, x, a, t, dim, y, kept);
}}

TATVPR_API int tatvpr_stage_gem(const float *x, const float *weight, int t, int dim, float clamp,
                                float *y) {{
    return tatvpr_op_gem(&stage_context, x, weight, t, dim, clamp, y);
}}

TATVPR_API int tatvpr_stage_l2(const float *x, int dim, float eps, float *y) {{
    return tatvpr_op_l2_normalize(&stage_context, x, dim, eps, y);
}}
"""


class Stages:
    """The stages of one lowered model, by the names of its ONNX nodes."""

    def __init__(self, lowered: Lowered, folder: Path, kernels: str | None = None) -> None:
        self.lowered = lowered
        linears: dict[str, str] = {}
        norms: dict[str, str] = {}
        attentions: dict[str, str] = {}
        for name, step in lowered.matched.steps.items():
            key = STEP_PREFIX + name
            parts = {"": step} if isinstance(step, ir.GatedLinear) else {}
            if isinstance(step, ir.Mlp):
                parts = {"fc1": step.fc1, "fc2": step.fc2}
            for label, part in parts.items():
                linears[part.name] = f"&{key}.{label}" if label else f"&{key}"
                if part.norm is not None:
                    norms[part.norm.name] = f"&{key}_{label}_norm" if label else f"&{key}_norm"
            if isinstance(step, ir.LayerNorm):
                norms[step.name] = f"&{key}"
            if isinstance(step, ir.Attention):
                attentions[step.name] = f"&{key}"
        self._index = {n: i for t in (linears, norms, attentions) for i, n in enumerate(t)}
        self._attention = {s.name: s for s in lowered.steps if isinstance(s, ir.Attention)}
        self._widths = {g.name: g.linear.n_out for g in ir.gated_linears(lowered.steps)}
        model_c, shim, kernels_o = folder / "model.c", folder / "stages.c", folder / "kernels.o"
        model_c.write_text(lowered.model_c)
        shim.write_text(
            _SHIM.format(
                model_c=model_c,
                linears=", ".join(linears.values()),
                norms=", ".join(norms.values()),
                attentions=", ".join(attentions.values()),
            )
        )
        host = load("host")
        objects = [kernels_o] if lowered.kernels_object(llvm_target(host), kernels_o) else []
        build_library(host, shim, objects, folder / "stages.so")
        self._lib = ctypes.CDLL(str(folder / "stages.so"))
        name = kernels.encode() if kernels else None
        self._call("open", lowered.blob, ctypes.c_size_t(len(lowered.blob)), name)

    def _call(self, name: str, *args: object) -> None:
        values = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                assert arg.flags.c_contiguous
                values.append(ctypes.c_void_p(arg.ctypes.data))
            else:
                values.append(ctypes.c_float(arg) if isinstance(arg, float) else arg)
        status = getattr(self._lib, f"tatvpr_stage_{name}")(*values)
        assert status == 0, f"{name}: status {status}"

    def patch_embed(self, pixels: NDArray[np.uint8]) -> F32:
        """uint8 [S, S, 3] to [patches, D]."""
        step = next(s for s in self.lowered.steps if isinstance(s, ir.PatchEmbed))
        y = np.empty(((step.image_size // step.patch) ** 2, step.dim), np.float32)
        self._call("patch_embed", np.ascontiguousarray(pixels), y)
        return y

    def linear(self, name: str, x: F32, k: float) -> F32:
        """TopKGate and TernaryMatMul of [T, K]."""
        y = np.empty((x.shape[0], self._widths[name]), np.float32)
        self._call("linear", self._index[name], float(k), np.ascontiguousarray(x), x.shape[0], y)
        return y

    def norm(self, name: str, x: F32) -> F32:
        """LayerNorm of [T, D]."""
        y = np.empty_like(x)
        self._call("norm", self._index[name], np.ascontiguousarray(x), *x.shape, y)
        return y

    def gelu(self, x: F32) -> F32:
        """GELU, elementwise."""
        y = np.empty_like(x)
        self._call("gelu", np.ascontiguousarray(x), x.size, y)
        return y

    def attention(self, name: str, qkv: F32) -> tuple[F32, F32]:
        """[T, 3 D] to (Y, A)."""
        t = qkv.shape[0]
        y, a = np.empty((t, self._attention[name].dim), np.float32), np.empty(t, np.float32)
        self._call("attention", self._index[name], np.ascontiguousarray(qkv), t, y, a)
        return y, a

    def keep_tokens(self, x: F32, a: F32, tokens: float) -> F32:
        """[T, D] to the kept rows."""
        y, kept = np.empty_like(x), np.zeros(1, np.int32)
        self._call("keep", float(tokens), x, a, *x.shape, y, kept)
        return y[: kept[0]]

    def gem(self, x: F32, clamp: float, weight: F32 | None = None) -> F32:
        """[T, D], with weights [T, 1] if there are any, to [D]."""
        y = np.empty(x.shape[1], np.float32)
        shares = None if weight is None else np.ascontiguousarray(weight)
        self._call("gem", np.ascontiguousarray(x), shares, *x.shape, float(clamp), y)
        return y

    def l2_normalize(self, x: F32, eps: float) -> F32:
        """[D] to [D]."""
        y = np.empty_like(x)
        self._call("l2", np.ascontiguousarray(x), x.size, float(eps), y)
        return y

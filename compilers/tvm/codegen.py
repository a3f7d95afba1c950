"""A plan to the readable C of one model: descriptors of its steps, and ``run`` that calls them.

The same text serves every CPU; only the arena, the weights' layout and TVM's kernels differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

import tatvpr_edge
from tatvpr_edge.compilers import ir
from tatvpr_edge.compilers.match import Matched
from tatvpr_edge.compilers.packing import BlobWriter
from tatvpr_edge.compilers.tvm.plan import CoreCall, KernelCall, Place, Plan


def c_float(value: float) -> str:
    """A float32 as a C literal that reads back to the same bits."""
    single = np.float32(value)
    if not math.isfinite(single):
        raise ValueError(f"{value} has no C literal")
    text = repr(float(single)) if single == 0 else f"{single:.9g}"
    return f"{text if any(c in text for c in '.en') else text + '.0'}f"


def c_bytes(data: bytes, indent: str = "    ", columns: int = 16) -> str:
    """Bytes as the body of a C initialiser."""
    rows = [data[i : i + columns] for i in range(0, len(data), columns)]
    return "\n".join(indent + " ".join(f"0x{b:02x}," for b in row) for row in rows)


class ModelSource:
    """Writes ``model.c`` and fills the blob on the way."""

    def __init__(self, name: str, matched: Matched, plan: Plan, blob: BlobWriter) -> None:
        self.name = name
        self.matched = matched
        self.plan = plan
        self.blob = blob
        self.declarations: list[str] = []
        self.ternaries: list[str] = []
        self.linears: list[str] = []
        self.mlps: list[str] = []
        for key, step in matched.steps.items():
            self._declare(key, step)
        self.constants = [
            blob.add(f"constant.{i}", value) for i, value in enumerate(plan.constants)
        ]

    # ---- descriptors ------------------------------------------------------------------------

    def _declare(self, key: str, step: ir.Step) -> None:
        if isinstance(step, ir.PatchEmbed):
            self._struct(
                "patch_embed",
                key,
                [
                    f'.name = "{step.name}"',
                    f".image_size = {step.image_size}",
                    f".patch = {step.patch}",
                    f".dim = {step.dim}",
                    f".weight = {self.blob.add(step.name + '.weight', step.weights)}u",
                    f".scale = {self.blob.add(step.name + '.scale', step.scale)}u",
                    f".bias = {self.blob.add(step.name + '.bias', step.bias)}u",
                ],
            )
        elif isinstance(step, ir.GatedLinear):
            self._struct("gated_linear", key, self._linear(key, step))
            self.linears.append(f"&{key}")
            self.ternaries.append(f"&{key}.linear")
        elif isinstance(step, ir.Mlp):
            halves = []
            for label, half in (("fc1", step.fc1), ("fc2", step.fc2)):
                fields = ",\n        ".join(self._linear(f"{key}_{label}", half))
                halves.append(f".{label} = {{\n        {fields},\n    }}")
                self.ternaries.append(f"&{key}.{label}.linear")
            self._struct("mlp", key, [f'.name = "{step.name}"', *halves])
            self.mlps.append(f"&{key}")
        elif isinstance(step, ir.Attention):
            self._struct(
                "attention",
                key,
                [f'.name = "{step.name}"', f".heads = {step.heads}", f".dim = {step.dim}"],
            )
        elif isinstance(step, ir.LayerNorm):
            self._norm(key, step.norm)

    def _linear(self, key: str, step: ir.GatedLinear) -> list[str]:
        norm = "NULL"
        if step.norm is not None:
            self._norm(f"{key}_norm", step.norm)
            norm = f"&{key}_norm"
        gate, linear = step.gate, step.linear
        fixed = c_float(gate.fixed_k)
        ternary = [
            f".k_in = {linear.k_in}",
            f".n_out = {linear.n_out}",
            f".weight = {self.blob.add_ternary(linear.name + '.weight', linear.weights)}u",
            f".scale = {self.blob.add(linear.name + '.scale', linear.scale)}u",
            f".bias = {self.blob.add(linear.name + '.bias', linear.bias)}u",
            f".scale_per_row = {int(linear.scale.size > 1)}",
            f".layout = TATVPR_LAYOUT_{self.blob.layout_of(linear.weights).name}",
        ]
        return [
            f'.name = "{step.name}"',
            f".gelu = {int(step.gelu)}",
            f".norm = {norm}",
            f".gate = {{.group = {gate.group}, .scope = {gate.scope}, .fixed_k = {fixed}}}",
            f".linear = {{{', '.join(ternary)}}}",
        ]

    def _norm(self, key: str, norm: ir.Norm) -> None:
        fields = [
            f".gamma = {self.blob.add(norm.name + '.gamma', norm.gamma)}u",
            f".beta = {self.blob.add(norm.name + '.beta', norm.beta)}u",
            f".eps = {c_float(norm.eps)}",
        ]
        self.declarations.append(f"static const tatvpr_norm {key} = {{{', '.join(fields)}}};")

    def _struct(self, kind: str, key: str, fields: Iterable[str]) -> None:
        body = ",\n    ".join(fields)
        self.declarations.append(f"static const tatvpr_{kind} {key} = {{\n    {body},\n}};")

    # ---- run --------------------------------------------------------------------------------

    def _run(self) -> list[str]:
        lines = []
        last = self._last_block()
        rows: int | str
        for call in self.plan.calls:
            if isinstance(call, KernelCall):
                lines.append(self._kernel_call(call))
                continue
            step = self.matched.steps[call.step]
            text = self._core_call(call, step)
            # Steps that carry their name in their descriptor mark begin and end themselves.
            named = isinstance(step, ir.PatchEmbed | ir.GatedLinear | ir.Mlp | ir.Attention)
            lines.append(f"    CHECK({text});" if named else f'    STEP("{step.name}", {text});')
            if call is last:
                rows, dim = call.outputs[0].shape
                lines.append(
                    f"    CHECK(tatvpr_export_tokens(c, {self._pointer(call.outputs[0])}, "
                    f"{_count(rows)}, {dim}));"
                )
        return lines

    def _last_block(self) -> CoreCall | None:
        """The call whose result is the last block's tokens."""
        blocks = [
            call
            for call in self.plan.calls
            if isinstance(call, CoreCall)
            and (
                isinstance(step := self.matched.steps[call.step], ir.Mlp)
                or (isinstance(step, ir.GatedLinear) and step.residual)
            )
        ]
        return blocks[-1] if blocks else None

    def _core_call(self, call: CoreCall, step: ir.Step) -> str:
        args = [self._pointer(p) for p in call.inputs]
        outs = [self._pointer(p) for p in call.outputs]
        rows = _count(call.inputs[0].shape[0])
        key = call.step
        if isinstance(step, ir.PatchEmbed):
            return f"tatvpr_op_patch_embed(c, &{key}, {outs[0]})"
        if isinstance(step, ir.GatedLinear):
            x = _advance(args[0], step.first_row * step.linear.k_in)
            rows = _count(call.outputs[0].shape[0])
            residual = args[1] if step.residual else "NULL"
            return f"tatvpr_op_gated_linear(c, &{key}, {x}, {rows}, {residual}, {outs[0]})"
        if isinstance(step, ir.Mlp):
            return f"tatvpr_op_mlp(c, &{key}, {args[0]}, {rows}, {outs[0]})"
        if isinstance(step, ir.Attention):
            looked = outs[1] if len(outs) > 1 else "NULL"
            return f"tatvpr_op_attention(c, &{key}, {args[0]}, {rows}, {outs[0]}, {looked})"
        if isinstance(step, ir.KeepTokens):
            return (
                f"tatvpr_op_keep_tokens(c, {args[0]}, {args[1]}, {rows}, {step.dim}, "
                f"{outs[0]}, &{step.count})"
            )
        if isinstance(step, ir.LayerNorm):
            dim = call.inputs[0].shape[1]
            return f"tatvpr_op_layer_norm(c, &{key}, {args[0]}, {rows}, {dim}, {outs[0]})"
        if isinstance(step, ir.Gelu):
            count = " * ".join(_count(d) for d in call.inputs[0].shape)
            return f"tatvpr_op_gelu(c, {args[0]}, {count}, {outs[0]})"
        if isinstance(step, ir.Gem):
            dim = call.inputs[0].shape[1]
            x = _advance(args[0], step.first_row * int(dim))
            count = f"{rows} - {step.first_row}" if step.first_row else rows
            return f"tatvpr_op_gem(c, {x}, {count}, {dim}, {c_float(step.clamp)}, {outs[0]})"
        dim = call.inputs[0].shape[0]
        return f"tatvpr_op_l2_normalize(c, {args[0]}, {dim}, {c_float(step.eps)}, {outs[0]})"

    def _kernel_call(self, call: KernelCall) -> str:
        kernel = self.plan.kernels[call.kernel]
        args = [
            self._pointer(place, dtype)
            for place, dtype in zip(call.args, kernel.c_types, strict=True)
        ]
        base = self.plan.buffer_bytes
        args += [
            f"({kind} *)(void *)(c->arena + {base + offset})"
            for kind, offset in kernel.workspace_places
        ]
        args += list(kernel.symbols)
        return f'    KERNEL("{call.kernel}", {call.kernel}({", ".join(args)}));'

    def _pointer(self, place: Place, kind: str = "float") -> str:
        if place.kind == "arena":
            return (
                f"F32({place.offset})"
                if kind == "float"
                else (f"({kind} *)(void *)(c->arena + {place.offset})")
            )
        if place.kind == "output":
            return "c->descriptor"
        if place.kind == "input":
            return f"({kind} *)(uintptr_t)c->pixels"
        return f"({kind} *)(uintptr_t)tatvpr_tensor(c->model, {self.constants[place.index]}u)"

    # ---- the file ---------------------------------------------------------------------------

    def text(self, model_hash: bytes, blob_bytes: int) -> str:
        """The whole of ``model.c``."""
        m, plan = self.matched, self.plan
        run = self._run()
        prototypes = [kernel.prototype for kernel in plan.kernels.values()]
        uses_kernels = any(isinstance(call, KernelCall) for call in plan.calls)
        patch = next(k for k, s in m.steps.items() if isinstance(s, ir.PatchEmbed))
        attention = max(
            (k for k, s in m.steps.items() if isinstance(s, ir.Attention)),
            key=lambda k: m.steps[k].dim,  # type: ignore[union-attr]
        )
        keeps = [f"    int32_t {step.count} = {m.max_tokens};" for step in m.keeps]
        arena = ["#define F32(offset) ((float *)(void *)(c->arena + (offset)))"]
        kernel_macro = _KERNEL_MACRO if uses_kernels else ""
        tables = [
            _table("tatvpr_ternary", "ternaries", self.ternaries),
            _table("tatvpr_mlp", "mlps", self.mlps),
            _table("tatvpr_gated_linear", "linears", self.linears),
        ]
        parts = [
            _HEAD.format(
                version=tatvpr_edge.__version__,
                name=self.name,
                hash=model_hash.hex(),
                buffers=plan.buffer_bytes,
                workspace=plan.workspace_bytes,
                blob=blob_bytes,
            ),
            "\n".join(prototypes),
            "\n".join(self.declarations),
            "\n".join(tables),
            _STEP_MACROS + kernel_macro + "\n".join(arena),
            "\n".join(
                [
                    "static tatvpr_status run(tatvpr_context *c) {",
                    *keeps,
                    *run,
                    "    return TATVPR_OK;",
                    "}",
                ]
            ),
            _PROGRAM.format(
                name=self.name,
                hash=c_bytes(model_hash, indent=" " * 8),
                image=m.image_size,
                descriptor=m.descriptor_size,
                dim=m.token_dim,
                tokens=m.max_tokens,
                planned=plan.arena_bytes,
                layout=self.blob.layout.name,
                blob=blob_bytes,
                ternaries=len(self.ternaries),
                mlps=len(self.mlps),
                mlp_table="mlps" if self.mlps else "NULL",
                linears=len(self.linears),
                linear_table="linears" if self.linears else "NULL",
                patch=patch,
                attention=attention,
            ),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def _count(rows: int | str) -> str:
    return str(rows)


def _advance(pointer: str, elements: int) -> str:
    return f"{pointer} + {elements}" if elements else pointer


def _table(kind: str, name: str, items: list[str]) -> str:
    if not items:
        return ""
    body = ",\n    ".join(items)
    return f"static const {kind} *const {name}[] = {{\n    {body},\n}};"


_HEAD = """\
/* Generated by tatvpr-edge {version} from the model "{name}"; do not edit, build it again.
 *
 * Model hash {hash}.
 * Arena: {buffers} bytes of buffers as TVM planned them, {workspace} bytes of kernel workspaces.
 * Weights: {blob} bytes, named here by their offset in the blob.
 */
#include "tatvpr_ops.h\""""

_STEP_MACROS = """\
#define CHECK(call)                                \\
    do {                                           \\
        const tatvpr_status status_ = (call);      \\
        if (status_ != TATVPR_OK) return status_;  \\
    } while (0)

#define STEP(layer, call)                          \\
    do {                                           \\
        tatvpr_trace_layer(c, layer, 1);           \\
        const tatvpr_status status_ = (call);      \\
        tatvpr_trace_layer(c, layer, 0);           \\
        if (status_ != TATVPR_OK) return status_;  \\
    } while (0)

"""

_KERNEL_MACRO = """\
/* Kernels that TVM compiled: they cannot fail and answer 0. */
#define KERNEL(layer, call)                        \\
    do {                                           \\
        tatvpr_trace_layer(c, layer, 1);           \\
        (void)(call);                              \\
        tatvpr_trace_layer(c, layer, 0);           \\
    } while (0)

"""

_PROGRAM = """\
static const tatvpr_program program = {{
    .abi = TATVPR_ABI,
    .name = "{name}",
    .model_hash = {{
{hash}
    }},
    .image_size = {image},
    .descriptor_size = {descriptor},
    .token_dim = {dim},
    .max_tokens = {tokens},
    .planned_bytes = {planned},
    .layout = TATVPR_LAYOUT_{layout},
    .blob_bytes = {blob},
    .ternaries = ternaries,
    .ternary_count = {ternaries},
    .mlps = {mlp_table},
    .mlp_count = {mlps},
    .linears = {linear_table},
    .linear_count = {linears},
    .patch_embed = &{patch},
    .attention = &{attention},
    .run = run,
    .tile_tokens = 0, /* the core's own choice */
    .tables_apart = 0,
#if defined(TATVPR_CORE_ID)
    .core = &TATVPR_CORE_ID,
#endif
}};

const tatvpr_program *tatvpr_program_get(void) {{ return &program; }}"""

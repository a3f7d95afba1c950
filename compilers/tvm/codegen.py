"""A plan to the readable C of one model: descriptors of its steps, and ``run`` that calls them.

The same text serves every CPU; only the arena, the weights' layout and TVM's kernels differ.
"""

from __future__ import annotations

import tatvpr_edge
from tatvpr_edge.compilers.match import Matched
from tatvpr_edge.compilers.names import STEP_PREFIX
from tatvpr_edge.compilers.packing import BlobWriter
from tatvpr_edge.compilers.steps import Arguments
from tatvpr_edge.compilers.steps.c_text import Descriptors, c_bytes
from tatvpr_edge.compilers.tvm.plan import CoreCall, KernelCall, Place, Plan


class ModelSource:
    """Writes ``model.c`` and fills the blob on the way."""

    def __init__(self, name: str, matched: Matched, plan: Plan, blob: BlobWriter) -> None:
        self.name = name
        self.matched = matched
        self.plan = plan
        self.layout = blob.layout
        self.descriptors = Descriptors(blob)
        for key, step in matched.steps.items():
            step.declare(STEP_PREFIX + key, self.descriptors)
        self.constants = [blob.add(value) for value in plan.constants]

    # ---- run --------------------------------------------------------------------------------

    def _run(self) -> list[str]:
        lines = []
        last = self.matched.last_block
        for call in self.plan.calls:
            if isinstance(call, KernelCall):
                lines.append(self._kernel_call(call))
                continue
            step = self.matched.steps[call.step]
            text = step.call(STEP_PREFIX + call.step, self._arguments(call))
            named = step.traces_itself
            lines.append(f"    CHECK({text});" if named else f'    STEP("{step.name}", {text});')
            if last is not None and call.step == last.name:
                rows, dim = call.outputs[0].shape
                lines.append(
                    f"    CHECK(tatvpr_export_tokens(c, {self._pointer(call.outputs[0])}, "
                    f"{rows}, {dim}));"
                )
        return lines

    def _arguments(self, call: CoreCall) -> Arguments:
        return Arguments(
            inputs=tuple(map(self._pointer, call.inputs)),
            outputs=tuple(map(self._pointer, call.outputs)),
            input_shapes=tuple(place.shape for place in call.inputs),
            output_shapes=tuple(place.shape for place in call.outputs),
        )

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
        args += call.sizes
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
        m, plan, out = self.matched, self.plan, self.descriptors
        run = self._run()
        prototypes = [kernel.prototype for kernel in plan.kernels.values()]
        uses_kernels = any(isinstance(call, KernelCall) for call in plan.calls)
        keeps = [f"    int32_t {symbol} = {m.max_tokens};" for symbol in m.kept_counts]
        arena = ["#define F32(offset) ((float *)(void *)(c->arena + (offset)))"]
        kernel_macro = _KERNEL_MACRO if uses_kernels else ""
        tables = out.tables
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
            "\n".join(out.declarations),
            "\n".join(
                _table(kind, name, tables[name])
                for kind, name in (
                    ("tatvpr_ternary", "ternaries"),
                    ("tatvpr_mlp", "mlps"),
                    ("tatvpr_gated_linear", "linears"),
                )
            ),
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
                layout=self.layout.name,
                blob=blob_bytes,
                ternaries=len(tables["ternaries"]),
                mlps=len(tables["mlps"]),
                mlp_table="mlps" if tables["mlps"] else "NULL",
                linears=len(tables["linears"]),
                linear_table="linears" if tables["linears"] else "NULL",
                patch=out.player("patch_embed"),
                attention=out.player("attention"),
            ),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


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

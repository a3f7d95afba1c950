"""Second halves of blocks: two gated linears around a GELU become one step, which runs in tiles.

Called by :mod:`tatvpr_edge.compilers.match` once all single patterns are found.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

import onnx

from tatvpr_edge.compilers import ir
from tatvpr_edge.compilers.graph import KEPT

#: What code generators append to a step's identifier for the norms inside it.
NORM_SUFFIXES = ("_norm", "_fc1_norm", "_fc2_norm")
_KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while"
)
_OWN = "c run program ternaries mlps linears weights main NULL STEP CHECK KERNEL F32"
_RESERVED = frozenset([*_KEYWORDS.split(), *_OWN.split(), *KEPT])


def identifier(name: str) -> str:
    """``blocks.0.qkv`` -> ``blocks_0_qkv``: a C identifier."""
    text = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    return f"n{text}" if not text or text[0].isdigit() else text


def unique(name: str, taken: Collection[str]) -> str:
    """A C identifier made of ``name`` that neither ``taken`` nor generated code uses.

    Descriptors of norms are called like their step with a suffix, so those count as taken too.
    """
    base = identifier(name)
    used = {*_RESERVED, *taken, *(t + suffix for t in taken for suffix in NORM_SUFFIXES)}
    key, number = base, 2
    while key in used or any(key + suffix in used for suffix in NORM_SUFFIXES):
        key, number = f"{base}_{number}", number + 1
    return key


def merge_mlps(nodes: list[onnx.NodeProto], steps: dict[str, ir.Step]) -> list[onnx.NodeProto]:
    """Join x -> fc1 -> fc2 (+ x) where nothing else reads what lies between."""
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    made_by = {node.output[0]: node for node in nodes}
    dropped: set[str] = set()
    joined: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        fc2 = steps.get(node.name) if node.domain == ir.FUSED else None
        if not isinstance(fc2, ir.GatedLinear) or not (fc2.gelu and fc2.residual):
            continue
        first = made_by.get(node.input[0])
        fc1 = steps.get(first.name) if first is not None and first.domain == ir.FUSED else None
        if first is None or not isinstance(fc1, ir.GatedLinear):
            continue
        whole = not (fc1.first_row or fc2.first_row or fc1.rows or fc2.rows)
        own = readers[node.input[0]] == 1 and first.input[0] == node.input[1]
        if fc1.residual or fc1.gelu or not whole or not own:
            continue
        prefix, _, _ = fc1.name.rpartition(".")
        key = unique(f"{prefix}.mlp" if prefix else f"{fc1.name}.mlp", steps)
        steps[key] = ir.Mlp(f"{prefix}.mlp" if prefix else key, fc1, replace(fc2, residual=False))
        joined[node.name] = onnx.helper.make_node(
            "Mlp", [first.input[0]], list(node.output), name=key, domain=ir.FUSED, **{ir.STEP: key}
        )
        dropped.add(first.name)
    for name in (*dropped, *joined):
        del steps[name]
    result = [joined.get(n.name, n) for n in nodes if n.domain != ir.FUSED or n.name not in dropped]
    order = [n.name for n in result if n.domain == ir.FUSED and n.op_type != ir.FIRST_ROW]
    ordered = {name: steps[name] for name in order}
    steps.clear()
    steps.update(ordered)
    return result


def without_dead(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]

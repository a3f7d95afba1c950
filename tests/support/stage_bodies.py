"""A stage of the TensorRT route as ONNX Runtime runs it: the plugins' bodies put back."""

from __future__ import annotations

import onnx
from onnx import helper

from tatvpr_edge.spec.operators import DOMAIN, GATED_TERNARY_MAT_MUL, PLUGINS


def runnable(stage: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """``stage`` with the functions of ``original``, and the fused plugin as their composition."""
    model = onnx.ModelProto()
    model.CopyFrom(stage)
    model.functions.extend(original.functions)
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type in PLUGINS:
            kept = [a for a in node.attribute if not a.name.startswith("plugin_")]
            del node.attribute[:]
            node.attribute.extend(kept)
    operator = GATED_TERNARY_MAT_MUL
    gate = helper.make_node("TopKGate", ["X", "k"], ["Q", "S"], domain=DOMAIN)
    for name in ("group", "scope"):
        gate.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=name, type=2))
    matmul = helper.make_node(
        "TernaryMatMul", ["Q", "S", "W", "scale", "bias"], ["Y"], domain=DOMAIN
    )
    model.functions.append(
        helper.make_function(
            DOMAIN,
            operator.name,
            [i[0] for i in operator.inputs],
            [o[0] for o in operator.outputs],
            [gate, matmul],
            list(model.opset_import),
            list(operator.attributes),
        )
    )
    return model

"""The graph that TensorRT receives: no function bodies, our plugins, split at KeepTokens.

In: a checked :class:`~tatvpr_edge.compilers.graph.Graph`. Out: one to three ONNX files, *stages*.
On the device PatchEmbed and KeepTokens are launches of our own kernels between the engines: the
uint8 frame never enters TensorRT, and the number of kept tokens, which the host knows from the
dial, becomes an ordinary dynamic dimension instead of a data-dependent shape.

``patches`` -> stage "front" -> tokens, attention -> KeepTokens -> ``kept`` -> stage "back"
-> descriptor; a second KeepTokens adds a stage "middle", from ``kept`` to ``kept``. A constant
table whose rows leave with the tokens goes beside them, as ``kept_table``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tatvpr_edge.compilers.checks import K
from tatvpr_edge.compilers.graph import KEPT, Graph, attribute, label
from tatvpr_edge.compilers.steps.gated_linear import is_exact_gelu
from tatvpr_edge.runtime.backends.tensorrt.recipe import STAGES
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN, GATED_TERNARY_MAT_MUL, PLUGINS, VERSION

#: Inputs of stages, called as no value of a user's own head is.
PATCHES = f"{DOMAIN}.patches"
KEPT_TOKENS = f"{DOMAIN}.kept"
KEPT_TABLE = f"{DOMAIN}.kept_table"
# TensorRT 10.3 reads IR 10 and opsets up to 20.
IR_VERSION = 10


@dataclass(frozen=True)
class Stage:
    """One engine's graph; ``dynamic`` names the input whose first axis is a token count, ``table``
    the one that holds what is left of the pipeline's table."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: str | None = None
    table: str | None = None


@dataclass(frozen=True)
class Pipeline:
    """The stages and the constants of the launches between them.

    ``table``: float32 [max_tokens, 1], whose rows leave with the tokens; None without one.
    """

    stages: tuple[Stage, ...]
    patch_weight: NDArray[np.int8]
    patch_scale: NDArray[np.float32]
    patch_bias: NDArray[np.float32]
    image_size: int
    max_tokens: int
    table: NDArray[np.float32] | None = None

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return round((self.patch_weight.shape[1] // 3) ** 0.5)


def build_pipeline(graph: Graph) -> Pipeline:
    """Split and rewrite ``graph``, which passed :func:`compilers.checks.checked_graph`.

    Raises:
        ModelError: the graph is not of the form that the TensorRT route lowers; the node is named.
    """
    (embed,) = (n for n in graph.nodes if n.op_type == "PatchEmbed" and n.domain == DOMAIN)
    every = [n for n in graph.nodes if n.op_type == "KeepTokens" and n.domain == DOMAIN]
    tables = _of_a_table(graph, every)
    keeps = [n for n in every if n.output[0] not in tables]
    weight, scale, bias = (graph.constants[name] for name in embed.input[1:4])
    side = graph.inputs[embed.input[0]].shape[0]
    patches, dim = graph.types[embed.output[0]].shape
    assert isinstance(side, int) and isinstance(patches, int) and isinstance(dim, int)
    if round((weight.shape[1] // 3) ** 0.5) % 2:
        raise ModelError(
            f"{label(embed)}: patches of odd size are not lowered to TensorRT; "
            "build with --backend tvm"
        )
    nodes = _fuse(graph)
    source: dict[str, tuple[str, list[Any]]] = {embed.output[0]: (PATCHES, [patches, dim])}
    stages = []
    max_tokens = patches + 1
    for number, keep in enumerate(keeps):
        if number == 0:
            tokens = graph.types[keep.input[0]].shape[0]
            assert isinstance(tokens, int)  # compilers.checks has seen to it
            max_tokens = tokens
        if graph.types[keep.input[0]].width != dim:
            raise ModelError(
                f"{label(keep)}: its tokens are {graph.types[keep.input[0]].width} wide, those of "
                f"{label(embed)} {dim}, which is not lowered to TensorRT: build with --backend tvm"
            )
        name = STAGES[len(keeps)][number]
        stages.append(_stage(name, graph, nodes, source, list(keep.input[:2])))
        source = {keep.output[0]: (KEPT_TOKENS, list(graph.types[keep.output[0]].shape))}
        for beside in every:
            if beside.output[0] in tables and beside.input[1] == keep.input[1]:
                kept = list(graph.types[beside.output[0]].shape)
                source[beside.output[0]] = (KEPT_TABLE, kept)
    stages.append(_stage(STAGES[len(keeps)][-1], graph, nodes, source, list(graph.outputs[:1])))
    table = next((graph.constants[name] for name in tables.values()), None)
    return Pipeline(tuple(stages), weight, scale, bias, side, max_tokens, table)


def _of_a_table(graph: Graph, keeps: list[onnx.NodeProto]) -> dict[str, str]:
    """What KeepTokens leave of a constant, by value: the constant's name.

    Raises:
        ModelError: rows of more than one constant, or of several columns, leave with the tokens.
    """
    found: dict[str, str] = {}
    for node in keeps:
        origin = graph.kept_constant(node.output[0])
        if origin is None:
            continue
        found[node.output[0]] = origin
        if len(set(found.values())) > 1 or graph.types[origin].width != 1:
            raise ModelError(
                f"{label(node)}: the TensorRT route takes one constant of one column along through "
                "KeepTokens: build with --backend tvm"
            )
    return found


def _fuse(graph: Graph) -> list[onnx.NodeProto]:
    """TopKGate -> TernaryMatMul become one plugin node; GELU is spelled with Erf."""
    gates = {
        node.output[0]: node
        for node in graph.nodes
        if node.domain == DOMAIN and node.op_type == "TopKGate"
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.domain == DOMAIN and node.op_type == "TopKGate":
            users = [n for n in graph.nodes if node.output[0] in n.input]
            if any(u.op_type != "TernaryMatMul" or u.domain != DOMAIN for u in users):
                raise ModelError(f"{label(node)} feeds more than ternary matmuls: not lowered")
        elif node.domain == DOMAIN and node.op_type == "TernaryMatMul":
            nodes.append(_gated(node, gates[node.input[0]]))
        elif node.domain == DOMAIN and node.op_type in PLUGINS:
            nodes.append(_named(node))
        elif node.op_type == "Gelu":
            nodes.extend(_spelled_gelu(node, len(graph.types[node.input[0]].shape)))
        elif node.op_type == "LpNormalization":
            nodes.extend(_spelled_l2(node))
        else:
            nodes.append(node)
    return nodes


def _gated(node: onnx.NodeProto, gate: onnx.NodeProto) -> onnx.NodeProto:
    operator = GATED_TERNARY_MAT_MUL
    attributes = {n: attribute(gate, n, default) for n, default in operator.attributes.items()}
    fused = helper.make_node(
        operator.name,
        [gate.input[0], gate.input[1], *node.input[2:5]],
        [node.output[0]],
        name=node.name,
        domain=DOMAIN,
        **attributes,
    )
    return _named(fused)


def _named(node: onnx.NodeProto) -> onnx.NodeProto:
    """``node`` with the attributes by which TensorRT's parser looks its plugin up."""
    operator = PLUGINS[node.op_type]
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(helper.make_attribute("plugin_version", operator.tensorrt_version))
    copy.attribute.append(helper.make_attribute("plugin_namespace", operator.tensorrt_namespace))
    return copy


def _float_constant(name: str, value: float, rank: int) -> onnx.NodeProto:
    array = np.full((1,) * rank, value, dtype=np.float32)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _spelled_gelu(node: onnx.NodeProto, rank: int) -> list[onnx.NodeProto]:
    if not is_exact_gelu(node):
        raise ModelError(
            f"{label(node)} is an approximate GELU, which is not lowered to TensorRT: build with "
            "--backend tvm"
        )
    x, y = node.input[0], node.output[0]
    n = f"{y}.gelu"
    return [
        _float_constant(f"{n}.root", 0.70710678, rank),
        _float_constant(f"{n}.one", 1.0, rank),
        _float_constant(f"{n}.half", 0.5, rank),
        helper.make_node("Mul", [x, f"{n}.root"], [f"{n}.scaled"]),
        helper.make_node("Erf", [f"{n}.scaled"], [f"{n}.erf"]),
        helper.make_node("Add", [f"{n}.erf", f"{n}.one"], [f"{n}.sum"]),
        helper.make_node("Mul", [x, f"{n}.half"], [f"{n}.halved"]),
        helper.make_node("Mul", [f"{n}.halved", f"{n}.sum"], [y]),
    ]


def _spelled_l2(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    x, y = node.input[0], node.output[0]
    n = f"{y}.l2"
    axes = np.array([attribute(node, "axis", -1)], dtype=np.int64)
    return [
        helper.make_node("Constant", [], [f"{n}.axes"], value=numpy_helper.from_array(axes)),
        _float_constant(f"{n}.eps", 1e-12, 1),
        helper.make_node("ReduceL2", [x, f"{n}.axes"], [f"{n}.length"], keepdims=1),
        helper.make_node("Max", [f"{n}.length", f"{n}.eps"], [f"{n}.safe"]),
        helper.make_node("Div", [x, f"{n}.safe"], [y]),
    ]


def _stage(
    name: str,
    graph: Graph,
    nodes: list[onnx.NodeProto],
    source: dict[str, tuple[str, list[Any]]],
    outputs: list[str],
) -> Stage:
    """The part of ``nodes`` between ``source`` (value -> input name, shape) and ``outputs``."""
    wanted = set(outputs)
    picked: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if any(o in wanted for o in node.output) and not any(o in source for o in node.output):
            picked.append(node)
            wanted.update(i for i in node.input if i)
    picked.reverse()
    for node in picked:  # launches of ours between the stages
        if node.domain == DOMAIN and node.op_type in ("PatchEmbed", "KeepTokens"):
            raise ModelError(
                f"{label(node)}: what it makes is read behind a KeepTokens, not only through it, "
                "which is not lowered to TensorRT: build with --backend tvm"
            )
    renamed = []
    for node in picked:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, value in enumerate(copy.input):
            if value in source:
                copy.input[i] = source[value][0]
        renamed.append(copy)
    # Plugins always have all their outputs: a dangling one keeps its name and is pruned.
    used = {i for node in renamed for i in node.input}
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(value), key)
        for key, value in graph.constants.items()
        if key in used
    ]
    inputs = [
        helper.make_tensor_value_info(entry, TensorProto.FLOAT, shape)
        for value, (entry, shape) in source.items()
        if entry in used
    ]
    rows = [entry for entry, shape in source.values() if shape[0] in KEPT]
    dynamic = KEPT_TOKENS if KEPT_TOKENS in rows else None
    table = KEPT_TABLE if KEPT_TABLE in rows and KEPT_TABLE in used else None
    if K in used:
        inputs.append(helper.make_tensor_value_info(K, TensorProto.FLOAT, []))
    results = [
        helper.make_tensor_value_info(o, TensorProto.FLOAT, list(graph.types[o].shape))
        for o in outputs
    ]
    proto = helper.make_graph(renamed, f"{graph.name}.{name}", inputs, results, initializers)
    model = helper.make_model(
        proto,
        opset_imports=[
            helper.make_opsetid("", graph.opset),
            helper.make_opsetid(DOMAIN, VERSION),
        ],
        ir_version=IR_VERSION,
        producer_name="tatvpr-edge",
    )
    return Stage(name, model, tuple(i.name for i in inputs), tuple(outputs), dynamic, table)

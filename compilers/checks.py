"""What a model file must be before it is lowered; every refusal names the thing and the remedy.

``checked_graph(path)`` is the only way into the compilers: ONNX file -> :class:`Graph` with types,
with one output, the descriptor. A file that passes needs no further checks downstream.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable

import numpy as np
import onnx

from tatvpr_edge.compilers.graph import KEPT, STANDARD_DOMAINS, Graph, Type, attribute, label
from tatvpr_edge.compilers.loading import EXPORT_AGAIN, load_model
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import BODY_SHA256, DOMAIN, OPERATORS, OPSET, VERSION
from tatvpr_edge.spec.packing import unpack_ternary

FRAME, K, TOKENS = "frame", "k", "tokens"
DESCRIPTOR = "descriptor"
#: A second output that exporters may add for comparisons; lowering leaves it out.
TOKENS_OUT = "tokens_out"
MAX_SIDE_PX = 4096
MAX_DIM = 65536


def checked_graph(path: str | os.PathLike[str]) -> Graph:
    """The graph of the ONNX file at ``path``, proven fit for lowering.

    Raises:
        ModelError: whatever is wrong with the file, in one line.
    """
    model = load_model(path)
    check_versions(model)
    check_bodies(model)
    return check_model(model)


def check_model(model: onnx.ModelProto) -> Graph:
    """The typed graph of a model in memory; like :func:`checked_graph` but for its bodies."""
    check_structure(model)
    graph = Graph.from_model(model)
    check_operators(graph)
    check_interface(graph)
    check_finite(graph)
    check_constants_of_ours(graph)
    graph.infer_types(check=_check_node)
    check_descriptor(graph)
    return graph


def check_versions(model: onnx.ModelProto) -> None:
    """The file format, the opset and our domain are of versions that we know."""
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"the ONNX file is of format {model.ir_version}, newer than {onnx.IR_VERSION}: "
            "install a newer onnx package or export with an older one"
        )
    versions = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    if "" not in versions or DOMAIN not in versions:
        maker = " ".join(f"{model.producer_name} {model.producer_version}".split())[:60]
        wrote = f" that {maker!r} wrote" if maker else ""
        raise ModelError(
            f"the ONNX file uses no operators of {DOMAIN}: it is not a ternary place model, but "
            f"another network{wrote}; train one of ours with it as a teacher (docs/training.md)"
        )
    for domain, version in versions.items():
        if domain == "":
            if version != OPSET:
                raise ModelError(
                    f"the ONNX file is of opset {version}, the bodies of {DOMAIN} in it are of "
                    f"{OPSET}, and ONNX takes no mixture: export it with opset {OPSET}"
                )
        elif domain == DOMAIN and version != VERSION:
            raise ModelError(
                f"the ONNX file uses version {version} of {DOMAIN}, this release computes "
                f"version {VERSION}: "
                + (EXPORT_AGAIN if version < VERSION else "update tatvpr-edge")
            )


def check_bodies(model: onnx.ModelProto) -> None:
    """Every operator of ours that the graph uses has its body in the file, as we write it.

    No other function is there: ONNX Runtime would compute it where we compute our operator or a
    standard one, and the model hash does not see bodies.
    """
    present = {(f.domain, f.name) for f in model.functions}
    for node in model.graph.node:
        if node.domain == DOMAIN and (DOMAIN, node.op_type) not in present:
            if node.op_type not in OPERATORS:
                continue  # check_operators says it better
            raise ModelError(
                f"the ONNX file lacks the function body of {DOMAIN} {node.op_type}, "
                f"so ONNX Runtime cannot run it as the reference: {EXPORT_AGAIN}"
            )
    for function in model.functions:
        if function.domain != DOMAIN or function.name not in OPERATORS:
            raise ModelError(
                f"the ONNX file defines a function {function.name!r} of domain "
                f"{function.domain!r}, which is not lowered: {EXPORT_AGAIN}"
            )
        digest = hashlib.sha256(function.SerializeToString(deterministic=True)).hexdigest()
        if digest not in BODY_SHA256[function.name]:
            raise ModelError(
                f"the function body of {DOMAIN} {function.name} in the ONNX file is not the one "
                f"of version {VERSION}: {EXPORT_AGAIN}"
            )


def check_structure(model: onnx.ModelProto) -> None:
    """Standard ONNX validity: order, unique names, attributes of known kinds."""
    if model.graph.sparse_initializer:
        raise ModelError("the ONNX file has sparse initialisers, which are not lowered")
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.HasField("g") or entry.graphs:
                raise ModelError(f"{label(node)} has a subgraph, which is not lowered")
            if entry.ref_attr_name:
                raise ModelError(f"{label(node)} refers to an attribute outside of a function")
    for node in model.graph.node:
        if node.domain not in (*STANDARD_DOMAINS, DOMAIN):
            raise ModelError(
                f"{label(node)} is of the unknown operator domain {node.domain!r}: "
                f"only standard ONNX and {DOMAIN} are lowered"
            )
        if node.op_type == "Einsum":
            _check_equation(node)
        if node.domain == DOMAIN and node.op_type not in OPERATORS:
            raise ModelError(
                f"{label(node)}: {DOMAIN} has no operator of that name; "
                f"it has {', '.join(OPERATORS)}"
            )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        line = " ".join(str(error).split())
        raise ModelError(f"the ONNX file is not valid: {line[:300]}") from error


#: Letters and at most one ellipsis for each operand; ONNX's shape inference never ends on others.
_TERM = rb"[A-Za-z ]*(?:\.\.\.)?[A-Za-z ]*"
_EQUATION = re.compile(rb"%s(?:,%s)*(?:->%s)?" % (_TERM, _TERM, _TERM))


def _check_equation(node: onnx.NodeProto) -> None:
    for entry in node.attribute:
        if entry.name == "equation" and not _EQUATION.fullmatch(entry.s):
            raise ModelError(f"{label(node)} has the equation {entry.s[:80]!r}, which is none")


def check_operators(graph: Graph) -> None:
    """Every node is of a known operator with the inputs and attributes of its table row."""
    for node in graph.nodes:
        if node.domain in STANDARD_DOMAINS:
            if not onnx.defs.has(node.op_type, graph.opset, ""):
                raise ModelError(f"{label(node)}: ONNX opset {graph.opset} has no such operator")
            continue
        operator = OPERATORS[node.op_type]
        if len(node.input) != len(operator.inputs) or "" in node.input:
            wanted = ", ".join(name for name, _, _ in operator.inputs)
            raise ModelError(f"{label(node)} has {len(node.input)} inputs; it takes {wanted}")
        if not 1 <= len(node.output) <= len(operator.outputs):
            raise ModelError(f"{label(node)} has {len(node.output)} outputs")
        present = {entry.name for entry in node.attribute}
        for entry in node.attribute:
            if entry.name not in operator.attributes:
                raise ModelError(f"{label(node)} has an unknown attribute {entry.name!r}")
            if entry.type != onnx.AttributeProto.INT:
                raise ModelError(f"{label(node)}: its {entry.name} is not one whole number")
        for name, default in operator.attributes.items():
            if default is None and name not in present:
                raise ModelError(f"{label(node)} lacks its attribute {name!r}")


def check_interface(graph: Graph) -> None:
    """Inputs are frame, k and tokens as the contract says; one output is the descriptor."""
    remedy = "a model takes frame uint8 [S, S, 3], k float32 [] and tokens float32 []"
    if set(graph.inputs) != {FRAME, K, TOKENS}:
        raise ModelError(f"the model's inputs are {', '.join(graph.inputs) or 'none'}: {remedy}")
    frame = graph.inputs[FRAME]
    square = (
        len(frame.shape) == 3
        and isinstance(frame.shape[0], int)
        and 0 < frame.shape[0] <= MAX_SIDE_PX
        and frame.shape[0] == frame.shape[1]
        and frame.shape[2] == 3
    )
    if frame.dtype != np.uint8 or not square:
        raise ModelError(f"input 'frame' is {frame.dtype} {list(frame.shape)}: {remedy}")
    for name in (K, TOKENS):
        value = graph.inputs[name]
        if value.dtype != np.float32 or value.shape != ():
            raise ModelError(f"input {name!r} is {value.dtype} {list(value.shape)}: {remedy}")
    if DESCRIPTOR not in graph.outputs or set(graph.outputs) - {DESCRIPTOR, TOKENS_OUT}:
        raise ModelError(
            f"the model's outputs are {', '.join(graph.outputs)}: it must have one, 'descriptor'"
        )
    graph.keep_only([DESCRIPTOR])
    graph.fold_shape(FRAME)
    _check_frame_readers(graph)


def _check_frame_readers(graph: Graph) -> None:
    """One PatchEmbed reads the frame, and nothing else: its pixels lie where later steps work."""
    readers = graph.consumers().get(FRAME, [])
    embeds = [n for n in graph.nodes if n.op_type == "PatchEmbed" and n.domain == DOMAIN]
    if not readers or not embeds:
        raise ModelError("the descriptor does not depend on the frame through PatchEmbed")
    others = [node for node in readers if node is not embeds[0]]
    if others:
        raise ModelError(
            f"{label(others[0])} reads the frame, too, which is not lowered: {label(embeds[0])} "
            "alone may, and the rest of the model reads its tokens"
        )


def check_finite(graph: Graph) -> None:
    """No weight is NaN or infinite, nor is a number among a node's attributes."""
    for name, value in graph.constants.items():
        # NumPy's own kinds of floats, and "V": bfloat16 and smaller ones, which are cast later.
        if value.dtype.kind in "fV" and not np.isfinite(value.astype(np.float64)).all():
            raise ModelError(
                f"weight {name!r} has a NaN or infinite value: the training went wrong"
            )
    for node in graph.nodes:
        for entry in node.attribute:
            if not np.isfinite([entry.f, *entry.floats]).all():
                raise ModelError(f"{label(node)}: its {entry.name} is NaN or infinite")


def check_constants_of_ours(graph: Graph) -> None:
    """Weights of our operators are constants of the types that the operator table states."""
    produced = set(graph.producers())
    for node in graph.nodes:
        if node.domain != DOMAIN:
            continue
        for (name, dtype, _), value in zip(OPERATORS[node.op_type].inputs, node.input, strict=True):
            if name in ("W", "scale", "bias"):
                if value not in graph.constants:
                    raise ModelError(f"{label(node)}: its {name} is not a constant of the file")
                found = graph.constants[value].dtype
                if found != np.dtype(dtype):
                    raise ModelError(f"{label(node)}: its {name} is {found}, not {dtype}")
            elif value not in produced and value not in graph.inputs | graph.constants:
                raise ModelError(f"{label(node)} reads {value!r}, which nothing makes")


def check_descriptor(graph: Graph) -> None:
    """The descriptor is a float32 vector of known length."""
    value = graph.types[DESCRIPTOR]
    if value.dtype != np.float32 or len(value.shape) != 1 or not isinstance(value.shape[0], int):
        raise ModelError(
            f"output 'descriptor' is {value.dtype} {list(value.shape)}: it must be float32 [D]"
        )
    if not 1 <= value.shape[0] <= MAX_DIM:
        raise ModelError(f"output 'descriptor' has {value.shape[0]} elements: 1 to {MAX_DIM}")


def _check_node(graph: Graph, node: onnx.NodeProto) -> None:
    if node.domain == DOMAIN:
        _CHECKS[node.op_type](graph, node)
    elif node.op_type == "LayerNormalization":
        _check_norm(graph, node)


def _check_norm(graph: Graph, node: onnx.NodeProto) -> None:
    """TVM takes weights of the shape that is normalised, and says of others no node's name."""
    x = graph.types[node.input[0]].shape
    wanted = tuple(x[attribute(node, "axis", -1) :])
    for what, name in zip(("Scale", "B"), node.input[1:], strict=False):
        if name and graph.types[name].shape != wanted:
            raise ModelError(
                f"{label(node)}: {what} {name!r} has shape {list(graph.types[name].shape)}, "
                f"not {list(wanted)}"
            )


def _float_input(graph: Graph, node: onnx.NodeProto, index: int, rank: int) -> Type:
    value = graph.types[node.input[index]]
    if value.dtype != np.float32 or len(value.shape) != rank:
        raise ModelError(f"{label(node)}: {node.input[index]!r} must be float32 of rank {rank}")
    if 0 in value.shape:
        raise ModelError(f"{label(node)}: {node.input[index]!r} is empty: {list(value.shape)}")
    if rank == 2 and not isinstance(value.shape[1], int):
        raise ModelError(
            f"{label(node)}: {node.input[index]!r} has {value.shape[1]} columns, a number that is "
            "known at run time only"
        )
    return value


def _check_scale(graph: Graph, node: onnx.NodeProto, name: str, lengths: tuple[int, ...]) -> None:
    scale = graph.constants[name]
    if scale.shape not in [(n,) for n in lengths]:
        raise ModelError(f"{label(node)}: scale {name!r} has shape {list(scale.shape)}")
    if not (scale > 0).all():
        raise ModelError(f"{label(node)}: scale {name!r} has a value that is not above zero")


def _check_bias(graph: Graph, node: onnx.NodeProto, name: str, length: int) -> None:
    if graph.constants[name].shape != (length,):
        raise ModelError(
            f"{label(node)}: bias {name!r} has shape {list(graph.constants[name].shape)}, "
            f"not [{length}]"
        )


def _check_patch_embed(graph: Graph, node: onnx.NodeProto) -> None:
    if node.input[0] != FRAME:
        raise ModelError(f"{label(node)} reads {node.input[0]!r}: it must read the frame itself")
    weight = graph.constants[node.input[1]]
    if weight.ndim != 2 or not weight.size:
        raise ModelError(f"{label(node)}: W has shape {list(weight.shape)}, not [D, P*P*3]")
    patch = round((weight.shape[1] // 3) ** 0.5)
    side = graph.inputs[FRAME].shape[0]
    assert isinstance(side, int)
    if patch < 1 or patch * patch * 3 != weight.shape[1] or side % patch:
        raise ModelError(
            f"{label(node)}: {weight.shape[1]} values a patch do not tile a {side}-pixel square"
        )
    if weight.shape[1] * 128 * 128 >= 2**31:
        raise ModelError(f"{label(node)}: sums over patches of {patch} pixels pass 32 bits")
    _check_scale(graph, node, node.input[2], (weight.shape[0],))
    _check_bias(graph, node, node.input[3], weight.shape[0])


def _check_gate(graph: Graph, node: onnx.NodeProto) -> None:
    x = _float_input(graph, node, 0, 2)
    group, scope = attribute(node, "group", 1), attribute(node, "scope", 0)
    if group < 1 or x.width % group:
        raise ModelError(f"{label(node)}: group {group} does not divide its {x.width} channels")
    if scope not in (0, 1):
        raise ModelError(f"{label(node)}: scope is {scope}; it is 0 (token) or 1 (image)")
    k = node.input[1]
    if k in graph.constants:
        value = graph.constants[k]
        if value.shape != () or not 0.0 < float(value) <= 1.0:
            raise ModelError(f"{label(node)}: its constant k must be one number in (0, 1]")
    elif k != K:
        raise ModelError(f"{label(node)}: its k is {k!r}: it must be the input 'k' or a constant")


def _check_ternary(graph: Graph, node: onnx.NodeProto) -> None:
    gate = graph.producers().get(node.input[0])
    gated = gate is not None and gate.op_type == "TopKGate" and gate.domain == DOMAIN
    if not gated or list(gate.output[:2]) != list(node.input[:2]):  # type: ignore[union-attr]
        raise ModelError(f"{label(node)}: its Q and S must be the two outputs of one TopKGate")
    q, scales = (graph.consumers()[name] for name in node.input[:2])
    others = [n for n in q if n is not node] or [n for n in scales if n.op_type != node.op_type]
    if others:  # a gate is worked off with its product
        raise ModelError(
            f"{label(node)}: its gate serves {label(others[0])} as well: give each a TopKGate of "
            "its own, with the same inputs"
        )
    weight = graph.constants[node.input[2]]
    if weight.ndim != 2 or not weight.size:
        raise ModelError(f"{label(node)}: W has shape {list(weight.shape)}, not [N, ceil(K/4)]")
    unpack_ternary(weight, graph.types[node.input[0]].width, f"{label(node)}: {node.input[2]}")
    _check_scale(graph, node, node.input[3], (1, weight.shape[0]))
    _check_bias(graph, node, node.input[4], weight.shape[0])


def _check_attention(graph: Graph, node: onnx.NodeProto) -> None:
    heads, qkv = attribute(node, "heads"), _float_input(graph, node, 0, 2)
    if heads < 1 or qkv.width % (3 * heads):
        raise ModelError(f"{label(node)}: {qkv.width} columns are not Q, K, V of {heads} heads")


def _check_keep_tokens(graph: Graph, node: onnx.NodeProto) -> None:
    x, looked = _float_input(graph, node, 0, 2), _float_input(graph, node, 1, 1)
    count = x.shape[0]
    known = count in KEPT or (isinstance(count, int) and count >= 2)
    if count != looked.shape[0] or not known:
        raise ModelError(f"{label(node)}: X and A must be of the same, known number of tokens")
    if node.input[2] != TOKENS:
        raise ModelError(f"{label(node)}: its fraction must be the input 'tokens'")
    every = [n for n in graph.nodes if n.op_type == "KeepTokens" and n.domain == DOMAIN]
    drops = [n for n in every if graph.kept_constant(n.input[0]) is None]
    if graph.kept_constant(node.input[0]) is not None:
        # A constant with a row for each token loses those of the tokens that the same A drops.
        if not any(n.input[1] == node.input[1] for n in drops):
            raise ModelError(f"{label(node)}: there is no KeepTokens of tokens with its A")
        return
    taken = {graph.types[n.output[0]].shape[0] for n in drops if n.output[0] in graph.types}
    if count == KEPT[1] or KEPT[count == KEPT[0]] in taken:
        raise ModelError(f"{label(node)}: KeepTokens may stand twice, one after the other, no more")


_CHECKS: dict[str, Callable[[Graph, onnx.NodeProto], None]] = {
    "PatchEmbed": _check_patch_embed,
    "TopKGate": _check_gate,
    "TernaryMatMul": _check_ternary,
    "QuantAttention": _check_attention,
    "KeepTokens": _check_keep_tokens,
}
assert set(_CHECKS) == set(OPERATORS)

"""The model hash: which network this is, whatever file, library or board it travels in.

Every value gets a digest made of what computes it (operator, attributes, digests of its inputs),
down to the bytes of the weights; the model hash is made of the descriptor's digest alone. So
neither names, nor the order of nodes, nor metadata, nor function bodies, nor unused parts take
part, and builds of one model for CPU, GPU and microcontroller share maps.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tatvpr_edge.compilers.graph import Graph, Type, label
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN, VERSION

_DOMAIN_TAG = b"tatvpr-edge model 1"


def model_hash(graph: Graph) -> bytes:
    """SHA-256 (32 bytes) of the canonical graph and weights.

    Raises:
        ModelError: an attribute of a kind that no lowered operator has (a subgraph).
    """
    digests: dict[str, bytes] = {}
    for name, value in graph.inputs.items():
        digests[name] = _digest(b"input", name.encode(), _type_text(value))
    for name, array in graph.constants.items():
        digests[name] = _constant_digest(array)
    for node in graph.nodes:
        own = _node_digest(node, graph.opset, digests)
        for index, name in enumerate(node.output):
            digests[name] = _digest(b"output", own, str(index).encode())
    return _digest(_DOMAIN_TAG, *(digests[name] for name in graph.outputs))


def _digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts, each preceded by its length, so that no two lists collide."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _constant_digest(array: NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    kind = Type(array.dtype, array.shape)
    return _digest(b"constant", _type_text(kind), little.tobytes())


def _type_text(value: Type) -> bytes:
    return f"{value.dtype.name}{list(value.shape)}".encode()


def _node_digest(node: onnx.NodeProto, opset: int, digests: dict[str, bytes]) -> bytes:
    if node.domain == DOMAIN:
        operator = f"{DOMAIN}:{node.op_type}:{VERSION}"
    else:
        since = onnx.defs.get_schema(node.op_type, opset, "").since_version
        operator = f":{node.op_type}:{since}"
    attributes = sorted(_attribute_text(node, entry) for entry in node.attribute)
    inputs = [digests[name] if name else b"" for name in node.input]
    return _digest(b"node", operator.encode(), str(len(attributes)).encode(), *attributes, *inputs)


def _attribute_text(node: onnx.NodeProto, entry: onnx.AttributeProto) -> bytes:
    value = onnx.helper.get_attribute_value(entry)
    if isinstance(value, onnx.TensorProto):
        content = _constant_digest(onnx.numpy_helper.to_array(value))
    elif isinstance(value, bytes):
        content = value
    elif isinstance(value, float):
        content = np.float32(value).tobytes()
    elif isinstance(value, int):
        content = str(value).encode()
    elif entry.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        content = repr([float(v) for v in value]).encode()
    elif entry.type == onnx.AttributeProto.STRINGS:
        content = _digest(*value)
    else:
        raise ModelError(
            f"{label(node)}: attribute {entry.name!r} is of a kind that is not lowered"
        )
    return _digest(entry.name.encode(), str(entry.type).encode(), content)

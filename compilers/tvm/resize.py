"""Resize as products with matrices: TVM rounds its scales to sizes and drops the rest.

Every mode but tf_crop_and_resize is linear in its input and treats each axis by itself, so that
resizing an axis is one matrix. It is not derived here a second time: ONNX Runtime resizes the unit
vectors, with the node's own attributes and scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tatvpr_edge.compilers.graph import Graph, Type, attribute, label
from tatvpr_edge.spec.errors import ModelError

#: Attributes that say how one axis is resized.
_OF_AN_AXIS = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)


def without_resize(
    graph: Graph,
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], dict[str, Type]]:
    """(nodes, constants, types) of ``graph`` with every Resize as products with matrices.

    Raises:
        ModelError: a Resize whose scales are no constants, or of another kind.
    """
    nodes: list[onnx.NodeProto] = []
    constants, types = dict(graph.constants), dict(graph.types)
    for node in graph.nodes:
        if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
            nodes += _products(node, graph, constants, types)
        else:
            nodes.append(node)
    return nodes, constants, types


def _products(
    node: onnx.NodeProto,
    graph: Graph,
    constants: dict[str, NDArray[Any]],
    types: dict[str, Type],
) -> list[onnx.NodeProto]:
    source, target = graph.types[node.input[0]], graph.types[node.output[0]]
    _refuse(node, source, target)
    scales = _scales(node, graph.constants, source, target)
    rank = len(source.shape)
    current, made = node.input[0], []
    shape = list(source.shape)
    for axis, scale in enumerate(scales):
        if scale == 1.0 and source.shape[axis] == target.shape[axis]:
            continue
        if axis < rank - 2:
            raise ModelError(
                f"{label(node)} resizes axis {axis} of {rank}: only the last two axes are "
                "lowered; transpose before it"
            )
        old, new = source.shape[axis], target.shape[axis]
        assert isinstance(old, int) and isinstance(new, int)
        matrix = _matrix(node, graph.opset, old, new, scale)
        name = f"{node.output[0]}.axis{axis}"
        constants[f"{name}.matrix"] = matrix.T.copy() if axis == rank - 1 else matrix
        types[f"{name}.matrix"] = Type(matrix.dtype, constants[f"{name}.matrix"].shape)
        pair = [f"{name}.matrix", current] if axis == rank - 2 else [current, f"{name}.matrix"]
        shape[axis] = new
        types[name] = Type(source.dtype, tuple(shape))
        made.append(onnx.helper.make_node("MatMul", pair, [name], name=name))
        current = name
    if not made:
        return [onnx.helper.make_node("Identity", [current], [node.output[0]], name=node.name)]
    made[-1].output[0] = node.output[0]
    return made


def _refuse(node: onnx.NodeProto, source: Type, target: Type) -> None:
    if attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        raise ModelError(f"{label(node)}: tf_crop_and_resize is not lowered; crop by Slice first")
    if attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise ModelError(f"{label(node)}: give sizes that need no keep_aspect_ratio_policy")
    moving = [
        axis
        for axis, (a, b) in enumerate(zip(source.shape, target.shape, strict=True))
        if not (isinstance(a, int) and isinstance(b, int)) and a != b
    ]
    if moving:
        raise ModelError(
            f"{label(node)}: axis {moving[0]} has no size that is known before it runs"
        )


def _scales(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], source: Type, target: Type
) -> list[float]:
    """How much larger each axis becomes: as the node says, else by its sizes."""
    rank = len(source.shape)
    axes: Sequence[int] = attribute(node, "axes", range(rank))
    scales = [1.0] * rank
    given = node.input[2] if len(node.input) > 2 else ""
    sizes = node.input[3] if len(node.input) > 3 else ""
    for name in (given, sizes):
        if name and name not in constants:
            raise ModelError(f"{label(node)}: {name!r} is not a constant of the file")
    if given and constants[given].size:
        for axis, scale in zip(axes, constants[given].tolist(), strict=True):
            scales[axis % rank] = float(scale)
        return scales
    for axis in (a % rank for a in axes):
        old, new = source.shape[axis], target.shape[axis]
        scales[axis] = 1.0 if old == new else int(new) / int(old)
    return scales


def _matrix(
    node: onnx.NodeProto, opset: int, old: int, new: int, scale: float
) -> NDArray[np.float32]:
    """float32 [new, old]: what ONNX Runtime makes of each unit vector."""
    from tatvpr_edge.compilers.reference import session

    kept = [entry for entry in node.attribute if entry.name in _OF_AN_AXIS]
    by_scale = len(node.input) > 2 and node.input[2] != ""
    inputs = ["x", "", "scales"] if by_scale else ["x", "", "", "sizes"]
    resize = onnx.helper.make_node("Resize", inputs, ["y"])
    resize.attribute.extend(kept)
    weights = [
        onnx.numpy_helper.from_array(np.array([1, 1, 1, scale], np.float32), "scales")
        if by_scale
        else onnx.numpy_helper.from_array(np.array([1, old, 1, new], np.int64), "sizes")
    ]
    shapes = [("x", [1, old, 1, old]), ("y", [1, old, 1, new])]
    described = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes
    ]
    graph = onnx.helper.make_graph([resize], "axis", described[:1], described[1:], weights)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    unit = np.eye(old, dtype=np.float32).reshape(1, old, 1, old)
    (found,) = session(model).run(["y"], {"x": unit})
    return np.ascontiguousarray(found.reshape(old, new).T)

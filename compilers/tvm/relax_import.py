"""A matched graph to Relax: our steps become external calls, the rest TVM's own operators.

TVM's ONNX front end knows neither domains nor registration of converters, so for the time of one
import its converter map is wrapped; what it prints of operators that it refuses is left out. An
external call is named ``tatvpr.<step>``; weights of heavy steps never enter Relax.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import tvm.relax.frontend.onnx.onnx_frontend as onnx_frontend
from numpy.typing import NDArray
from onnx import numpy_helper
from tvm import IRModule, relax, tirx
from tvm.ir import GenericConst

from tatvpr_edge.compilers.graph import Type, label, type_proto
from tatvpr_edge.compilers.match import Matched
from tatvpr_edge.compilers.steps import FUSED, STEP, Step
from tatvpr_edge.compilers.tvm.refusals import tvm_lowers
from tatvpr_edge.compilers.tvm.resize import without_resize
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.reference import L2_EPS

CALL_PREFIX = "tatvpr."
_patching = threading.Lock()


def import_graph(matched: Matched) -> IRModule:
    """The Relax module whose ``main`` takes the frame (and the carriers of kept token counts).

    Raises:
        ModelError: an operator that TVM's ONNX front end does not know, or gives another shape.
    """
    graph = matched.graph
    nodes, constants, types = without_resize(graph)
    outputs = {name: types[name] for name in graph.outputs}
    module = import_nodes(nodes, graph.inputs, outputs, constants, graph.opset, matched.steps)
    if result_shape(module) != (matched.descriptor_size,):
        raise ModelError(_misshapen(nodes, types, constants, graph.opset, module))
    return module


def result_shape(module: IRModule) -> tuple[int, ...] | None:
    """The shape of what ``main`` gives; None where it is not known before it runs."""
    kind = module["main"].ret_ty
    shape = getattr(kind, "shape", None)
    dims = [] if shape is None else list(shape)
    if shape is None or not all(isinstance(d, tirx.IntImm) for d in dims):
        return None
    return tuple(int(d) for d in dims)


def _misshapen(
    nodes: Sequence[onnx.NodeProto],
    types: Mapping[str, Type],
    constants: Mapping[str, NDArray[Any]],
    opset: int,
    module: IRModule,
) -> str:
    """Which operator TVM gives another shape than ONNX, each taken by itself."""
    for node in nodes:
        if node.domain == FUSED:
            continue
        known = [types[name] for name in (*node.input, *node.output) if name]
        if any(isinstance(d, str) for kind in known for d in kind.shape):
            continue
        fed = {n: types[n] for n in node.input if n and n not in constants}
        own = {n: constants[n] for n in node.input if n in constants}
        wanted = {node.output[0]: types[node.output[0]]}
        found = result_shape(import_nodes([node], fed, wanted, own, opset))
        if found is not None and found != types[node.output[0]].shape:
            return (
                f"TVM gives {label(node)} the shape {list(found)}, ONNX says "
                f"{list(types[node.output[0]].shape)}: write it with other operators"
            )
    return (
        f"TVM gives the descriptor the shape {result_shape(module)}: write the head with other "
        "operators"
    )


def import_nodes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Type],
    outputs: Mapping[str, Type],
    constants: Mapping[str, NDArray[Any]],
    opset: int,
    steps: Mapping[str, Step] | None = None,
) -> IRModule:
    """The Relax module of those nodes; those of ``FUSED`` are calls of ``steps``.

    Raises:
        ModelError: an operator that TVM's ONNX front end does not know, by node.
    """
    given, wanted = (
        [onnx.helper.make_value_info(name, type_proto(kind)) for name, kind in values.items()]
        for values in (inputs, outputs)
    )
    weights = [numpy_helper.from_array(v, name) for name, v in constants.items()]
    proto = onnx.helper.make_graph(list(nodes), "model", given, wanted, weights)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(FUSED, 1)]
    model = onnx.helper.make_model(proto, opset_imports=opsets, ir_version=10)

    def named(line: str) -> str:
        found = (label(n) for n in nodes if re.search(rf"\b{re.escape(n.op_type)}\b", line))
        return next(found, "the rest of the model")

    with _converters(steps or {}), tvm_lowers(named):
        return onnx_frontend.from_onnx(model, sanitize_input_names=False)


@contextmanager
def _converters(steps: Mapping[str, Step]) -> Iterator[None]:
    """TVM's converter map with one converter for each kind of step."""

    class Converter(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: dict[str, Any], params: Any) -> Any:
            key = attr[STEP].decode() if isinstance(attr[STEP], bytes) else attr[STEP]
            return _call(bb, key, steps[key], list(inputs), attr["tvm_custom"]["num_outputs"])

    class LpNormalization(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: dict[str, Any], params: Any) -> Any:
            if attr.get("p", 2) != 2:
                # Told with the node's name, as what TVM raises is.
                raise ValueError("LpNormalization with p other than 2 is not lowered")
            x, axis = inputs[0], attr.get("axis", -1)
            norm = relax.op.sqrt(relax.op.sum(relax.op.multiply(x, x), axis, keepdims=True))
            floor = relax.const(np.float32(L2_EPS))
            return bb.emit(relax.op.divide(x, relax.op.maximum(norm, floor)))

    class Pow(onnx_frontend.Pow):  # type: ignore[misc]
        """A cube (GeM's) is two products: TVM warns of its ``powf``, which also costs far more."""

        @classmethod
        def _impl_v7(cls, bb: Any, inputs: Any, attr: dict[str, Any], params: Any) -> Any:
            x, power = inputs
            fixed = isinstance(power, GenericConst) and not isinstance(x, GenericConst)
            if not fixed or np.asarray(onnx_frontend._to_numpy(power)).tolist() != 3.0:
                return cls.base_impl(bb, inputs, attr, params)
            return relax.op.multiply(bb.normalize(relax.op.multiply(x, x)), x)

    ours: dict[str, Any] = {type(step).__name__: Converter for step in steps.values()}
    ours["LpNormalization"], ours["Pow"] = LpNormalization, Pow
    with _patching:
        original = onnx_frontend._get_convert_map
        onnx_frontend._get_convert_map = lambda: {**original(), **ours}
        onnx_frontend.print = lambda *_: None  # its own name, before the built-in one
        try:
            yield
        finally:
            onnx_frontend._get_convert_map = original
            del onnx_frontend.print


def _call(bb: Any, key: str, step: Step, inputs: list[Any], outputs: int) -> Any:
    """The external call of one step; its result types follow docs/numerics.md."""
    args = [bb.normalize(value) for value in inputs if value is not None]
    results = step.results([list(arg.ty.shape) for arg in args], outputs)
    types = [relax.TensorType(relax.ShapeExpr(shape), "float32") for shape in results]
    call = relax.op.call_dps_packed(
        f"{CALL_PREFIX}{key}",
        relax.Tuple(args[: len(args) - step.carriers]),
        types if len(types) > 1 else types[0],
    )
    return bb.emit(call)

"""An ONNX graph in the form that checks, hashing and lowering read: nodes, constants and types.

Types are inferred node by node: our operators by the rules of docs/numerics.md, standard ones by
ONNX's own inference. After KeepTokens the number of tokens is a symbol of ``KEPT``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN
from tatvpr_edge.spec.shortage import refuse_shortage
from tatvpr_edge.spec.text import printable

#: Symbols of the token count after the first KeepTokens and after a second one: 1 + n, known at
#: run time only.
KEPT = ("kept_tokens", "kept_again")
STANDARD_DOMAINS = ("", "ai.onnx")
_ELEMENTWISE = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "PRelu"]
)

Dim = int | str


@dataclass(frozen=True)
class Type:
    """Element type and shape of a value; a dimension is a number or a symbol."""

    dtype: np.dtype[Any]
    shape: tuple[Dim, ...]

    @property
    def width(self) -> int:
        """The last dimension, which is never symbolic here."""
        last = self.shape[-1]
        assert isinstance(last, int)
        return last


@dataclass
class Graph:
    """A model's graph with constants folded into a table; nodes are in topological order."""

    name: str
    nodes: list[onnx.NodeProto]
    constants: dict[str, NDArray[Any]]
    inputs: dict[str, Type]
    outputs: list[str]
    opset: int
    metadata: dict[str, str] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    model: onnx.ModelProto | None = None  # what it was read from

    @classmethod
    def from_model(cls, model: onnx.ModelProto) -> Graph:
        """Read the proto; no types yet (see :meth:`infer_types`)."""
        proto = model.graph
        constants: dict[str, NDArray[Any]] = {}
        for tensor in proto.initializer:
            constants[tensor.name] = _array(tensor)
        nodes = []
        for node in proto.node:
            if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
                constants[node.output[0]] = _constant(node)
            else:
                nodes.append(node)
        given = [value for value in proto.input if value.name not in constants]
        inputs = {value.name: _type(value.type, f"input {value.name!r}") for value in given}
        opset = next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 0)
        return cls(
            name=proto.name,
            nodes=nodes,
            constants=constants,
            inputs=inputs,
            outputs=[value.name for value in proto.output],
            opset=opset,
            metadata={entry.key: entry.value for entry in model.metadata_props},
            model=model,
        )

    def producers(self) -> dict[str, onnx.NodeProto]:
        """Value name to the node that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Value name to the nodes that read it."""
        table: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                if name:
                    table.setdefault(name, []).append(node)
        return table

    def kept_constant(self, name: str) -> str | None:
        """The constant whose rows ``name`` is, all of them or what KeepTokens left; else None."""
        producers = self.producers()
        while (node := producers.get(name)) is not None:
            if node.domain != DOMAIN or node.op_type != "KeepTokens":
                return None
            name = node.input[0]
        return name if name in self.constants else None

    def keep_only(self, outputs: Iterable[str]) -> None:
        """Drop other outputs and every node and constant that no output needs."""
        self.outputs = list(outputs)
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(name for name in node.input if name)
        self.nodes = kept[::-1]
        self.constants = {name: v for name, v in self.constants.items() if name in wanted}

    def fold_shape(self, name: str) -> None:
        """What is asked of the shape of an input, as exporters do, is a constant: nothing of the
        input itself is read."""
        shape, nodes = np.array(self.inputs[name].shape, np.int64), []
        for node in self.nodes:
            if list(node.input) != [name] or node.op_type not in ("Shape", "Size"):
                nodes.append(node)
            elif node.op_type == "Size":
                self.constants[node.output[0]] = np.array(shape.prod())
            else:
                part = slice(attribute(node, "start", 0), attribute(node, "end"))
                self.constants[node.output[0]] = shape[part]
        self.nodes = nodes

    def infer_types(self, check: Callable[[Graph, onnx.NodeProto], None]) -> None:
        """Fill :attr:`types` for every value; ``check`` sees each node when its inputs are typed.

        Raises:
            ModelError: a node whose shapes do not fit, or whose result cannot be known.
        """
        self.types = dict(self.inputs)
        for name, value in self.constants.items():
            self.types[name] = Type(value.dtype, value.shape)
        for node in self.nodes:
            missing = [name for name in node.input if name and name not in self.types]
            if missing:
                raise ModelError(f"{label(node)} reads {missing[0]!r}, which nothing before makes")
            check(self, node)
            ours = node.domain == DOMAIN
            found = self._ours(node) if ours else self._standard(node)
            self.types.update(found)

    def _ours(self, node: onnx.NodeProto) -> dict[str, Type]:
        given = [self.types[name] for name in node.input]
        f32, i8 = np.dtype(np.float32), np.dtype(np.int8)
        first = given[0].shape
        outs: list[Type]
        if node.op_type == "PatchEmbed":
            patch = round((given[1].width // 3) ** 0.5)
            height, width = (int(d) for d in first[:2])
            outs = [Type(f32, ((height // patch) * (width // patch), given[1].shape[0]))]
        elif node.op_type == "TopKGate":
            outs = [Type(i8, first), Type(f32, (*first[:-1], 1))]
        elif node.op_type == "TernaryMatMul":
            outs = [Type(f32, (*first[:-1], given[2].shape[0]))]
        elif node.op_type == "QuantAttention":
            outs = [Type(f32, (first[0], given[0].width // 3)), Type(f32, (first[0],))]
        else:  # KeepTokens: check_structure lets no other through
            outs = [Type(f32, (KEPT[first[0] == KEPT[0]], given[0].width))]
        return {name: t for name, t in zip(node.output, outs, strict=False) if name}

    def _check_kept_rows(self, node: onnx.NodeProto) -> None:
        """Of elements joined with what KeepTokens left: ONNX's inference believes that any fixed
        number of rows, or another left-over number, may be as many at run time."""
        shapes = [self.types[name].shape[::-1] for name in node.input if name]
        for axis in range(max(map(len, shapes), default=0)):
            dims = {s[axis] for s in shapes if axis < len(s)} - {1, "?"}
            left = [d for d in dims if isinstance(d, str)]
            if left and len(dims) > 1:
                every = " and ".join(sorted(map(str, dims)))
                raise ModelError(
                    f"{label(node)}: its shapes do not fit: {every} rows; what is joined with "
                    "tokens goes through the same KeepTokens"
                )

    def _standard(self, node: onnx.NodeProto) -> dict[str, Type]:
        if node.op_type in _ELEMENTWISE:
            self._check_kept_rows(node)
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        input_types = {n: type_proto(self.types[n]) for n in node.input if n}
        data = {
            n: numpy_helper.from_array(self.constants[n], n)
            for n in node.input
            if n in self.constants and self.constants[n].size <= 64
        }
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                input_types,
                data,
                opset_imports=[onnx.helper.make_opsetid("", self.opset)],
            )
        except Exception as error:  # onnx raises RuntimeError subclasses of its own
            refuse_shortage(error, f"the shapes of {label(node)}")
            line = " ".join(str(error).split())
            raise ModelError(f"{label(node)}: its shapes do not fit: {line}") from error
        result = {}
        for name in node.output:
            if not name:
                continue
            proto = found.get(name)
            if proto is None or not proto.tensor_type.HasField("shape"):
                raise ModelError(f"{label(node)}: the shape of {name!r} cannot be inferred")
            result[name] = _type(proto, f"{label(node)}: {name!r}")
        if node.op_type == "Slice":
            result = {name: self._sliced(node, kind) for name, kind in result.items()}
        return result

    def _sliced(self, node: onnx.NodeProto, found: Type) -> Type:
        """ONNX gives up on slices of a symbolic axis; CLS and one patch are always there, and of no
        rows a compiled sum is whatever lay in memory."""
        if any(name and name not in self.constants for name in node.input[1:]):
            return found
        bounds = [self.constants[name] if name else None for name in node.input[1:]]
        starts, ends, axes, steps = [*bounds, None, None][:4]
        if starts is None or ends is None:
            return found
        given = list(range(starts.size)) if axes is None else axes.reshape(-1).tolist()
        rows = self.types[node.input[0]].shape
        axis = next((a for a in given if str(rows[a]).partition(" - ")[0] in KEPT), None)
        if axis is None:
            return found
        if len(given) > 1:
            raise ModelError(
                f"{label(node)}: it takes rows of tokens and more at once, which is not lowered: "
                "give each axis a Slice of its own"
            )
        symbol, _, cut = str(rows[axis]).partition(" - ")
        start, end, step = (int(b[0]) for b in (starts, ends, [1] if steps is None else steps))
        shape, cut_off = list(found.shape), int(cut or 0)
        there = 2 - cut_off
        if step == 1 and 0 <= start < end <= there:
            shape[axis] = end - start
        elif step == 1 and 0 <= start < there and end >= 2**31 - 1:
            shape[axis] = f"{symbol} - {cut_off + start}" if cut_off + start else symbol
        else:
            raise ModelError(
                f"{label(node)}: these rows of tokens may not be left at run time: a slice takes "
                "CLS, the first patch, or all from one of them on"
            )
        return Type(found.dtype, tuple(shape))


def label(node: onnx.NodeProto) -> str:
    """How an error names a node."""
    kind = printable(node.op_type)
    if node.name:
        return f"{kind} {node.name!r}"
    return f"{kind} -> {node.output[0]!r}" if node.output else f"{kind} without an output"


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute, ``default`` where the node has none."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def _array(tensor: onnx.TensorProto) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # numpy and protobuf both raise here, on damaged tensors
        refuse_shortage(error, f"tensor {tensor.name!r}")
        raise ModelError(f"tensor {tensor.name!r} is damaged: {printable(error)}") from error


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    kinds: dict[str, Any] = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for entry in node.attribute:
        if entry.name == "value":
            return _array(entry.t)
        if entry.name in kinds:
            return np.array(onnx.helper.get_attribute_value(entry), dtype=kinds[entry.name])
    raise ModelError(f"{label(node)}: only dense numeric constants are lowered")


def _type(proto: onnx.TypeProto, what: str) -> Type:
    tensor = proto.tensor_type
    if tensor.elem_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"{what} has no element type")
    if tensor.elem_type not in onnx.TensorProto.DataType.values():
        raise ModelError(f"{what} is of element type {tensor.elem_type}, which ONNX does not know")
    shape: list[Dim] = []
    for d in tensor.shape.dim:
        if d.HasField("dim_value"):
            shape.append(d.dim_value)
        elif d.dim_param:
            shape.append(d.dim_param)
        else:
            shape.append("?")
    return Type(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(shape))


def type_proto(value: Type) -> onnx.TypeProto:
    """The type as ONNX writes it."""
    element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    shape = [None if d == "?" else d for d in value.shape]
    return onnx.helper.make_tensor_type_proto(element, shape)

"""Our plugins as Python IPluginV3 classes: the route for a board without a C++ compiler.

Same names, attributes and launches as ``core/cuda/plugin/plugins.cpp``. The classes derive from
TensorRT's and are therefore made when TensorRT is there; :func:`register` hands them to it.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.spec.errors import TatvprError, ToolError
from tatvpr_edge.spec.operators import GATED_TERNARY_MAT_MUL, OPERATORS, Operator

_LOG = logging.getLogger("tatvpr_edge.tensorrt")
_WEIGHTS = 2  # input of GatedTernaryMatMul that is int8


_registered: list[Any] = []


def register(trt: Any, kernels: Kernels) -> bool:
    """Register both creators with TensorRT; False where it did not take them."""
    registry = trt.get_plugin_registry()
    made = creators(trt, kernels)
    for creator in made:
        if not registry.register_creator(creator, creator.plugin_namespace):
            return False
    _registered.extend(made)
    return True


def run_on(kernels: Kernels) -> None:
    """Plugins that registered creators make from now on launch ``kernels``: a kernel belongs to
    the context that it was loaded in, and pycuda knows the streams of one driver alone."""
    for creator in _registered:
        creator.kernels = kernels


def creators(trt: Any, kernels: Kernels) -> list[Any]:
    """One creator (IPluginCreatorV3One) for each plugin."""
    return [
        _creator(trt, GATED_TERNARY_MAT_MUL, _matmul_class(trt), kernels),
        _creator(trt, OPERATORS["QuantAttention"], _attention_class(trt), kernels),
    ]


def _creator(trt: Any, operator: Operator, plugin: type[Any], kernels: Kernels) -> Any:
    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = operator.tensorrt_name
            self.plugin_version = operator.tensorrt_version
            self.plugin_namespace = operator.tensorrt_namespace
            self.kernels = kernels
            self.fields = _Fields(trt, dict.fromkeys(operator.attributes))
            self.field_names = self.fields.collection

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            try:
                return plugin(self.kernels, _attributes(operator, fields))
            except TatvprError as error:
                _LOG.error("%s", error)
                return None

    return Creator()


class _Fields:
    """A PluginFieldCollection of int32 fields; None leaves a field without data.

    TensorRT keeps bare pointers to the values, so that they have to live as long as this does.
    """

    def __init__(self, trt: Any, values: dict[str, int | None]) -> None:
        self._values = [
            np.array([] if value is None else [value], dtype=np.int32) for value in values.values()
        ]
        self._fields = [
            trt.PluginField(name, value, trt.PluginFieldType.INT32)
            for name, value in zip(values, self._values, strict=True)
        ]
        self.collection = trt.PluginFieldCollection(self._fields)


def _attributes(operator: Operator, fields: Any) -> dict[str, int]:
    given = {field.name: field.data for field in fields or ()}
    found = {}
    for name, default in operator.attributes.items():
        data = given.get(name)
        if data is not None and len(data) == 1:
            found[name] = int(data[0])
        elif default is None:
            raise ToolError(f"plugin {operator.tensorrt_name}: attribute {name!r} is missing")
        else:
            found[name] = default
    return found


def _base(trt: Any, operator: Operator, outputs: int) -> type[Any]:
    """What both plugins answer alike."""

    class Plugin(  # type: ignore[misc]
        trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime
    ):
        def __init__(self, kernels: Kernels, attributes: dict[str, int]) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.num_outputs = outputs
            self.plugin_name = operator.tensorrt_name
            self.plugin_version = operator.tensorrt_version
            self.plugin_namespace = operator.tensorrt_namespace
            self.kernels = kernels
            self.attributes = attributes
            self.fields = _Fields(trt, dict(attributes))

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def get_output_data_types(self, input_types: Any) -> list[Any]:
            return [trt.DataType.FLOAT] * outputs

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return self.fields.collection

        def get_valid_tactics(self) -> list[int]:
            return []

        def set_tactic(self, tactic: int) -> None:
            pass

        def clone(self) -> Any:
            return type(self)(self.kernels, dict(self.attributes))

    return Plugin


def _matmul_class(trt: Any) -> type[Any]:
    class GatedTernaryMatMul(_base(trt, GATED_TERNARY_MAT_MUL, 1)):  # type: ignore[misc]
        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
            shape = trt.DimsExprs(2)
            shape[0] = inputs[0][0]
            shape[1] = inputs[_WEIGHTS][0]
            return [shape]

        def supports_format_combination(self, at: int, tensors: Any, inputs: int) -> bool:
            wanted = trt.DataType.INT8 if at == _WEIGHTS else trt.DataType.FLOAT
            return _plain(trt, tensors[at].desc, wanted)

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            x, weights = inputs[0].max, inputs[_WEIGHTS].max
            return self.kernels.gated_mat_mul_workspace(
                tokens=x[0], channels=x[1], outputs=weights[0], **self.attributes
            )

        def enqueue(
            self,
            input_desc: Any,
            output_desc: Any,
            inputs: Any,
            outputs: Any,
            workspace: int,
            stream: int,
        ) -> None:
            x, weights, scale = (input_desc[i].dims for i in (0, _WEIGHTS, 3))
            self.kernels.gated_mat_mul(
                [*inputs, *outputs],
                workspace,
                tokens=x[0],
                channels=x[1],
                outputs=weights[0],
                row_bytes=weights[1],
                scale_count=scale[0],
                stream=stream,
                **self.attributes,
            )

    return GatedTernaryMatMul


def _attention_class(trt: Any) -> type[Any]:
    class QuantAttention(_base(trt, OPERATORS["QuantAttention"], 2)):  # type: ignore[misc]
        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
            y, a = trt.DimsExprs(2), trt.DimsExprs(1)
            y[0] = a[0] = inputs[0][0]
            y[1] = builder.operation(
                trt.DimensionOperation.FLOOR_DIV, inputs[0][1], builder.constant(3)
            )
            return [y, a]

        def supports_format_combination(self, at: int, tensors: Any, inputs: int) -> bool:
            return _plain(trt, tensors[at].desc, trt.DataType.FLOAT)

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            qkv = inputs[0].max
            return self.kernels.attention_workspace(
                tokens=qkv[0], dim=qkv[1] // 3, **self.attributes
            )

        def enqueue(
            self,
            input_desc: Any,
            output_desc: Any,
            inputs: Any,
            outputs: Any,
            workspace: int,
            stream: int,
        ) -> None:
            tokens, width = input_desc[0].dims
            self.kernels.attention(
                *inputs,
                *outputs,
                workspace,
                tokens=tokens,
                dim=width // 3,
                stream=stream,
                **self.attributes,
            )

    return QuantAttention


def _plain(trt: Any, desc: Any, wanted: Any) -> bool:
    return bool(desc.type == wanted and desc.format == trt.TensorFormat.LINEAR)

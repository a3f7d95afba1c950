"""Run by test_python_plugins.py in a process whose ``tensorrt`` is the real bindings.

Prints one JSON document of what was seen; an assertion ends it otherwise.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import tensorrt as trt

from support.cuda import kernel_sources
from tatvpr_edge.runtime.backends.tensorrt.engine import _logger, tensorrt_module
from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.backends.tensorrt.plugins import creators
from tatvpr_edge.runtime.cuda.driver import Driver, open_driver
from tatvpr_edge.spec import golden, reference
from tatvpr_edge.spec.operators import DOMAIN
from tatvpr_edge.spec.packing import pack_ternary

#: What engine.py and plugins.py call, beyond the classes that are derived from here.
USED = {
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile"),
    "IBuilderConfig": (
        "set_memory_pool_limit",
        "clear_flag",
        "add_optimization_profile",
        "max_aux_streams",
    ),
    "IOptimizationProfile": ("set_shape",),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_execution_context",),
    "IExecutionContext": ("set_tensor_address", "set_input_shape", "execute_async_v3"),
    "IPluginRegistry": ("register_creator", "load_library", "get_creator"),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "MemoryPoolType": ("WORKSPACE",),
    "BuilderFlag": ("TF32",),
}

#: TensorRT owns plugins, and 10.3's bindings count references accordingly: Python may not end one.
ALIVE: list[Any] = []


def desc(array: np.ndarray[Any, Any], dtype: Any) -> Any:
    made = trt.PluginTensorDesc()
    made.dims = trt.Dims(array.shape)
    made.type = dtype
    made.format = trt.TensorFormat.LINEAR
    return made


def dynamic(one: Any) -> Any:
    made = trt.DynamicPluginTensorDesc()
    made.desc = one
    made.min = made.max = one.dims
    return made


def drive(
    driver: Driver, creator: Any, attributes: dict[str, int], arrays: Any, shapes: Any
) -> Any:
    """Create, serialise, clone and run a plugin as TensorRT would; its outputs."""
    # TensorRT keeps bare pointers: values and fields live as long as the collection is used.
    values = [np.array([value], np.int32) for value in attributes.values()]
    given = [
        trt.PluginField(name, value, trt.PluginFieldType.INT32)
        for name, value in zip(attributes, values, strict=True)
    ]
    fields = trt.PluginFieldCollection(given)
    first = creator.create_plugin("one", fields, trt.TensorRTPhase.BUILD)
    assert first is not None
    kept = first.get_fields_to_serialize()
    for _ in range(3):
        assert {f.name: int(f.data[0]) for f in kept} == attributes
    second = creator.create_plugin("two", kept, trt.TensorRTPhase.RUNTIME)
    plugin = second.attach_to_context(None)
    ALIVE.extend((first, second, plugin))
    assert (plugin.plugin_name, plugin.plugin_version) == (creator.name, "2")
    for kind in (
        trt.PluginCapabilityType.CORE,
        trt.PluginCapabilityType.BUILD,
        trt.PluginCapabilityType.RUNTIME,
    ):
        assert plugin.get_capability_interface(kind) is plugin
    types = [trt.DataType.INT8 if a.dtype == np.int8 else trt.DataType.FLOAT for a in arrays]
    assert plugin.get_output_data_types(types) == [trt.DataType.FLOAT] * plugin.num_outputs
    outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
    inputs_desc = [desc(a, t) for a, t in zip(arrays, types, strict=True)]
    outputs_desc = [desc(a, trt.DataType.FLOAT) for a in outputs]
    tensors = [dynamic(one) for one in (*inputs_desc, *outputs_desc)]
    for at, one in enumerate(tensors):
        assert plugin.supports_format_combination(at, tensors, len(arrays))
        good = one.desc.type
        changed = desc(arrays[0], trt.DataType.HALF)
        one.desc = changed
        assert not plugin.supports_format_combination(at, tensors, len(arrays))
        changed.type = good
        changed.format = trt.TensorFormat.CHW32
        one.desc = changed
        assert not plugin.supports_format_combination(at, tensors, len(arrays))
        one.desc = (*inputs_desc, *outputs_desc)[at]
    size = plugin.get_workspace_size(tensors[: len(arrays)], tensors[len(arrays) :])
    workspace = driver.allocate(size)
    pointers = [driver.to_device(a) for a in arrays]
    results = [driver.to_device(a) for a in outputs]
    plugin.on_shape_change(inputs_desc, outputs_desc)
    plugin.enqueue(inputs_desc, outputs_desc, pointers, results, workspace, driver.stream)
    for array, pointer in zip(outputs, results, strict=True):
        driver.download(array, pointer)
    driver.synchronise()
    return outputs


def seen(driver: Driver) -> dict[str, Any]:
    """What was seen, after every assertion."""
    assert tensorrt_module() is trt
    missing = [
        f"{name}.{member}"
        for name, members in USED.items()
        for member in members
        if not hasattr(getattr(trt, name), member)
    ]
    assert not missing, missing
    logger = _logger(trt)
    logger.log(trt.ILogger.Severity.ERROR, "a  fault")
    assert isinstance(logger, trt.ILogger) and logger.last == "a fault"

    kernels = Kernels(driver, {source.stem: b"\x7fELF" for source in kernel_sources()})
    matmul, attention = creators(trt, kernels)
    for creator in (matmul, attention):
        assert isinstance(creator, trt.IPluginCreatorV3One)
        assert (creator.plugin_version, creator.plugin_namespace) == ("2", DOMAIN)
    assert [f.name for f in matmul.field_names] == ["group", "scope"]
    assert [f.name for f in attention.field_names] == ["heads"]
    empty = trt.PluginFieldCollection([])
    assert attention.create_plugin("none", empty, trt.TensorRTPhase.BUILD) is None

    runs = 0
    rng = np.random.default_rng(7)
    for tokens, scope in ((5, 0), (17, 1), (33, 0)):
        x = rng.normal(size=(tokens, 96)).astype(np.float32)
        w = pack_ternary(rng.integers(-1, 2, (40, 96)).astype(np.int8)).view(np.int8)
        scale, bias = np.array([0.05], np.float32), rng.normal(size=40).astype(np.float32)
        arrays = [x, np.asarray(0.4, np.float32), w, scale, bias]
        gate = {"group": 4, "scope": scope}
        (y,) = drive(driver, matmul, gate, arrays, [(tokens, 40)])
        q, s = reference.top_k_gate(x, 0.4, 4, scope)
        assert np.array_equal(y, reference.ternary_mat_mul(q, s, w, scale, bias))
        runs += 1
    for case in golden.attention_cases():
        expected = case.outputs["Y"], case.outputs["A"]
        shapes = [array.shape for array in expected]
        made = drive(driver, attention, case.attributes, [case.inputs["QKV"]], shapes)
        assert all(np.array_equal(a, b) for a, b in zip(made, expected, strict=True)), case.name
        runs += 1
    return {"version": trt.__version__, "runs": runs}


if __name__ == "__main__":
    with open_driver() as gpu:
        print(json.dumps(seen(gpu)), flush=True)
    os._exit(0)

"""A scripted stand-in for TensorRT, because no TensorRT library can be had where tests run.

It has the part of the Python interface that this project uses. Its "engine" is the stage's own
ONNX graph, run by ONNX Runtime on the memory that the CUDA stand-in hands out, so that golden
checks mean something. The file named by FAKE_TENSORRT says what goes wrong:

version  the version it claims          bodies   ONNX file with the operators' bodies
build    ok | killed | hungry | nothing | refused
run      ok | wrong | crash | late | interrupted
log      a line for each engine built   delay_s  seconds that building one takes
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_SCRIPT = json.loads(Path(os.environ["FAKE_TENSORRT"]).read_text())
__version__ = _SCRIPT["version"]


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    TF32 = 6


class DataType(enum.Enum):
    FLOAT, INT8 = range(2)


class TensorFormat(enum.Enum):
    LINEAR = 0


class DimensionOperation(enum.Enum):
    FLOOR_DIV = 0


class PluginFieldType(enum.Enum):
    INT32 = 0


class PluginField:
    def __init__(self, name: str, data: Any, type: PluginFieldType) -> None:
        self.name, self.data, self.type = name, data, type


class PluginFieldCollection(list):
    pass


class IPluginV3:
    def __init__(self) -> None:
        pass


class IPluginV3OneCore:
    def __init__(self) -> None:
        pass


class IPluginV3OneBuild:
    def __init__(self) -> None:
        pass


class IPluginV3OneRuntime:
    def __init__(self) -> None:
        pass


class IPluginCreatorV3One:
    def __init__(self) -> None:
        pass


class _Registry:
    """One for the process, as TensorRT's: a plugin that is registered already is refused."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        key = creator.name, creator.plugin_version, namespace
        return self.known.setdefault(key, creator) is creator

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self.known.get((type, version, plugin_namespace))

    def load_library(self, path: str) -> Any:
        library = ctypes.CDLL(path)
        count = ctypes.c_int32()
        library.getCreators(ctypes.byref(count))
        keys = [(n, "2", "ai.tatvpr") for n in ("GatedTernaryMatMul", "QuantAttention")]
        if count.value != 2 or any(key in self.known for key in keys):
            return None
        self.known.update(dict.fromkeys(keys, library))
        return library


_REGISTRY = _Registry()


def get_plugin_registry() -> _Registry:
    return _REGISTRY


class _Network:
    onnx = b""


class _ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network = network
        self._errors: list[str] = []

    def parse(self, data: bytes) -> bool:
        import onnx

        model = onnx.load_model_from_string(data)
        if model.functions:
            self._errors.append("a function body shadows the plugin")
        for node in model.graph.node:
            if node.domain:
                said = {a.name: a.s.decode() for a in node.attribute if a.s}
                key = (node.op_type, said["plugin_version"], said["plugin_namespace"])
                if key not in _REGISTRY.known:
                    self._errors.append(f"plugin not found: {key}")
        if _SCRIPT["build"] == "refused":
            self._errors.append("unsupported ONNX operator")
        self._network.onnx = data
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> _ParserError:
        return _ParserError(self._errors[index])


class _Profile:
    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        assert tuple(low) <= tuple(best) <= tuple(high)


class _Config:
    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        assert size > 0

    def clear_flag(self, flag: BuilderFlag) -> None:
        pass

    def add_optimization_profile(self, profile: _Profile) -> int:
        return 0


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> _Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        import onnx

        from support.stage_bodies import runnable

        what = _SCRIPT["build"]
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hungry":
            hoard = []
            while True:  # until somebody stops it
                hoard.append(np.ones(4 << 20))
                time.sleep(0.005)
        if what == "nothing":
            self._logger.log(ILogger.Severity.ERROR, "no implementation for a node")
            return None
        time.sleep(_SCRIPT.get("delay_s", 0))
        with open(_SCRIPT["log"], "a") as log:
            log.write(f"{__version__}\n")
        stage = onnx.load_model_from_string(network.onnx)
        made = runnable(stage, onnx.load(_SCRIPT["bodies"]))
        return b"fake engine of TensorRT " + __version__.encode() + b"\n" + made.SerializeToString()


_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Context:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._addresses: dict[str, int] = {}
        self._shapes = {i.name: i.shape for i in session.get_inputs()}
        # A CUDA graph replays what was queued: as a host function, which the stand-in can record.
        self._function = _HOST_FUNCTION(lambda _: self._compute())
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._runs = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        names = [t.name for t in (*self._session.get_inputs(), *self._session.get_outputs())]
        self._addresses[name] = address
        return name in names

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self._shapes[name] = list(shape)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._runs += 1
        if _SCRIPT["run"] == "interrupted" and self._runs == _SCRIPT["good_runs"] + 1:
            raise KeyboardInterrupt
        if _SCRIPT["run"] == "late" and self._runs > _SCRIPT.get("good_runs", 0):
            return False
        return self._cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), self._function, None) == 0

    def _compute(self) -> None:
        feeds = {}
        for name, shape in self._shapes.items():
            count = int(np.prod(shape, dtype=int))
            raw = (ctypes.c_float * count).from_address(self._addresses[name])
            feeds[name] = np.frombuffer(raw, np.float32).reshape(shape).copy()
        names = [o.name for o in self._session.get_outputs()]
        for name, value in zip(names, self._session.run(names, feeds), strict=True):
            if _SCRIPT["run"] == "wrong":
                value = np.roll(value, 1)
            ctypes.memmove(
                self._addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes
            )


class _Engine:
    def __init__(self, session: Any) -> None:
        self._session = session

    def create_execution_context(self) -> _Context:
        return _Context(self._session)

    def __del__(self) -> None:
        current = ctypes.c_void_p()
        ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(current))
        if not current.value:
            print("an engine ended where its context is not current", file=sys.stderr)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        import onnxruntime

        head, _, model = plan.partition(b"\n")
        if _SCRIPT["run"] == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if head != b"fake engine of TensorRT " + __version__.encode():
            self._logger.log(ILogger.Severity.ERROR, "engine of another TensorRT")
            return None
        return _Engine(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]))

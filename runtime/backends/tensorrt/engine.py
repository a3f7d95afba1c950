"""TensorRT itself, behind the little that we need of it: build a stage, load a stage, run it.

``tensorrt`` is imported inside functions: it exists on Jetsons alone. Written for 10.3 to 11.x:
strongly typed networks and IPluginV3 only, no FP16 or INT8 builder flags (11 has none).
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.backends.tensorrt.recipe import (
    NEWEST_MAJOR,
    OLDEST_TENSORRT,
    Recipe,
    StageRecipe,
)
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.operators import GATED_TERNARY_MAT_MUL

_LOG = logging.getLogger("tatvpr_edge.tensorrt")


class Engine(Protocol):
    """One loaded stage; tensors are device addresses."""

    def bind(self, name: str, address: int) -> None:
        """Where an input is read or an output is written."""

    def set_rows(self, rows: int) -> None:
        """Length of the dynamic inputs' first axis; holds until changed."""

    def enqueue(self, stream: int) -> None:
        """Queue one run.

        Raises:
            ToolError: TensorRT refused.
        """


def tensorrt_module() -> Any:
    """The module ``tensorrt``.

    Raises:
        ToolError: it is not installed, does not import, or is outside 10.3 to 11.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise ToolError(
            f"TensorRT for Python does not import ({error}): apt-get install python3-libnvinfer"
        ) from None
    version = str(tensorrt.__version__)
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        raise ToolError(f"TensorRT's version {version!r} is not understood") from None
    if numbers < OLDEST_TENSORRT or numbers[0] > NEWEST_MAJOR:
        raise ToolError(
            f"TensorRT {version} is not supported: {'.'.join(map(str, OLDEST_TENSORRT))} to "
            f"{NEWEST_MAJOR}.x are (JetPack 6.1 and later)"
        )
    return tensorrt


class TensorRt:
    """TensorRT with our plugins registered.

    Args:
        kernels: our kernels, for the Python plugins; their context is current.
        plugin: the compiled plugin library; None registers the Python plugins.

    Raises:
        ToolError: TensorRT is absent, or does not accept the plugins.
    """

    def __init__(self, kernels: Kernels, plugin: str | Path | None) -> None:
        self._trt = tensorrt_module()
        self._logger = _logger(self._trt)
        with _REGISTERING:
            _register_once(self._trt, kernels, plugin)

    def build(self, onnx: bytes, stage: StageRecipe, recipe: Recipe, dim: int) -> bytes:
        """The serialized engine of one stage.

        Raises:
            ToolError: the parser or the builder refused; its first reason is quoted.
        """
        trt = self._trt
        builder = trt.Builder(self._logger)
        strongly_typed = int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(1 << strongly_typed)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(onnx):
            reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise ToolError(
                f"TensorRT's parser refused stage {stage.name}: "
                f"{reasons[0] if reasons else self._logger.last or 'no reason given'}"
            )
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
        # TF32 rounds float32 products to 10 bits: the golden vectors were made without it.
        config.clear_flag(trt.BuilderFlag.TF32)
        config.max_aux_streams = 0  # plugins see our stream alone, whoever made it
        if stage.rows is not None:
            profile = builder.create_optimization_profile()
            most = (recipe.max_tokens, dim)
            profile.set_shape(stage.rows, (2, dim), most, most)
            if stage.table is not None:
                every = (recipe.max_tokens, 1)
                profile.set_shape(stage.table, (2, 1), every, every)
            config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ToolError(
                f"TensorRT built no engine for stage {stage.name}: "
                f"{self._logger.last or 'no reason given'}"
            )
        return bytes(plan)

    def load(self, plan: bytes, stage: StageRecipe, dim: int) -> Engine:
        """A serialized engine of this very TensorRT and GPU, ready to run.

        Raises:
            ToolError: TensorRT does not take it.
        """
        runtime = self._trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ToolError(
                f"TensorRT does not load the engine of stage {stage.name}: "
                f"{self._logger.last or 'no reason given'}"
            )
        context = engine.create_execution_context()
        if context is None:
            raise ToolError(f"TensorRT has no memory to run stage {stage.name}")
        return _LoadedEngine(stage, dim, (runtime, engine, context))


_REGISTERING = threading.Lock()
_registered = False


def _register_once(trt: Any, kernels: Kernels, plugin: str | Path | None) -> None:
    """Our plugins, which TensorRT keeps as long as the process lives and takes once: what is
    opened later runs with those of the first."""
    from tatvpr_edge.runtime.backends.tensorrt import plugins

    global _registered
    plugins.run_on(kernels)
    if _registered:
        return
    registry = trt.get_plugin_registry()
    if plugin is None:
        taken = plugins.register(trt, kernels)
    else:
        # The plugin library leaves the driver's symbols to whoever loads it.
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
        taken = registry.load_library(str(plugin)) is not None
    one = GATED_TERNARY_MAT_MUL
    names = one.tensorrt_name, one.tensorrt_version, one.tensorrt_namespace
    if not taken and registry.get_creator(*names) is None:  # nor did the user load them by hand
        raise ToolError(f"TensorRT does not take the plugins ({plugin or 'in Python'})")
    _registered = True


class _LoadedEngine:
    def __init__(self, stage: StageRecipe, dim: int, held: Sequence[Any]) -> None:
        self._stage = stage
        self._dim = dim
        self._held = held  # in this order: a context must not outlive its engine
        self._context = held[-1]

    def bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise ToolError(f"stage {self._stage.name} has no tensor {name!r}")

    def set_rows(self, rows: int) -> None:
        taken = self._context.set_input_shape(self._stage.rows, (rows, self._dim))
        if self._stage.table is not None:
            taken = self._context.set_input_shape(self._stage.table, (rows, 1)) and taken
        if not taken:
            raise ToolError(f"stage {self._stage.name} does not take {rows} tokens")

    def enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise ToolError(f"TensorRT could not run stage {self._stage.name}")


def _logger(trt: Any) -> Any:
    """TensorRT's messages on Python's logging; ``last`` keeps the newest error for our text."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.INFO,
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.last = " ".join(message.split())
            _LOG.log(min(level, logging.INFO), "%s", message)

    return Logger()

"""Whole models that do the same work: ours, and plain float transformers in other engines.

A peer's model has the very shape of ours (patches, width, depth, heads, hidden layer, norms) with
float weights, softmax attention and GELU, batch 1, one thread; what a user would run without us.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import tatvpr_edge.compilers  # noqa: F401 - keeps ONNX Runtime from sending figures of its use

Call = Callable[[], Any]


class _Plain:
    """Writes a plain ViT as ONNX, from normalised pixels to the CLS token."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.count = 0

    def weight(self, *shape: int) -> str:
        """Random float weights."""
        values = (self.rng.standard_normal(shape) * 0.02).astype(np.float32)
        return self.constant(values)

    def constant(self, values: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        name = f"v{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def linear(self, x: str, k_in: int, n_out: int) -> str:
        product = self.op("MatMul", x, self.weight(k_in, n_out))
        return self.op("Add", product, self.weight(n_out))

    def norm(self, x: str, width: int) -> str:
        scale = self.constant(np.ones(width, np.float32))
        return self.op("LayerNormalization", x, scale, self.weight(width), axis=-1, epsilon=1e-6)

    def attention(self, x: str, tokens: int) -> str:
        c = self.config
        head = c.dim // c.heads
        qkv = self.linear(x, c.dim, 3 * c.dim)
        shape = self.constant(np.array([tokens, 3, c.heads, head], np.int64))
        parts = self.op("Transpose", self.op("Reshape", qkv, shape), perm=[1, 2, 0, 3])
        one = [self.constant(np.array(i, np.int64)) for i in range(3)]
        q, k, v = (self.op("Gather", parts, i, axis=0) for i in one)
        scaled = self.op("Mul", q, self.constant(np.array(head**-0.5, np.float32)))
        scores = self.op("MatMul", scaled, self.op("Transpose", k, perm=[0, 2, 1]))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        back = self.constant(np.array([tokens, c.dim], np.int64))
        merged = self.op("Reshape", self.op("Transpose", mixed, perm=[1, 0, 2]), back)
        return self.linear(merged, c.dim, c.dim)

    def build(self) -> onnx.ModelProto:
        c = self.config
        side = c.image_px // c.patch
        tokens = side * side + 1
        shape = [1, 3, c.image_px, c.image_px]
        kernel = [c.patch, c.patch]
        patches = self.op(
            "Conv", "pixels", self.weight(c.dim, 3, *kernel), self.weight(c.dim),
            kernel_shape=kernel, strides=kernel,
        )  # fmt: skip
        flat = self.constant(np.array([c.dim, side * side], np.int64))
        rows = self.op("Transpose", self.op("Reshape", patches, flat), perm=[1, 0])
        x = self.op("Concat", self.weight(1, c.dim), rows, axis=0)
        x = self.op("Add", x, self.weight(tokens, c.dim))
        for _ in range(c.depth):
            x = self.op("Add", x, self.attention(self.norm(x, c.dim), tokens))
            hidden = self.linear(self.norm(x, c.dim), c.dim, 4 * c.dim)
            hidden = self.op("Gelu", hidden)
            x = self.op("Add", x, self.linear(hidden, 4 * c.dim, c.dim))
        x = self.norm(x, c.dim)
        first = self.constant(np.array([0], np.int64))
        self.nodes.append(helper.make_node("Gather", [x, first], ["descriptor"], axis=0))
        graph = helper.make_graph(
            self.nodes,
            "plain",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [1, c.dim])],
            self.weights,
        )
        opset = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)


def plain_models(config: Any, folder: Path) -> tuple[Path, Path]:
    """(float32 file, dynamically quantised int8 file) of the plain ViT of ``config``."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "plain.onnx"
    onnx.save(_Plain(config).build(), plain)
    quantised = folder / "plain.int8.onnx"
    import logging

    logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that fuses nothing
    quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    return plain, quantised


def onnxruntime_call(model: Path, config: Any) -> Call:
    """One inference of ``model`` on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, config.image_px, config.image_px))
    feed = {"pixels": pixels.astype(np.float32)}
    return lambda: session.run(None, feed)


def torch_call(plain: Path, config: Any) -> Call:
    """The same shape in eager PyTorch, float32, one thread."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layer = nn.TransformerEncoderLayer(
        config.dim, config.heads, 4 * config.dim, 0.0, "gelu", batch_first=True, norm_first=True
    )
    body = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False).eval()
    embed = nn.Conv2d(3, config.dim, config.patch, config.patch).eval()
    pixels = torch.randn(1, 3, config.image_px, config.image_px)
    cls = torch.zeros(1, 1, config.dim)

    def call() -> Any:
        with torch.inference_mode():
            patches = embed(pixels).flatten(2).transpose(1, 2)
            return body(torch.cat([cls, patches], 1))[:, 0]

    return call


def openvino_call(plain: Path, config: Any) -> Call:
    """The plain ONNX file in OpenVINO, one thread. ImportError where it is not installed."""
    import openvino

    return _openvino(openvino.Core().read_model(plain), config)


def openvino_int8_call(plain: Path, config: Any) -> Call:
    """The same after NNCF's quantisation to int8, calibrated on frames of noise.

    ImportError where OpenVINO or NNCF is not installed.
    """
    import nncf
    import openvino

    rng = np.random.default_rng(1)
    shape = (1, 3, config.image_px, config.image_px)
    frames = [rng.standard_normal(shape).astype(np.float32) for _ in range(8)]
    model = openvino.Core().read_model(plain)
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset(frames),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(frames),
        )
    return _openvino(quantised, config)


def _openvino(model: Any, config: Any) -> Call:
    import openvino

    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    pixels = np.random.default_rng(0).standard_normal((1, 3, config.image_px, config.image_px))
    feed = {0: pixels.astype(np.float32)}
    return lambda: request.infer(feed)


def our_artifact(model: str, board: str, folder: Path) -> Path:
    """Our model of that name, or of an ONNX file, built for ``board`` as users build it.

    A shipped model brings its weights; of the others the shape alone is ours, the weights random.
    """
    import tatvpr_edge
    from tatvpr_edge import zoo
    from tatvpr_edge.models.export import export_onnx

    given: str | Path = model
    if model not in zoo.names() and not model.endswith(".onnx"):
        given = folder / f"{model}.onnx"
        if not given.exists():
            export_onnx(model, given)
    return tatvpr_edge.build(board, model=given, output=folder / f"{Path(model).stem}-{board}")


def our_call(localizer: Any, k: float, tokens: float) -> Call:
    """One ``Localizer.describe`` of a frame of the model's own size."""
    side = localizer.artifact.manifest.model.image_size
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)

    def call() -> Any:
        localizer.k, localizer.tokens = k, tokens
        return localizer.describe(frame)

    return call

"""A tiny place model as ONNX, made with onnx.helper alone (no torch): two blocks and KeepTokens.

32 px, patch 8, 17 tokens, D = 48, 3 heads. Weights are random but seeded. Heads: "cls", "gem"
and "digits" (the core's own), the others of standard ONNX operators that the compiler has to lower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tatvpr_edge.spec.operators import DOMAIN, OPSET, VERSION
from tatvpr_edge.spec.packing import pack_ternary

SIDE, PATCH, DIM, HEADS, HIDDEN = 32, 8, 48, 3, 96
TOKENS = (SIDE // PATCH) ** 2 + 1
Head = Callable[["Writer", str], int]


class Writer:
    """Nodes and weights of a graph in the making."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.table = "tokens.table"  # what is left of it: a row for each token

    def weight(self, name: str, values: NDArray[Any]) -> str:
        self.weights[name] = values
        return name

    def random(self, name: str, *shape: int, scale: float = 1.0) -> str:
        values = self.rng.standard_normal(shape) * scale
        return self.weight(name, values.astype(np.float32))

    def add(self, op: str, inputs: list[str], *outputs: str, domain: str = "", **attr: Any) -> str:
        node = helper.make_node(op, inputs, list(outputs), name=outputs[0], domain=domain, **attr)
        self.nodes.append(node)
        return outputs[0]

    def norm(self, x: str, name: str, width: int) -> str:
        gamma = self.weight(
            f"{name}.weight", (1 + 0.1 * self.rng.standard_normal(width)).astype(np.float32)
        )
        beta = self.random(f"{name}.bias", width, scale=0.1)
        return self.add("LayerNormalization", [x, gamma, beta], name, axis=-1, epsilon=1e-6)

    def linear(
        self, x: str, name: str, k_in: int, n_out: int, k: str = "k", group: int = 1, scope: int = 0
    ) -> str:
        q, s = f"{name}.q", f"{name}.s"
        self.add("TopKGate", [x, k], q, s, domain=DOMAIN, group=group, scope=scope)
        w = self.rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        scale = np.array([0.8 / np.sqrt(k_in)], dtype=np.float32)
        inputs = [
            q,
            s,
            self.weight(f"{name}.weight", pack_ternary(w)),
            self.weight(f"{name}.scale", scale),
            self.random(f"{name}.bias", n_out, scale=0.05),
        ]
        return self.add("TernaryMatMul", inputs, name, domain=DOMAIN)


def tiny_model(
    head: str | Head = "cls",
    *,
    seed: int = 0,
    keep_after: tuple[int, ...] = (1,),
    mlp_norm: bool = False,
    group: int | dict[str, int] = 1,
    scope: int = 0,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    """The model; ``functions`` are the bodies of our operators (none: lowered, not run by ORT).

    ``head`` is a name, or a function that writes one behind the tokens [17, 48] and gives the
    descriptor's size.

    ``group`` is one number, or one for each of qkv, out, up and down.
    """
    w = Writer(seed)
    if head == "sides":
        w.weight(w.table, w.rng.uniform(0.1, 1.9, (TOKENS, 1)).astype(np.float32))
    layers = ("qkv", "out", "up", "down")
    groups = dict.fromkeys(layers, group) if isinstance(group, int) else group
    patch_weights = w.rng.integers(-127, 128, (DIM, PATCH * PATCH * 3)).astype(np.int8)
    x = w.add(
        "PatchEmbed",
        [
            "frame",
            w.weight("patch_embed.weight", patch_weights),
            w.weight("patch_embed.scale", np.full(DIM, 1e-5, dtype=np.float32)),
            w.random("patch_embed.bias", DIM, scale=0.1),
        ],
        "patch_embed",
        domain=DOMAIN,
    )
    x = w.add("Concat", [w.random("cls_token", 1, DIM), x], "embed.concat", axis=0)
    x = w.add("Add", [x, w.random("pos_embed", TOKENS, DIM, scale=0.3)], "embed")
    for i in range(2):
        b = f"blocks.{i}"
        h = w.norm(x, f"{b}.norm1", DIM)
        qkv = w.linear(h, f"{b}.qkv", DIM, 3 * DIM, group=groups["qkv"], scope=scope)
        y = w.add("QuantAttention", [qkv], f"{b}.attn", f"{b}.looked", domain=DOMAIN, heads=HEADS)
        out = w.linear(y, f"{b}.out", DIM, DIM, group=groups["out"], scope=scope)
        x = w.add("Add", [x, out], f"{b}.residual1")
        h = w.norm(x, f"{b}.norm2", DIM)
        h = w.linear(h, f"{b}.up", DIM, HIDDEN, group=groups["up"], scope=scope)
        h = w.add("Gelu", [h], f"{b}.gelu")
        if mlp_norm:
            h = w.norm(h, f"{b}.mlp_norm", HIDDEN)
        h = w.linear(h, f"{b}.down", HIDDEN, DIM, group=groups["down"], scope=scope)
        x = w.add("Add", [x, h], f"{b}.residual2")
        if i + 1 in keep_after:
            x = w.add("KeepTokens", [x, f"{b}.looked", "tokens"], f"{b}.keep", domain=DOMAIN)
            if head == "sides":
                beside = [w.table, f"{b}.looked", "tokens"]
                w.table = w.add("KeepTokens", beside, f"{b}.keep.table", domain=DOMAIN)
    write = _HEADS[head] if isinstance(head, str) else head
    size = write(w, w.norm(x, "norm", DIM))
    graph = helper.make_graph(
        w.nodes,
        "tiny",
        [
            helper.make_tensor_value_info("frame", TensorProto.UINT8, [SIDE, SIDE, 3]),
            helper.make_tensor_value_info("k", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [size])],
        [numpy_helper.from_array(v, name) for name, v in w.weights.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=10,
        functions=functions or [],
    )


def _rows(w: Writer, x: str, start: int, end: int) -> str:
    bounds = [
        w.weight(f"rows.{n}", np.array([v], dtype=np.int64))
        for n, v in (("start", start), ("end", end), ("axis", 0))
    ]
    return w.add("Slice", [x, *bounds], "head.rows")


def _finish(w: Writer, x: str) -> None:
    flat = w.weight("head.flat.shape", np.array([-1], dtype=np.int64))
    x = w.add("Reshape", [x, flat], "head.flat")
    w.add("LpNormalization", [x], "descriptor", axis=-1, p=2)


def _cls(w: Writer, x: str) -> int:
    w.weight("k.dense", np.array(1.0, dtype=np.float32))
    _finish(w, w.linear(_rows(w, x, 0, 1), "head.proj", DIM, 40, k="k.dense"))
    return 40


def _gem(w: Writer, x: str) -> int:
    def number(name: str, value: float) -> str:
        return w.weight(name, np.array(value, dtype=np.float32))

    x = _rows(w, x, 1, np.iinfo(np.int64).max)
    x = w.add("Clip", [x, number("floor", 1e-6)], "head.clip")
    x = w.add("Pow", [x, number("three", 3.0)], "head.cube")
    axes = w.weight("rows", np.array([0], dtype=np.int64))
    x = w.add("ReduceMean", [x, axes], "head.mean", keepdims=1)
    _finish(w, w.add("Pow", [x, number("third", 1 / 3)], "head.gem"))
    return DIM


def _sides(w: Writer, x: str) -> int:
    """The mean, and beside it how a mean of weighted patches differs from it."""
    bounds = [
        w.weight(f"index.{n}", np.array([v], dtype=np.int64))
        for n, v in (("start", 1), ("end", np.iinfo(np.int64).max), ("axis", 0))
    ]
    axes = w.weight("rows", np.array([0], dtype=np.int64))
    one, three, third = (
        w.weight(f"number.{n}", np.array(v, dtype=np.float32))
        for n, v in (("floor", 1e-6), ("three", 3.0), ("third", 1 / 3))
    )
    found = []
    for name in ("head.whole", "head.left"):
        y = w.add("Slice", [x, *bounds], f"{name}.rows")
        y = w.add("Pow", [w.add("Clip", [y, one], f"{name}.clip"), three], f"{name}.cube")
        if name == "head.left":
            weights = w.add("Slice", [w.table, *bounds], f"{name}.weights")
            y = w.add("Mul", [y, weights], f"{name}.weighted")
        y = w.add("ReduceMean", [y, axes], f"{name}.mean", keepdims=1)
        found.append(w.add("Pow", [y, third], name))
    w.weight("k.dense", np.array(1.0, dtype=np.float32))
    beside = w.add("Sub", found[::-1], "head.beside")
    total = w.linear(found[0], "head.proj", DIM, 40, k="k.dense")
    part = w.linear(beside, "head.aside", DIM, 40, k="k.dense")
    _finish(w, w.add("Add", [part, total], "head.sum"))
    return 40


def _learned(w: Writer, x: str) -> int:
    """Attention pooling with a small float MLP: softmax over the (run-time many) tokens."""
    score = w.add("MatMul", [x, w.random("head.query", DIM, 4, scale=0.2)], "head.score")
    weight = w.add("Softmax", [score], "head.softmax", axis=0)
    weight = w.add("Transpose", [weight], "head.turned", perm=[1, 0])
    pooled = w.add("MatMul", [weight, x], "head.pooled")
    y = w.add("MatMul", [pooled, w.random("head.up", DIM, 24, scale=0.2)], "head.up.matmul")
    y = w.add("Add", [y, w.random("head.up.bias", 24, scale=0.1)], "head.up.add")
    _finish(w, w.add("Relu", [y], "head.relu"))
    return 4 * 24


def mapped(operators: Callable[[Writer, str], tuple[str, int]]) -> Head:
    """A head that looks at patches as a map [1, 48, 4, 4]; ``operators`` turn it into a value of
    so many numbers."""

    def write(w: Writer, x: str) -> int:
        side = SIDE // PATCH
        patches = _rows(w, x, 1, TOKENS)
        turned = w.add("Transpose", [patches], "head.turned", perm=[1, 0])
        shape = w.weight("head.map.shape", np.array([1, DIM, side, side], dtype=np.int64))
        value, size = operators(w, w.add("Reshape", [turned, shape], "head.map"))
        _finish(w, value)
        return size

    return write


def _maximum(w: Writer, x: str) -> int:
    """The largest of every channel over the patches: what TVM compiles, behind a slice of rows."""
    axes = w.weight("rows", np.array([0], dtype=np.int64))
    x = _rows(w, x, 1, np.iinfo(np.int64).max)
    _finish(w, w.add("ReduceMax", [x, axes], "head.max", keepdims=0))
    return DIM


def _squared_cls(w: Writer, x: str) -> int:
    """CLS times itself: a slice of one row that TVM's part reads."""
    x = _rows(w, x, 0, 1)
    _finish(w, w.add("Mul", [x, x], "head.square"))
    return DIM


def _digits(w: Writer, x: str) -> int:
    """A projection as the sum of three ternary products of the same row."""
    w.weight("k.dense", np.array(1.0, dtype=np.float32))
    x = _rows(w, x, 0, 1)
    total = w.linear(x, "head.proj", DIM, 40, k="k.dense")
    for number in range(2):
        part = w.linear(x, f"head.finer.{number}", DIM, 40, k="k.dense")
        total = w.add("Add", [part, total], f"head.sum.{number}")
    _finish(w, total)
    return 40


_HEADS: dict[str, Head] = {
    "cls": _cls,
    "gem": _gem,
    "sides": _sides,
    "learned": _learned,
    "maximum": _maximum,
    "squared cls": _squared_cls,
    "digits": _digits,
}

"""One table of our operators; every name in every tool is made from it.

"Plugin not found" is the most reported fault of this field: the ONNX domain and the TensorRT
plugin's name, version and namespace all come from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DOMAIN = "ai.tatvpr"
#: 2: one reciprocal for each token, head or row, then products; 1 divided element by element.
VERSION = 2
#: Opset of the standard operators in the bodies of ours, and so in every file that carries them.
OPSET = 20


@dataclass(frozen=True)
class Operator:
    """One custom operator.

    ``inputs`` and ``outputs`` are (name, ONNX element type, shape in words); ``attributes`` maps
    a name to its default (``None``: required).
    """

    name: str
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    attributes: dict[str, int | None] = field(default_factory=dict)
    summary: str = ""

    @property
    def tensorrt_name(self) -> str:
        """Plugin name: the ONNX op_type, which is how the TensorRT parser looks it up."""
        return self.name

    @property
    def tensorrt_version(self) -> str:
        """Plugin version string."""
        return str(VERSION)

    @property
    def tensorrt_namespace(self) -> str:
        """Plugin namespace: the ONNX domain, which the parser tries when no attribute says one."""
        return DOMAIN

    @property
    def snake_name(self) -> str:
        """``TernaryMatMul`` -> ``ternary_mat_mul``."""
        return "".join("_" + c.lower() if c.isupper() else c for c in self.name).lstrip("_")


_ALL = (
    Operator(
        "PatchEmbed",
        inputs=(
            ("pixels", "uint8", "[H, W, 3]"),
            ("W", "int8", "[D, P*P*3]"),
            ("scale", "float32", "[D]"),
            ("bias", "float32", "[D]"),
        ),
        outputs=(("Y", "float32", "[(H/P)*(W/P), D]"),),
        summary="8-bit patch projection: (sum (p - 128) * w) * scale + bias",
    ),
    Operator(
        "TopKGate",
        inputs=(("X", "float32", "[..., T, K]"), ("k", "float32", "[]")),
        outputs=(("Q", "int8", "[..., T, K]"), ("S", "float32", "[..., T, 1]")),
        attributes={"group": 1, "scope": 0},
        summary="quantise each token to int8 and keep its largest fraction k",
    ),
    Operator(
        "TernaryMatMul",
        inputs=(
            ("Q", "int8", "[..., K]"),
            ("S", "float32", "[..., 1]"),
            ("W", "int8", "[N, ceil(K/4)]"),
            ("scale", "float32", "[1 or N]"),
            ("bias", "float32", "[N]"),
        ),
        outputs=(("Y", "float32", "[..., N]"),),
        summary="int8 activations times weights in {-1, 0, +1}",
    ),
    Operator(
        "QuantAttention",
        inputs=(("QKV", "float32", "[T, 3*D]"),),
        outputs=(("Y", "float32", "[T, D]"), ("A", "float32", "[T]")),
        attributes={"heads": None},
        summary="8-bit self-attention; A is what the CLS token looks at",
    ),
    Operator(
        "KeepTokens",
        inputs=(("X", "float32", "[T, D]"), ("A", "float32", "[T]"), ("tokens", "float32", "[]")),
        outputs=(("Y", "float32", "[1 + n, D]"),),
        summary="drop the patch tokens that the CLS token looks at least",
    ),
)

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in _ALL}

# What the TensorRT route makes of the table above: gate and matmul in one plugin, so that no int8
# tensor crosses an edge of the engine. Same domain, version and namespace.
GATED_TERNARY_MAT_MUL = Operator(
    "GatedTernaryMatMul",
    inputs=(
        ("X", "float32", "[T, K]"),
        ("k", "float32", "[]"),
        ("W", "int8", "[N, ceil(K/4)]"),
        ("scale", "float32", "[1 or N]"),
        ("bias", "float32", "[N]"),
    ),
    outputs=(("Y", "float32", "[T, N]"),),
    attributes={"group": 1, "scope": 0},
    summary="TernaryMatMul(TopKGate(X, k), W, scale, bias)",
)
PLUGINS: dict[str, Operator] = {
    operator.name: operator for operator in (GATED_TERNARY_MAT_MUL, OPERATORS["QuantAttention"])
}

#: SHA-256 of each operator's ONNX function at VERSION as the exporter writes it (protobuf's
#: deterministic bytes). Attention has two: sums in float32, and in float64 from 1,041 tokens on.
BODY_SHA256: dict[str, tuple[str, ...]] = {
    "PatchEmbed": ("a60564c3d0f0c200c7f7a49a78a5c30445333848d73c08a8f249c959aea745e1",),
    "TopKGate": ("0872f1712330ce383c540769a5d8ea1e6fc900df048724e41e50cfed716fe91f",),
    "TernaryMatMul": ("6dd28834aee6b7e4666dd81e9598c489b8130b84fca6739f1211edbcc48fdb77",),
    "QuantAttention": (
        "c7db855273631f21022cca5a41cd1543dbf14325f049c7ad53119b3f537a9bfa",
        "d8e9ca056dbd56969a04ad6eb0676d07ff1d140be55b177797aa2e49f93b343d",
    ),
    "KeepTokens": ("f724a9ab906ba657021400360ad33cd4eb5c8082ab1b4ce3473e5d96e185657a",),
}

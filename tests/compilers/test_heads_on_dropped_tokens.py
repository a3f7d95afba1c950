"""Heads whose values have as many columns as tokens are left, or take CLS by its number: what a
user of torch writes as ``attention[0]``, ``tokens[0]``, or pooling with weights of tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.tiny_model import DIM, SIDE, TOKENS, Writer, tiny_model
from support.tools import require_tool
from tatvpr_edge import build, plan
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.checks import check_model
from tatvpr_edge.compilers.golden import cosine, synthetic_frame
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.reference import Reference
from tatvpr_edge.compilers.tvm.lower import lower
from tatvpr_edge.models.export import bodies
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN

#: What follows the tokens, [T, 48]: a value of 48 numbers.
Write = Callable[[Writer, str], str]
LAST = int(np.iinfo(np.int64).max)


def number(w: Writer, value: float) -> str:
    return w.weight(f"number.{value:g}", np.array(value, np.float32))


def whole(w: Writer, *values: int) -> str:
    return w.weight("whole." + ".".join(map(str, values)), np.array(values, np.int64))


def rows(w: Writer, x: str, start: int, end: int) -> str:
    return w.add("Slice", [x, whole(w, start), whole(w, end), whole(w, 0)], f"{x}.rows")


def among_tokens(w: Writer, x: str) -> str:
    """What every token is to every other, [T, T]."""
    turned = w.add("Transpose", [x], "head.turned", perm=[1, 0])
    return w.add("MatMul", [x, turned], "head.alike")


def pooled(w: Writer, shares: str, x: str) -> str:
    return w.add("MatMul", [w.add("Softmax", [shares], "head.shares", axis=-1), x], "head.pooled")


def what_cls_sees(w: Writer, x: str) -> str:
    return pooled(w, rows(w, among_tokens(w, x), 0, 1), x)


def first_of_patches(w: Writer, x: str) -> str:
    """A slice of a slice."""
    y = w.add("Neg", [rows(w, x, 1, LAST)], "head.less")
    return w.add("Tanh", [rows(w, y, 0, 1)], "head.bent")


def what_patches_see(w: Writer, x: str) -> str:
    seen = pooled(w, rows(w, among_tokens(w, x), 1, LAST), x)
    return w.add("ReduceMean", [seen, whole(w, 0)], "head.mean", keepdims=1)


def attention_of_unit_length(w: Writer, x: str) -> str:
    unit = w.add("LpNormalization", ["blocks.1.looked"], "head.unit", axis=-1, p=2)
    return w.add("MatMul", [w.add("Unsqueeze", [unit, whole(w, 0)], "head.row"), x], "head.pooled")


def mean_of_each_token(w: Writer, x: str) -> str:
    """GeM over channels, [1, T]."""
    y = w.add("Transpose", [x], "head.turned", perm=[1, 0])
    y = w.add("Pow", [w.add("Clip", [y, number(w, 1e-6)], "head.clip"), number(w, 3)], "head.cube")
    y = w.add("ReduceMean", [y, whole(w, 0)], "head.mean", keepdims=1)
    return w.add("MatMul", [w.add("Pow", [y, number(w, 1 / 3)], "head.gem"), x], "head.pooled")


def picked(*index: int) -> Write:
    def write(w: Writer, x: str) -> str:
        at = whole(w, *index) if index else w.weight("zero", np.array(0, np.int64))
        return w.add("Gather", [x, at], "head.picked", axis=0)

    return write


def from_the_end(w: Writer, x: str) -> str:
    """The first of two axes, called by its distance from the end."""
    y = w.add("Slice", [x, whole(w, 1), whole(w, LAST), whole(w, -2)], "head.patches")
    mean = w.add("ReduceMean", [y, whole(w, 0)], "head.mean")
    cls = w.add("Gather", [x, w.weight("zero", np.array(0, np.int64))], "head.cls", axis=-2)
    return w.add("Add", [mean, cls], "head.sum")


def gelu_of_one_number(w: Writer, x: str) -> str:
    cls = rows(w, x, 0, 1)
    mean = w.add("ReduceMean", [cls, whole(w, 0, 1)], "head.mean", keepdims=0)
    return w.add("Add", [cls, w.add("Gelu", [mean], "head.gelu")], "head.sum")


def size_of_the_frame(w: Writer, x: str) -> str:
    """Exporters ask for it; no pixel is read."""
    shape = w.add("Shape", ["frame"], "head.shape", start=-3, end=2)
    sides = w.add("Cast", [shape], "head.sides", to=1)
    mean = w.add("ReduceMean", [sides], "head.mean", keepdims=0)
    numbers = w.add("Cast", [w.add("Size", ["frame"], "head.size")], "head.numbers", to=1)
    share = w.add("Div", [mean, numbers], "head.share")
    return w.add("Add", [rows(w, x, 0, 1), share], "head.sum")


def sums_of_two_counts(w: Writer, x: str) -> str:
    """TVM makes one kernel of both sums: the second one was of as many rows as the first."""
    total = w.add("ReduceSum", [x, whole(w, 0)], "head.total", keepdims=1)
    left = w.add("KeepTokens", [x, "blocks.1.looked", "tokens"], "head.keep", domain=DOMAIN)
    part = w.add("ReduceSum", [left, whole(w, 0)], "head.part", keepdims=1)
    return w.add("Sub", [total, part], "head.lost")


def model_of(write: Write, **options: Any) -> onnx.ModelProto:
    def head(w: Writer, x: str) -> int:
        flat = w.add("Reshape", [write(w, x), whole(w, -1)], "head.flat")
        w.add("LpNormalization", [flat], "descriptor", axis=-1, p=2)
        return DIM

    return tiny_model(head, functions=bodies.bodies(TOKENS), **options)


@pytest.mark.parametrize(
    "write",
    [
        *(what_cls_sees, what_patches_see, attention_of_unit_length, mean_of_each_token),
        first_of_patches,
        *(pytest.param(picked(), id="CLS"), pytest.param(picked(1), id="first patch")),
        *(gelu_of_one_number, from_the_end, size_of_the_frame, sums_of_two_counts),
    ],
)
def test_it_answers_as_onnx_runtime_does(write: Write, tmp_path: Path) -> None:
    require_tool("gcc", "gcc")
    model = model_of(write)
    lowered = lower(check_model(model), "own")
    library = open_library(compile_linux(lowered, load("host"), tmp_path / "host"), lowered)
    reference = Reference(model, check_model(model))
    frame = synthetic_frame(0, SIDE, SIDE)
    for tokens in (1.0, 0.5, 0.1):
        wanted = reference.run(frame, 1.0, tokens)["descriptor"]
        got = library.describe(check_frame(frame), 1.0, tokens).descriptor
        assert cosine(got, wanted) > 0.9999, tokens


def gate_over_tokens(w: Writer, x: str) -> str:
    return w.linear(w.add("Transpose", [x], "head.turned", perm=[1, 0]), "head.odd", TOKENS, 1)


def rows_of_truths(w: Writer, x: str) -> str:
    above = rows(w, w.add("Greater", [x, number(w, 0)], "head.above"), 0, 1)
    return w.add("Cast", [above], "head.float", to=onnx.TensorProto.FLOAT)


def from_the_second_patch(w: Writer, x: str) -> str:
    """At few tokens there is none: the sum was what lay in memory."""
    return w.add("ReduceSum", [rows(w, x, 2, LAST), whole(w, 0)], "head.sum", keepdims=1)


def patches_but_the_first(w: Writer, x: str) -> str:
    return w.add("ReduceSum", [rows(w, rows(w, x, 1, LAST), 1, LAST), whole(w, 0)], "head.sum")


def last_patch(w: Writer, x: str) -> str:
    return rows(w, x, -1, LAST)


def rows_by_no_axes(w: Writer, x: str) -> str:
    """ONNX begins at the first axis then."""
    second = w.add("Slice", [x, whole(w, 2), whole(w, LAST)], "head.second")
    return w.add("ReduceSum", [second, whole(w, 0)], "head.sum")


def rows_and_columns(w: Writer, x: str) -> str:
    bounds = [whole(w, 1, 0), whole(w, LAST, 24), whole(w, 0, 1)]
    return w.add("ReduceSum", [w.add("Slice", [x, *bounds], "head.part"), whole(w, 0)], "head.sum")


def in_half(w: Writer, x: str) -> str:
    half = w.add("Cast", [rows(w, x, 0, 1)], "head.half", to=onnx.TensorProto.FLOAT16)
    return w.add("Cast", [w.add("Gelu", [half], "gelu")], "head.float", to=onnx.TensorProto.FLOAT)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (gate_over_tokens, "TopKGate 'head.odd.q': 'head.turned' has kept_tokens columns"),
        (picked(-1), "take rows of tokens by Slice"),
        *(
            (write, "these rows of tokens may not be left")
            for write in (
                *(from_the_second_patch, patches_but_the_first, last_patch),
                rows_by_no_axes,
            )
        ),
        (rows_and_columns, "give each axis a Slice of its own"),
        (rows_of_truths, "write the head with other operators"),
        (in_half, "float16, which is not lowered: write that part of the head in float32"),
    ],
)
def test_what_is_not_lowered_is_one_line_with_a_remedy(
    write: Write, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.onnx"
    onnx.save(model_of(write), path)
    with pytest.raises(ModelError) as told:
        plan("host", model=path)
    assert said in str(told.value) and "\n" not in str(told.value)


def mixed_by_number(w: Writer, x: str) -> str:
    """A weight for each of all tokens: of fewer, what was compiled read on behind them."""
    return w.add("MatMul", [w.random("head.mix", 1, TOKENS), x], "head.mixed")


def without_the_last_three(w: Writer, x: str) -> str:
    """Nine tokens, as half of all are, can do without three, and two cannot."""
    fewer = w.add("Pad", [x, whole(w, 0, 0, -3, 0)], "head.fewer")
    return w.add("ReduceSum", [fewer, whole(w, 0)], "head.sum")


@pytest.mark.parametrize(
    ("write", "k_range", "tokens"),
    [(mixed_by_number, (0.05, 0.3), "0.5"), (without_the_last_three, (0.05, 1.0), "1e-06")],
)
def test_fewer_tokens_are_tried_whatever_k_the_artifact_is_for(
    write: Write, k_range: tuple[float, float], tokens: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.onnx"
    onnx.save(model_of(write), path)
    said = rf"tokens = {tokens} ONNX Runtime cannot compute it: .*without KeepTokens$"
    with pytest.raises(ModelError, match=said):
        build("host", model=path, output=tmp_path / "A", k_range=k_range)

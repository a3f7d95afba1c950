"""A head of standard operators that TVM cannot lower is one line, whatever TVM raises of its own,
and nothing of TVM's script reaches a terminal or the one JSON document of ``--json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.tiny_model import DIM, Head, Writer, tiny_model
from tatvpr_edge import plan
from tatvpr_edge.cli import main
from tatvpr_edge.compilers.tvm.refusals import tvm_lowers
from tatvpr_edge.models.export import bodies
from tatvpr_edge.spec.errors import ArtifactError, ModelError, TatvprError

TOKENS = 17


def head(write: Callable[[Writer, str], str], size: int = DIM) -> Head:
    """A head that makes its descriptor of the first token, [1, 48], by ``write``."""

    def made(w: Writer, x: str) -> int:
        bounds = [
            w.weight(f"bound.{n}", np.array([v], np.int64)) for n, v in (("from", 0), ("to", 1))
        ]
        token = w.add("Slice", [x, *bounds, bounds[0]], "head.token")
        flat = w.weight("head.flat.shape", np.array([-1], np.int64))
        value = w.add("Reshape", [write(w, token), flat], "head.flat")
        w.add("LpNormalization", [value], "descriptor", axis=-1, p=2)
        return size

    return made


def by_zero(w: Writer, x: str) -> str:
    return w.add("Div", [x, w.weight("zero", np.array(0, np.float32))], "head.odd")


def other_shape(w: Writer, x: str) -> str:
    return w.add("Reshape", [x, w.weight("shape", np.array([7, 7], np.int64))], "head.odd")


def unknown_to_tvm(w: Writer, x: str) -> str:
    return w.add("Celu", [x], "head.odd")


def more_than_memory(w: Writer, x: str) -> str:
    shape = w.weight("shape", np.array([1 << 40, DIM], np.int64))
    huge = w.add("ConstantOfShape", [shape], "head.huge")
    axes = w.weight("axes", np.array([0], np.int64))
    return w.add("Add", [x, w.add("ReduceMean", [huge, axes], "head.mean", keepdims=1)], "head.odd")


@pytest.mark.parametrize("write", [by_zero, other_shape, unknown_to_tvm, more_than_memory])
def test_what_tvm_cannot_lower_is_one_line(
    write: Callable[[Writer, str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(tiny_model(head(write), functions=bodies.bodies(TOKENS)), path)
    with pytest.raises(ModelError) as told:
        plan("host", model=path)
    assert str(told.value).isprintable() and len(str(told.value)) < 500
    assert main(["build", "--board", "host", "--model", str(path), "--dry-run", "--json"]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "fault of tatvpr-edge" not in lines[0]
    assert "metadata[" not in said.err and "R.shape" not in said.err.replace(lines[0], "")


def test_what_a_plan_refuses_itself_is_not_told_as_tvms() -> None:
    own = ArtifactError("the plan has another fault")
    with pytest.raises(TatvprError) as told, tvm_lowers(lambda _: "the rest"):
        raise own
    assert told.value is own

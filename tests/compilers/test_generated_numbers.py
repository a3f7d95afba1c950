"""Numbers written into the generated C are the model's, to the last bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tatvpr_edge
from tatvpr_edge.compilers.steps.c_text import c_float


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_literal_reads_back_to_the_same_bits(value: float) -> None:
    text = c_float(value)
    assert re.fullmatch(r"-?(\d+\.\d*|\d+)(e[-+]\d+)?f", text), text
    assert re.search(r"[.e]", text), f"{text} is no C literal of a float"
    assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_what_has_no_literal_is_refused(value: float) -> None:
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="no C literal"):
        c_float(value)


def test_the_model_c_of_a_build_holds_every_digit(tiny_onnx: Path, tmp_path: Path) -> None:
    """Six digits, as printf gives, are 1.00000e-06 for this floor: another model."""
    floor = np.float32(1.0000001e-6)
    model = onnx.load(tiny_onnx)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = float(floor)
    onnx.save(model, tmp_path / "odd.onnx")
    built = tatvpr_edge.build("host", model=tmp_path / "odd.onnx", output=tmp_path / "artifact")
    written = {
        np.float32(text).tobytes()
        for text in re.findall(r"\.eps = ([-+.e\d]+)f", (built / "src" / "model.c").read_text())
    }
    assert written == {floor.tobytes()}

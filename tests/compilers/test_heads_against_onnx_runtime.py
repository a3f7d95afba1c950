"""A user's own head is built to what ONNX Runtime computes on the same file, or refused by name.

The public symptom: a model trained elsewhere finds fewer places on the board than in its own
framework, and `verify` says that all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tatvpr_edge
from support.tiny_model import SIDE, TOKENS, Head, Writer, mapped
from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.checks import check_model, checked_graph
from tatvpr_edge.compilers.golden import DriftPoint, cosine, synthetic_frame
from tatvpr_edge.compilers.job import Job
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.proof import distance, prove
from tatvpr_edge.compilers.reference import Reference
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ModelError

Tiny = Callable[..., onnx.ModelProto]
RESIZES: dict[str, tuple[list[float], dict[str, Any]]] = {
    "fractional scales": ([1, 1, 1.5, 1.3], {"mode": "linear"}),
    "fractional scales of a corner": (
        [1, 1, 1.6, 1.3],
        {"mode": "cubic", "coordinate_transformation_mode": "asymmetric"},
    ),
    "aligned corners": (
        [1, 1, 1.6, 2.3],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "nearest": ([1, 1, 1.6, 0.8], {"mode": "nearest", "nearest_mode": "floor"}),
    "smaller, antialiased": ([1, 1, 0.6, 0.7], {"mode": "linear", "antialias": 1}),
}


def resizing(scales: list[float], **attributes: Any) -> Head:
    """A head with one Resize by ``scales``."""

    def operators(w: Writer, x: str) -> tuple[str, int]:
        factors = w.weight("head.scales", np.array(scales, np.float32))
        height, width = (int(np.floor(4 * s)) for s in scales[2:])
        return w.add("Resize", [x, "", factors], "head.resize", **attributes), 48 * height * width

    return mapped(operators)


def one(op: str, size: int, *weights: Any, **attributes: Any) -> Head:
    """A head with one operator on its map."""

    def operators(w: Writer, x: str) -> tuple[str, int]:
        given = [w.weight(f"head.weight{i}", value) for i, value in enumerate(weights)]
        return w.add(op, [x, *given], "head.op", **attributes), size

    return mapped(operators)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "own.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", RESIZES)
def test_a_head_that_resizes_answers_as_onnx_runtime_does(
    name: str, tiny: Tiny, tmp_path: Path
) -> None:
    require_tool("gcc", "gcc")
    scales, attributes = RESIZES[name]
    model = tiny(resizing(scales, **attributes), keep_after=())
    artifact = tatvpr_edge.build(
        "host", model=saved(model, tmp_path), output=tmp_path / "own", k_range=(0.4, 1.0)
    )
    reference = Reference(model, check_model(model))
    frame = synthetic_frame(3, 32, 32)
    with Localizer(artifact, k=1.0) as localizer:
        wanted = reference.run(frame, 1.0, 1.0)["descriptor"]
        assert cosine(localizer.describe(frame), wanted) > 0.9999


def test_a_head_that_resizes_is_built_for_a_microcontroller(tiny: Tiny, tmp_path: Path) -> None:
    board = load("mps2-an386")
    require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    require_tool("gcc", "gcc")
    scales, attributes = RESIZES["fractional scales"]
    path = saved(tiny(resizing(scales, **attributes), keep_after=()), tmp_path)
    said: list[str] = []
    made = tatvpr_edge.build(
        "mps2-an386",
        model=path,
        output=tmp_path / "own",
        k_range=(0.4, 1.0),
        progress=lambda what, done, of: said.append(what),
    )
    assert "against ONNX Runtime" in said and (made / "src" / "kernels.c").exists()


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (
            one(
                "ConvTranspose",
                8 * 64,
                np.ones((48, 8, 3, 3), np.float32),
                strides=[2, 2],
                output_shape=[8, 8],
            ),
            "ConvTranspose 'head.op'",
        ),
        (one("Celu", 48 * 16, alpha=0.5), "Celu 'head.op'"),
        (one("LpNormalization", 48 * 16, axis=1, p=1), "LpNormalization 'head.op'"),
        (
            resizing(
                [1, 1, 1.5, 1.5],
                mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
            ),
            "Resize 'head.resize'",
        ),
    ],
    ids=["another shape", "unknown", "another norm", "cropping"],
)
def test_what_cannot_be_compiled_is_refused_by_the_name_of_its_node(
    head: Head, named: str, tiny: Tiny, tmp_path: Path
) -> None:
    path = saved(tiny(head, keep_after=()), tmp_path)
    with pytest.raises(ModelError, match=named) as refused:
        tatvpr_edge.plan("host", model=path)
    assert "\n" not in str(refused.value)


def _job(model: onnx.ModelProto, folder: Path) -> tuple[Job, Lowered]:
    graph = check_model(model)
    job = Job(load("host"), folder / "own.onnx", graph, "own", (0.2, 1.0), "tvm", _silent)
    return job, lower(graph, "own")


def with_half_scaled(
    model: onnx.ModelProto, names: tuple[str, ...], factor: float
) -> onnx.ModelProto:
    """A copy of ``model`` in which the first halves of some weights are multiplied."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name in names:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[: values.size // 2] *= factor
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return other


def _silent(what: str, done: int, of: int) -> None:
    pass


@pytest.mark.parametrize("head", ["gem", "cls", "learned"])
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_a_head_that_is_a_thousandth_off_is_seen(
    head: str, wrong: bool, tiny: Tiny, tmp_path: Path
) -> None:
    """What was compiled here is of a model whose head's last weights were scaled, or is right."""
    require_tool("gcc", "gcc")
    model = tiny(head, keep_after=())
    job, lowered = _job(model, tmp_path)
    built = lowered
    if wrong:
        names = ("norm.weight", "head.proj.bias", "head.up.bias")
        _, built = _job(with_half_scaled(model, names, 1.02), tmp_path)
    core = open_library(compile_linux(built, load("host"), tmp_path / "host"), built)
    points = [DriftPoint(k, 1.0, 0.9) for k in (1.0, 0.4)]  # so lax that the whole file passes
    if not wrong:
        prove(job, lowered.matched, core, points)
        return
    with pytest.raises(ModelError, match="its head, fed the same tokens, is off by"):
        prove(job, lowered.matched, core, points)


def test_a_backbone_that_differs_is_seen_by_the_cosine(tiny: Tiny, tmp_path: Path) -> None:
    require_tool("gcc", "gcc")
    job, lowered = _job(tiny("gem", keep_after=()), tmp_path)
    _, other = _job(
        with_half_scaled(tiny("gem", keep_after=()), ("blocks.0.up.bias",), 9), tmp_path
    )
    core = open_library(compile_linux(other, load("host"), tmp_path / "host"), other)
    with pytest.raises(ModelError, match=r"has cosine \S+ to ONNX Runtime on the same file"):
        prove(job, lowered.matched, core, [DriftPoint(1.0, 1.0, 0.9999)])


def test_a_cube_that_is_tvms_is_two_products_and_no_warning(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A weighted mean of cubes with a weight of 0, which the core does not take for its own."""
    require_tool("gcc", "gcc")
    model = tiny("sides", keep_after=(1,))
    table = next(t for t in model.graph.initializer if t.name == "tokens.table")
    weights = numpy_helper.to_array(table).copy()
    weights[3] = 0
    table.CopyFrom(numpy_helper.from_array(weights, table.name))
    job, lowered = _job(model, tmp_path)
    core = open_library(compile_linux(lowered, load("host"), tmp_path / "host"), lowered)
    prove(job, lowered.matched, core, [DriftPoint(k, t, 0.9) for k in (1.0, 0.4) for t in (1, 0.5)])
    assert "arning" not in capfd.readouterr().err


def test_what_onnx_runtime_cannot_compute_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    """A product over all patches, where KeepTokens left half of them."""
    model = tiny("gem", keep_after=(1,))
    shares = numpy_helper.from_array(np.full((1, TOKENS - 1), 0.1, np.float32), "shares")
    model.graph.initializer.append(shares)
    nodes = list(model.graph.node)
    (mean,) = (n for n in nodes if n.op_type == "ReduceMean")
    product = helper.make_node("MatMul", ["shares", mean.input[0]], [mean.output[0]], name="all")
    nodes[nodes.index(mean)] = product
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    graph = checked_graph(path)
    assert graph.model is not None
    whole = Reference(graph.model, graph)
    frame = synthetic_frame(0, SIDE, SIDE)
    whole.run(frame, 1.0, 1.0)
    with pytest.raises(ModelError, match=r"tokens = 0\.5 ONNX Runtime cannot compute it: .*'all'"):
        whole.run(frame, 1.0, 0.5)


def test_the_operator_that_is_off_is_found_by_itself(tiny: Tiny) -> None:
    from tatvpr_edge.compilers.tvm.blame import first_wrong

    graph = check_model(tiny("learned", keep_after=()))
    assert graph.model is not None
    every = Reference(graph.model, graph, every=True, behind="blocks.1.residual2")
    tokens = np.random.default_rng(0).standard_normal((17, 48)).astype(np.float32)
    values = every.run_behind("blocks.1.residual2", tokens, 1.0, 1.0)
    assert first_wrong(every.nodes, values, graph, 1e-5) is None
    values["head.softmax"] = values["head.softmax"] * np.float32(1.001)
    found = first_wrong(every.nodes, values, graph, 1e-5)
    assert found is not None and found[0].name == "head.softmax"
    assert found[1] == pytest.approx(0.001, rel=0.1)


def test_what_is_not_finite_is_infinitely_far() -> None:
    ones = np.ones(3, np.float32)
    assert distance(ones, ones) == 0.0
    assert distance(ones * 2, ones) == 1.0
    assert distance(np.array([np.nan, 1, 1], np.float32), ones) == float("inf")
    assert distance(ones * 0, ones * 0) == 0.0


def test_zeros_agree_with_nothing_but_zeros() -> None:
    """NaN counted as a cosine of 1: an answer of zeros agreed with any."""
    ones, none = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert cosine(none, ones) == cosine(ones, none) == 0.0
    assert cosine(none, none) == 1.0
    assert not cosine(ones * np.float32(np.nan), ones) >= -1.0


def test_a_head_that_answers_zeros_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    require_tool("gcc", "gcc")

    def cut_off(w: Writer, x: str) -> tuple[str, int]:
        return w.add("Mul", [x, w.weight("none", np.zeros(1, np.float32))], "head.none"), 48 * 16

    path = saved(tiny(mapped(cut_off), keep_after=()), tmp_path)
    with pytest.raises(ModelError, match="descriptor is all zeros at k = 1"):
        tatvpr_edge.build("host", model=path, output=tmp_path / "own", k_range=(1.0, 1.0))


def test_settings_that_are_nearly_the_same_have_vectors_of_their_own(
    tiny: Tiny, tmp_path: Path
) -> None:
    """A file was named by six digits, and the second setting's took its place."""
    require_tool("gcc", "gcc")
    made = tatvpr_edge.build(
        "host", model=saved(tiny(), tmp_path), output=tmp_path / "own", k_range=(0.4, 0.6000001)
    )
    paths = [point.path for point in read_artifact(made).manifest.golden.points]
    assert len(set(paths)) == len(paths) and "golden/k0.6-t1.f32" in paths

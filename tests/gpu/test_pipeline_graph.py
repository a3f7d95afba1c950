"""What TensorRT receives computes the model: the stages run under ONNX Runtime, bodies put back.

The launches between the stages (PatchEmbed, KeepTokens) are the NumPy reference here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from support.stage_bodies import runnable
from support.tiny_model import DIM, TOKENS, Head, Writer, tiny_model
from tatvpr_edge.compilers.checks import check_model, checked_graph
from tatvpr_edge.compilers.reference import Reference
from tatvpr_edge.compilers.tensorrt.graph import (
    KEPT_TABLE,
    KEPT_TOKENS,
    PATCHES,
    Pipeline,
    build_pipeline,
)
from tatvpr_edge.compilers.tensorrt.names import names_header
from tatvpr_edge.models import registry
from tatvpr_edge.models.export import bodies, export_onnx
from tatvpr_edge.spec import reference
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN, PLUGINS


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensorrt") / "micro.onnx"
    export_onnx(registry.create("micro", seed=3), path)
    return path


@pytest.fixture(scope="module")
def pipeline(onnx_file: Path) -> Pipeline:
    return build_pipeline(checked_graph(onnx_file))


def _session(stage: onnx.ModelProto, original: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        runnable(stage, original).SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_no_function_body_is_left_to_shadow_a_plugin(pipeline: Pipeline) -> None:
    for stage in pipeline.stages:
        assert not stage.model.functions
        ours = {n.op_type for n in stage.model.graph.node if n.domain == DOMAIN}
        assert ours <= set(PLUGINS)
        assert all(n.op_type in PLUGINS or n.domain == "" for n in stage.model.graph.node)
        int8 = [i for i in stage.model.graph.initializer if i.data_type == onnx.TensorProto.INT8]
        assert int8, "weights stay packed int8"
        assert not any(i.data_type == onnx.TensorProto.UINT8 for i in stage.model.graph.initializer)


def test_plugins_are_found_by_what_the_graph_says(pipeline: Pipeline) -> None:
    """A plugin is looked up by the type, version and namespace of its node; the C++ plugins
    are registered under the header's text."""
    defined = dict(re.findall(r'#define TATVPR_(\w+) "([^"]*)"', names_header()))
    version, namespace = defined.pop("PLUGIN_VERSION"), defined.pop("PLUGIN_NAMESPACE")
    wanted = {("GatedTernaryMatMul", "2", "ai.tatvpr"), ("QuantAttention", "2", "ai.tatvpr")}
    assert {(name, version, namespace) for name in defined.values()} == wanted
    asked = set()
    for stage in pipeline.stages:
        for node in stage.model.graph.node:
            said = {a.name: a.s.decode() for a in node.attribute if a.type == a.STRING}
            if node.domain:
                asked.add((node.op_type, said["plugin_version"], said["plugin_namespace"]))
    assert asked == wanted


@pytest.mark.parametrize(("k", "tokens"), [(1.0, 1.0), (0.4, 0.5), (0.1, 0.2)])
def test_the_stages_compute_the_model(
    onnx_file: Path, pipeline: Pipeline, k: float, tokens: float
) -> None:
    original = onnx.load(onnx_file)
    whole = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    dial_k, dial_tokens = np.asarray(k, np.float32), np.asarray(tokens, np.float32)
    (expected,) = whole.run(["descriptor"], {"frame": frame, "k": dial_k, "tokens": dial_tokens})

    front, back = pipeline.stages
    assert back.dynamic == KEPT_TOKENS
    patches = reference.patch_embed(
        frame, pipeline.patch_weight, pipeline.patch_scale, pipeline.patch_bias
    )
    x, a = _session(front.model, original).run(list(front.outputs), {PATCHES: patches, "k": dial_k})
    kept = reference.keep_tokens(x, a, tokens)
    assert pipeline.table is not None and back.table == KEPT_TABLE and front.table is None
    table = reference.keep_tokens(pipeline.table, a, tokens)
    assert x.shape[0] == pipeline.max_tokens
    (descriptor,) = _session(back.model, original).run(
        list(back.outputs), {KEPT_TOKENS: kept, KEPT_TABLE: table, "k": dial_k}
    )
    # GELU is spelled with Erf here: its last bit may flip a rounding downstream
    assert float(descriptor @ expected) > 0.999


def own_head(w: Writer, x: str) -> int:
    """Values called as stages' inputs once were, and a GELU of a vector."""
    bounds = [w.weight(f"bound.{n}", np.array([n], np.int64)) for n in (0, 1)]
    cls = w.add("Slice", [x, *bounds, bounds[0]], "kept")
    row = w.add("Tanh", [cls], "patches")
    vector = w.add("Squeeze", [row, bounds[0]], "kept_table")
    w.add("LpNormalization", [w.add("Gelu", [vector], "head.gelu")], "descriptor", axis=-1, p=2)
    return DIM


def test_a_head_of_ones_own_is_the_same_whatever_its_values_are_called() -> None:
    """An input of a stage and a value of the head had one name, and the vector became a matrix."""
    model = tiny_model(own_head, functions=bodies.bodies(TOKENS))
    _, back = build_pipeline(check_model(model)).stages
    kept = np.random.default_rng(0).standard_normal((9, DIM)).astype(np.float32)
    feed = {KEPT_TOKENS: kept, "k": np.asarray(1, np.float32)}
    (made,) = _session(back.model, model).run(["descriptor"], feed)
    head = Reference(model, check_model(model), behind="blocks.0.keep")
    wanted = head.run_behind("blocks.0.keep", kept, 1.0, 1.0)["descriptor"]
    assert made.shape == (DIM,) and float(made @ wanted) > 0.999


def test_no_stage_asks_for_the_frame() -> None:
    """None has it: its shape is a constant."""

    def head(w: Writer, x: str) -> int:
        number = w.add("Cast", [w.add("Size", ["frame"], "head.size")], "head.number", to=1)
        own_head(w, w.add("Div", [x, number], "head.small"))
        return DIM

    stages = build_pipeline(check_model(tiny_model(head))).stages
    assert not any("frame" in node.input for stage in stages for node in stage.model.graph.node)


def test_an_approximate_gelu_is_refused() -> None:
    """It became the exact one."""
    model = tiny_model(own_head)
    gelu = next(n for n in model.graph.node if n.name == "head.gelu")
    gelu.attribute.append(onnx.helper.make_attribute("approximate", "tanh"))
    with pytest.raises(ModelError, match=r"Gelu 'head.gelu' is an approximate GELU.*tvm"):
        build_pipeline(check_model(model))


def beside_the_kept(w: Writer, x: str) -> int:
    """A mean of all tokens of the first block, beside what KeepTokens left of them."""
    bounds = [w.weight(f"bound.{n}", np.array([n], np.int64)) for n in (0, 1)]
    cls = w.add("Slice", [x, *bounds, bounds[0]], "head.cls")
    mean = w.add("ReduceMean", ["blocks.0.residual2", bounds[0]], "head.mean", keepdims=1)
    row = w.add("Squeeze", [w.add("Add", [cls, mean], "head.both"), bounds[0]], "head.row")
    w.add("LpNormalization", [row], "descriptor", axis=-1, p=2)
    return DIM


def wider_than_patches(w: Writer, x: str) -> int:
    bounds = [w.weight(f"bound.{n}", np.array([n], np.int64)) for n in (0, 1)]
    wide = w.add("Concat", [x, x], "head.wide", axis=1)
    left = w.add("KeepTokens", [wide, "blocks.1.looked", "tokens"], "head.keep", domain=DOMAIN)
    row = w.add(
        "Squeeze", [w.add("Slice", [left, *bounds, bounds[0]], "head.cls"), bounds[0]], "row"
    )
    w.add("LpNormalization", [row], "descriptor", axis=-1, p=2)
    return 2 * DIM


@pytest.mark.parametrize(
    ("head", "keep_after", "said"),
    [
        (beside_the_kept, (1,), r"PatchEmbed 'patch_embed': what it makes is read behind a"),
        (beside_the_kept, (2,), r"PatchEmbed 'patch_embed': what it makes is read behind a"),
        (wider_than_patches, (), r"KeepTokens 'head.keep': its tokens are 96 wide, those of"),
    ],
)
def test_what_no_stage_can_be_given_is_refused(
    head: Head, keep_after: tuple[int, ...], said: str
) -> None:
    """The board was given a stage that asks for the frame, or buffers of half the size."""
    with pytest.raises(ModelError, match=said + r".*build with --backend tvm"):
        build_pipeline(check_model(tiny_model(head, keep_after=keep_after)))

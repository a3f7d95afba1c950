"""An exported file: stock ONNX Runtime runs it, and it computes what torch computes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from small_heads import SMALL_HEADS

from tatvpr_edge import zoo
from tatvpr_edge.cli import main
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.export import build_proto, export_onnx
from tatvpr_edge.models.heads import HEADS, LEARNED_HEADS
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.spec.errors import ModelError, UsageError
from tatvpr_edge.spec.operators import DOMAIN
from tatvpr_edge.spec.packing import unpack_ternary

BACKBONE = ViTConfig(image_px=32, patch=8, dim=24, depth=3, heads=3, mlp_ratio=2, keep_after=(1,))


def model(head: str = "gem", **options: object) -> ModelConfig:
    backbone = BACKBONE
    if head in LEARNED_HEADS:
        backbone = dataclasses.replace(BACKBONE, keep_after=0)
    return ModelConfig("test", backbone, HeadConfig(head, {**SMALL_HEADS.get(head, {}), **options}))


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def f32(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        *((h, {}) for h in HEADS),
        ("cls", {"project": 40}),
        ("gem", {"project": 40}),
        ("gem", {"project": 40, "digits": 2, "sides": 0.9}),
    ],
)
def test_onnx_runtime_equals_torch(head: str, options: dict[str, object]) -> None:
    """Rounding may flip where two libraries' LayerNorms differ in the last bit, and everything
    downstream with it; most frames see no flip, and those must agree closely."""
    network = registry.create(model(head, **options), seed=0).eval()
    run = session(build_proto(network, tokens_out=True))
    rng = np.random.default_rng(0)
    close = 0
    for _ in range(12):
        frame = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        k, tokens = rng.uniform(0.1, 1), rng.choice([1.0, 0.5])
        got, seen = run.run(None, {"frame": frame, "k": f32(k), "tokens": f32(tokens)})
        with torch.no_grad():
            gate = network.gate(1, float(np.float32(k)), float(tokens))
            wanted_seen = network.see(torch.from_numpy(frame[None]), gate)
            wanted = network.describe(wanted_seen, gate)[0].numpy()
        assert seen.shape == tuple(wanted_seen.tokens.shape[1:])
        assert got.shape == (network.descriptor_size,)
        close += bool(np.abs(got - wanted).max() < 2e-6)
        # The head alone, on the same tokens, has little room to differ.
        same = wanted_seen._replace(tokens=torch.from_numpy(seen[None]))
        head_alone = network.describe(same, gate)[0].detach().numpy()
        np.testing.assert_allclose(got, head_alone, atol=1e-5)
    assert close >= 8


def test_each_stage_equals_torch_when_fed_the_same_input() -> None:
    """Teacher forcing: every output of a block inside ONNX Runtime, from that block's own input."""
    network = registry.create(model(), seed=0).eval()
    proto = build_proto(network)
    stages = ["embed", "blocks.0.residual2", "blocks.0.keep", "blocks.1.residual2"]
    for name in stages:
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    frame = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    run = session(proto)
    got = dict(
        zip(
            stages,
            run.run(stages, {"frame": frame, "k": f32(0.4), "tokens": f32(0.6)}),
            strict=True,
        )
    )
    gate = network.gate(1, 0.4)
    backbone = network.backbone
    with torch.no_grad():
        patches = backbone.patch_embed(torch.from_numpy(frame[None]))
        embed = torch.cat([backbone.cls_token[None], patches], 1) + backbone.pos_embed
        np.testing.assert_allclose(got["embed"], embed[0].numpy(), rtol=1e-6, atol=1e-6)
        for source, block, result in (
            ("embed", 0, "blocks.0.residual2"),
            ("blocks.0.keep", 1, "blocks.1.residual2"),
        ):
            wanted = backbone.blocks[block](torch.from_numpy(got[source][None]), gate)[0]
            np.testing.assert_allclose(
                got[result], wanted[0].numpy(), atol=1e-5 * float(wanted.abs().max())
            )


def test_the_graph_is_what_compilers_expect() -> None:
    network = registry.create(model(), seed=0)
    proto = build_proto(network)
    onnx.checker.check_model(proto, full_check=True)
    assert [i.name for i in proto.graph.input] == ["frame", "k", "tokens"]
    assert [o.name for o in proto.graph.output] == ["descriptor"]
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [32, 32, 3]
    kinds = [node.op_type for node in proto.graph.node]
    # per block: qkv, out, up, down, and LayerNorms before attention, MLP and second matrix
    assert kinds.count("TernaryMatMul") == kinds.count("TopKGate") == 4 * BACKBONE.depth
    assert kinds.count("QuantAttention") == kinds.count("Gelu") == BACKBONE.depth
    assert kinds.count("LayerNormalization") == 3 * BACKBONE.depth + 1
    assert kinds.count("KeepTokens") == kinds.count("PatchEmbed") == 1
    props = {p.key: p.value for p in proto.metadata_props}
    assert props["tatvpr.model"] == "test" and props["tatvpr.head"] == "gem"
    assert json.loads(props["tatvpr.groups"]) == {"qkv": 1, "out": 1, "up": 1, "down": 1}
    assert props["tatvpr.scope"] == "token"
    assert ModelConfig.from_dict(json.loads(props["tatvpr.config"])) == network.config
    assert {f.name for f in proto.functions} >= {n.op_type for n in proto.graph.node if n.domain}
    assert all(f.domain == DOMAIN for f in proto.functions)


def test_weights_keep_their_names_and_values() -> None:
    network = registry.create(model(), seed=0)
    weights = {w.name: numpy_helper.to_array(w) for w in build_proto(network).graph.initializer}
    packed = weights["blocks.1.up.weight"]
    assert packed.dtype == np.int8
    layer = network.backbone.blocks[1].mlp.up
    delta = layer.weight.detach().abs().mean() + 1e-5
    wanted = torch.round(layer.weight.detach() / delta).clamp(-1, 1).numpy()
    np.testing.assert_array_equal(unpack_ternary(packed, 24), wanted)
    assert weights["blocks.1.up.scale"] == pytest.approx(float(delta))
    assert weights["bias.none.72"].tolist() == [0.0] * 72


def test_a_float_twin_and_broken_weights_are_refused(tmp_path: Path) -> None:
    twin = dataclasses.replace(model(), backbone=dataclasses.replace(BACKBONE, ternary=False))
    with pytest.raises(ModelError, match="float twin"):
        export_onnx(registry.create(twin, seed=0), tmp_path / "twin.onnx")
    network = registry.create(model(), seed=0)
    with torch.no_grad():
        network.backbone.blocks[0].mlp.up.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"mlp.up.weight is not finite"):
        export_onnx(network, tmp_path / "nan.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_file_to_onnx_and_back(tmp_path: Path) -> None:
    network = registry.create("micro", seed=5)
    save_weights(network, tmp_path / "micro.safetensors")
    again = load_weights(tmp_path / "micro.safetensors")
    assert not again.training
    for x, y in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(x, y)
    export_onnx("micro", tmp_path / "a.onnx", weights=tmp_path / "micro.safetensors")
    export_onnx(network, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    with pytest.raises(UsageError, match="what shall be read"):
        export_onnx("micro", tmp_path / "micro.safetensors", weights=tmp_path / "micro.safetensors")
    # Another gate has the same weights; another width has not.
    gated = registry.config("micro", groups=4, scope="image", keep_after=(1, 3))
    assert load_weights(tmp_path / "micro.safetensors", expected=gated).config == gated
    with pytest.raises(ModelError, match=r"backbone\.depth"):
        load_weights(tmp_path / "micro.safetensors", expected=registry.config("micro", depth=5))


@pytest.mark.parametrize("damage", ["missing", "cut", "no metadata", "pickle"])
def test_unusable_weights_are_one_clear_error(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    if damage == "cut":
        save_weights(registry.create(model(), seed=0), path)
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no metadata":
        save_file({"x": torch.zeros(2)}, path)
    elif damage == "pickle":
        torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        load_weights(path)


def test_weights_and_random_ones_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "micro", "--random", "1", "--weights", str(zoo.path("micro", "safetensors"))]
    assert main([*words, "-o", str(tmp_path / "m.onnx")]) == 1
    assert "--weights and --random exclude each other" in capsys.readouterr().err

"""Teachers: what they compute, what their cards say, and which checkpoints are refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_sets import TINY_BACKBONE

from support.tools import lacking
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import save_weights
from tatvpr_edge.models.heads import HEADS
from tatvpr_edge.models.heads.pooling import GeMHead
from tatvpr_edge.models.nn.config import HeadConfig
from tatvpr_edge.models.teachers import create_teacher
from tatvpr_edge.models.teachers.dinov2_boq import (
    BoQAggregator,
    BoQShape,
    Dino,
    DinoShape,
    DinoV2BoQ,
    _Network,
)
from tatvpr_edge.models.teachers.efficientnet import LITE0_MACS, LITE0_MB, EfficientNetLite0
from tatvpr_edge.models.train.finetune import finetune_config
from tatvpr_edge.spec.errors import ModelError, ToolError, UsageError

DINO = DinoShape(dim=32, depth=2, heads=2, stored_side=5)
BOQ = BoQShape(channels=16, queries=4, layers=2, rows=3)


def network_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = _Network(DINO, BOQ)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_names_and_shapes_are_those_of_the_public_checkpoint() -> None:
    """The public file is not here; its names follow from the published code."""
    with torch.device("meta"):
        shapes = {
            n: tuple(v.shape) for n, v in _Network(DinoShape(), BoQShape()).state_dict().items()
        }
    assert shapes["backbone.dino.pos_embed"] == (1, 1370, 768)
    assert shapes["backbone.dino.patch_embed.proj.weight"] == (768, 3, 14, 14)
    assert shapes["backbone.dino.blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["backbone.dino.blocks.0.ls1.gamma"] == (768,)
    assert shapes["backbone.dino.mask_token"] == (1, 768)
    assert shapes["aggregator.proj_c.weight"] == (384, 768, 3, 3)
    assert shapes["aggregator.boqs.1.queries"] == (1, 64, 384)
    assert shapes["aggregator.boqs.0.encoder.self_attn.in_proj_weight"] == (1152, 384)
    assert shapes["aggregator.boqs.0.encoder.linear1.weight"] == (1536, 384)
    assert shapes["aggregator.fc.weight"] == (32, 128)
    assert sum(n.startswith("backbone.dino.blocks.") for n in shapes) == 12 * 14


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_users_checkpoint_becomes_a_teacher(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"teacher{suffix}"
    state = network_state()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    teacher = DinoV2BoQ(path, image_px=42, dino=DINO, boq=BOQ)
    frames = torch.randint(0, 256, (2, 42, 42, 3), dtype=torch.uint8)
    features = teacher.features(frames)
    assert features.shape == (2, 3, 3, 32)
    descriptors = teacher.descriptors(features)
    assert descriptors.shape == (2, 48)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    assert len(teacher.card()["sha256"]) == 64
    alone = teacher.descriptors(teacher.features(frames[:1]))
    torch.testing.assert_close(alone, descriptors[:1])


def test_positions_are_interpolated_only_where_the_grid_differs() -> None:
    dino = Dino(DINO)
    torch.nn.init.normal_(dino.pos_embed)
    assert torch.equal(dino._positions(5, 5), dino.pos_embed)
    smaller = dino._positions(3, 3)
    assert smaller.shape == (1, 10, 32)
    assert torch.equal(smaller[:, :1], dino.pos_embed[:, :1])


def test_the_aggregator_does_not_care_for_the_size_of_the_map() -> None:
    aggregator = BoQAggregator(32, BOQ).eval()
    for side in (2, 5):
        assert aggregator(torch.randn(1, side, side, 32)).shape == (1, 48)


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["aggregator.fc.weight"]


def reshape(state: dict[str, torch.Tensor]) -> None:
    state["backbone.dino.cls_token"] = torch.zeros(1, 1, 99)


def add(state: dict[str, torch.Tensor]) -> None:
    state["backbone.dino.register_tokens"] = torch.zeros(1, 4, 32)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop, r"has no aggregator\.fc\.weight"),
        (reshape, r"cls_token is \(1, 1, 99\), expected \(1, 1, 32\)"),
        (add, "register_tokens, which DINOv2-BoQ has not"),
    ],
)
def test_another_checkpoint_is_refused_by_its_first_difference(
    tmp_path: Path, spoil: Any, said: str
) -> None:
    state = network_state()
    spoil(state)
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(ModelError, match=said):
        DinoV2BoQ(tmp_path / "t.pth", dino=DINO, boq=BOQ)


@pytest.mark.parametrize("held", [torch.zeros(3), {"backbone.dino.cls_token": 3}, {1: 2, "a": 3}])
def test_a_file_of_other_things_than_named_tensors(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "t.pth")
    with pytest.raises(ModelError, match="holds other things than named tensors"):
        DinoV2BoQ(tmp_path / "t.pth", dino=DINO, boq=BOQ)


def test_a_checkpoint_with_code_or_none_at_all(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {marker}",)

    torch.save({"x": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ModelError, match="more than data"):
        create_teacher(f"dinov2-boq:{tmp_path / 'bomb.pth'}")
    assert not marker.exists()
    with pytest.raises(ModelError, match=r"none\.pth: not a checkpoint"):
        create_teacher(f"dinov2-boq:{tmp_path / 'none.pth'}")
    with pytest.raises(UsageError, match="dinov2-boq:FILE, model:FILE"):
        create_teacher("dinov3")


def test_efficientnet_lite0_and_its_figures() -> None:
    try:
        teacher = EfficientNetLite0()
    except ToolError as error:
        lacking("the EfficientNet-Lite0 teacher", str(error))
    macs = 0

    def count(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()  # type: ignore[operator,index]

    for module in teacher.net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    features = teacher.features(torch.full((1, 224, 224, 3), 100, dtype=torch.uint8))
    assert features.shape == (1, 7, 7, 1280)
    assert float(features.min()) >= 0
    assert teacher.descriptors(features).shape == (1, 1280)
    assert macs == LITE0_MACS
    kept = sum(p.numel() for n, p in teacher.net.named_parameters() if not n.startswith("_fc"))
    assert kept * 4 / 1e6 == pytest.approx(LITE0_MB, abs=0.001)
    assert teacher.card()["licence"] == "Apache-2.0"


def test_a_model_of_ours_teaches_what_it_says_at_k_1(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=4).eval()
    save_weights(model, tmp_path / "w.safetensors")
    teacher = create_teacher(f"model:{tmp_path / 'w.safetensors'}")
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    maps = teacher.features(frames)
    assert maps.shape == (3, 4, 4, 24) and teacher.channels == 24 and teacher.image_px == 32
    with torch.no_grad():
        taught = teacher.descriptors(maps)
        assert torch.equal(taught, model.train()(frames, 1.0))
        assert float((taught * model.eval()(frames, 1.0)).sum(1).min()) > 0.999
        assert float((taught * model(frames, 0.3)).sum(1).max()) < 0.999
    assert len(str(teacher.card()["sha256"])) == 64


def test_teachers_joined_see_as_each_does_and_neither_outweighs(tmp_path: Path) -> None:
    """Two sizes of frame and grid, two widths: one map, and descriptors side by side."""
    members = []
    for name, px in (("small", 32), ("large", 48)):
        config = registry.config("micro", **{**TINY_BACKBONE, "image_px": px})
        model = registry.create(config, seed=px)
        torch.nn.init.constant_(model.backbone.norm.weight, 0.5)  # as trained ones have,
        torch.nn.init.normal_(model.head.proj.bias)  # what is said depends on the tokens' scale
        save_weights(model, tmp_path / f"{name}.safetensors")
        members.append(f"model:{tmp_path / name}.safetensors")
    joint = create_teacher("joint:" + "+".join(members))
    assert (joint.image_px, joint.channels) == (48, 50)
    frames = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    maps = joint.features(frames)
    assert maps.shape == (3, 6, 6, 50)
    for part in maps[..., :48].split(24, dim=-1):
        assert 0.4 < float(part.square().sum(-1).mean()) < 1.01  # a finer grid smooths
    large = create_teacher(members[1])
    alone = large.descriptors(large.features(frames))
    said = joint.descriptors(maps)
    assert said.shape == (3, 2 * alone.shape[1])
    assert torch.allclose(said.norm(dim=1), torch.ones(3))
    own = torch.nn.functional.normalize(said[:, alone.shape[1] :], dim=1)
    assert float((own * alone).sum(1).min()) > 1 - 1e-6
    assert [card["name"] for card in joint.card()["members"]] == ["micro at k = 1"] * 2


def test_a_model_with_a_patch_head_of_ones_own_is_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And can be fine-tuned: the heads that could were a list of their names."""

    class Own(GeMHead):
        pass

    monkeypatch.setitem(HEADS, "own", Own)
    config = registry.config("micro", **TINY_BACKBONE)
    head = HeadConfig("own", dict(config.head.options))
    save_weights(
        registry.create(dataclasses.replace(config, head=head)), tmp_path / "w.safetensors"
    )
    teacher = create_teacher(f"model:{tmp_path / 'w.safetensors'}")
    frames = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    assert teacher.descriptors(teacher.features(frames)).shape == (2, 512)
    assert finetune_config(tmp_path / "w.safetensors", tmp_path / "run", 4).metric.anchor


def test_a_model_whose_head_needs_its_class_token_is_no_teacher(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro-cls", **TINY_BACKBONE), seed=4)
    save_weights(model, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"patches only .*this one has cls"):
        create_teacher(f"model:{tmp_path / 'w.safetensors'}")

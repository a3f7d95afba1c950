"""A deeper network begins with what a trained shallower one says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import save_weights
from tatvpr_edge.models.deepen import deepened
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train.run import starting_model
from tatvpr_edge.models.train.training_file import config_from
from tatvpr_edge.spec.errors import ModelError, UsageError

SHALLOW = ModelConfig(
    "tiny",
    ViTConfig(image_px=32, patch=16, dim=24, depth=2, heads=3, keep_after=(1,)),
    HeadConfig("gem", {"project": 20}),
)


def deeper(depth: int, **changes: object) -> ModelConfig:
    backbone = dataclasses.replace(SHALLOW.backbone, depth=depth, keep_after=(2,), **changes)
    return dataclasses.replace(SHALLOW, name="deep", backbone=backbone)


@torch.no_grad()
def say(model: PlaceModel) -> torch.Tensor:
    random = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (4, 32, 32, 3), generator=random, dtype=torch.uint8)
    return model(frames, 0.5)


def test_it_says_nearly_the_same_the_more_so_the_quieter_added_blocks_are() -> None:
    shallow = registry.create(SHALLOW, seed=5).eval()
    cosines = [
        float((say(deepened(shallow, deeper(4), loudness)) * say(shallow)).sum(1).min())
        for loudness in (0.001, 0.1, 1.0)
    ]
    assert cosines[0] > 0.999
    assert cosines[0] > cosines[1] > cosines[2]


def test_every_block_is_repeated_in_its_place() -> None:
    shallow = registry.create(SHALLOW, seed=5)
    deep = deepened(shallow, deeper(6), 0.5).state_dict()
    for number in range(6):
        of = f"backbone.blocks.{number // 3}"
        whole = shallow.state_dict()[f"{of}.mlp.up.weight"]
        assert torch.equal(deep[f"backbone.blocks.{number}.mlp.up.weight"], whole)
        out = shallow.state_dict()[f"{of}.attn.out.weight"]
        expected = out * 0.5 if number % 3 else out
        assert torch.equal(deep[f"backbone.blocks.{number}.attn.out.weight"], expected)


def test_what_differs_in_more_than_depth_is_refused_by_name() -> None:
    shallow = registry.create(SHALLOW, seed=5)
    with pytest.raises(ModelError, match=r"deep has 3 blocks, tiny has 2: .* a multiple"):
        deepened(shallow, deeper(3), 0.1)
    with pytest.raises(ModelError, match=r"backbone\.mlp_ratio differ"):
        deepened(shallow, deeper(4, mlp_ratio=2), 0.1)


def training(tmp_path: Path, model: dict[str, object], **tables: object) -> PlaceModel:
    values = {"model": model, "run": {"output": str(tmp_path / "run")}, **tables}
    return starting_model(config_from(values, tmp_path / "deep.toml"))


def test_a_training_file_asks_for_it(tmp_path: Path) -> None:
    shallow = registry.create("micro-cls", seed=5)
    shallow.trained = True
    save_weights(shallow, tmp_path / "shallow.safetensors")
    model = {
        "name": "micro-cls",
        "backbone": {"depth": 12, "keep_after": [4]},
        "init": str(tmp_path / "shallow.safetensors"),
    }
    started = training(tmp_path, {**model, "deepen": 0.05})
    assert started.config.backbone.depth == 12 and started.trained
    with pytest.raises(ModelError, match="another architecture"):
        training(tmp_path, model)
    with pytest.raises(UsageError, match=r"needs weights: model\.init"):
        training(tmp_path, {"name": "micro", "deepen": 0.05})
    with pytest.raises(UsageError, match="fitted after its training"):
        training(tmp_path, {**model, "deepen": 0.05}, refit={"own": 1.0})

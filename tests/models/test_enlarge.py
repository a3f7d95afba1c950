"""A network for larger frames begins with what a trained one of smaller frames knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights, weights_file
from tatvpr_edge.models.data.frames import squash
from tatvpr_edge.models.enlarge import enlarged
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train.run import starting_model
from tatvpr_edge.models.train.training_file import config_from
from tatvpr_edge.spec.errors import ModelError, UsageError

SMALL = ModelConfig(
    "tiny",
    ViTConfig(image_px=64, patch=16, dim=24, depth=2, heads=3, keep_after=(1,)),
    HeadConfig("gem", {"project": 20}),
)


def larger(image_px: int, **changes: object) -> ModelConfig:
    backbone = dataclasses.replace(SMALL.backbone, image_px=image_px, **changes)
    return dataclasses.replace(SMALL, name="large", backbone=backbone)


def test_every_weight_stays_and_positions_lie_between_their_neighbours() -> None:
    small = registry.create(SMALL, seed=5)
    down, across = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    with torch.no_grad():
        small.backbone.pos_embed[1:, 0] = down.flatten()
        small.backbone.pos_embed[1:, 1] = across.flatten()
    before, after = small.state_dict(), enlarged(small, larger(128)).state_dict()
    for name in set(before) - {"backbone.pos_embed"}:
        assert torch.equal(before[name], after[name]), name
    assert torch.equal(before["backbone.pos_embed"][0], after["backbone.pos_embed"][0])
    grid = after["backbone.pos_embed"][1:].unflatten(0, (8, 8))
    inner = torch.arange(8.0)[2:6] / 2 - 0.25  # the middles of patches of half the size
    assert torch.allclose(grid[2:6, 2:6, 0], inner[:, None].expand(4, 4), atol=0.1)  # edges repeat
    assert torch.allclose(grid[2:6, 2:6, 1], inner.expand(4, 4), atol=0.1)


@torch.no_grad()
def described(model: PlaceModel, paths: list[Path]) -> torch.Tensor:
    side = model.config.backbone.image_px
    frames = np.stack([squash(Image.open(path).convert("RGB"), side) for path in paths])
    return model.train()(torch.from_numpy(frames), 1.0)  # training's arithmetic is quicker


def test_places_are_found_in_larger_frames_without_any_training(project_root: Path) -> None:
    folder = project_root / "models" / "zoo" / "places"
    places = sorted((folder / "gallery").glob("*.jpg"))[::2]
    asked = [
        (number, query)
        for number, place in enumerate(places)
        for query in sorted((folder / "queries").glob(f"{place.stem.rsplit('-', 1)[0]}*.jpg"))
    ]
    assert len(asked) >= len(places)
    micro = load_weights(weights_file("micro"))
    wanted = dataclasses.replace(
        micro.config, backbone=dataclasses.replace(micro.config.backbone, image_px=192)
    )
    model = enlarged(micro, wanted)
    assert model.trained
    scores = described(model, [query for _, query in asked]) @ described(model, places).T
    right = [int(best) == number for best, (number, _) in zip(scores.argmax(1), asked, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_what_differs_in_more_than_the_frame_is_refused_by_name() -> None:
    small = registry.create(SMALL, seed=5)
    with pytest.raises(ModelError, match=r"large and tiny differ in more .*backbone\.mlp_ratio"):
        enlarged(small, larger(128, mlp_ratio=2))


def test_a_training_file_asks_for_it(tmp_path: Path) -> None:
    small = registry.create("micro-cls", seed=5)
    small.trained = True
    save_weights(small, tmp_path / "small.safetensors")
    model = {
        "name": "micro-cls",
        "backbone": {"image_px": 192},
        "init": str(tmp_path / "small.safetensors"),
    }

    def started(model: dict[str, object], **tables: object) -> PlaceModel:
        values = {"model": model, "run": {"output": str(tmp_path / "run")}, **tables}
        return starting_model(config_from(values, tmp_path / "larger.toml"))

    made = started({**model, "enlarge": True})
    assert made.config.backbone.image_px == 192 and made.trained
    with pytest.raises(ModelError, match="another architecture"):
        started(model)
    with pytest.raises(UsageError, match=r"needs weights: model\.init"):
        started({"name": "micro", "enlarge": True})
    with pytest.raises(UsageError, match="fitted after its training"):
        started({**model, "enlarge": True}, refit={"own": 1.0})

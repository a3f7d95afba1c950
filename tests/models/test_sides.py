"""A head that tells left from right: where in the frame a patch was is part of the descriptor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tatvpr_edge.models import registry
from tatvpr_edge.models.heads.pooling import GeMHead, left_weights
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec import reference
from tatvpr_edge.spec.errors import ModelError

BACKBONE = ViTConfig(image_px=64, patch=16, dim=24, depth=3, heads=3, keep_after=(1, 2))
SIDE = BACKBONE.image_px // BACKBONE.patch


def network(sides: float, digits: int = 2) -> PlaceModel:
    options = {"project": 20, "digits": digits, "sides": sides}
    return registry.create(ModelConfig("tiny", BACKBONE, HeadConfig("gem", options)), seed=3).eval()


def tokens(count: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, BACKBONE.tokens, BACKBONE.dim, generator=random)


def mirrored(x: torch.Tensor) -> torch.Tensor:
    rows = x[:, 1:].unflatten(1, (SIDE, SIDE)).flip(2).flatten(1, 2)
    return torch.cat([x[:, :1], rows], dim=1)


@torch.no_grad()
def cosine_to_mirrored(net: PlaceModel) -> float:
    gate = net.gate(3, 1.0)
    return float((net.head(tokens(), gate) * net.head(mirrored(tokens()), gate)).sum(1).max())


def test_a_mirrored_place_is_another_one() -> None:
    assert cosine_to_mirrored(network(0.0)) > 0.999999
    assert cosine_to_mirrored(network(1.0)) < 0.998


def test_weights_fall_from_left_to_right_and_are_1_on_the_mean() -> None:
    row = left_weights(BACKBONE, 0.8).reshape(SIDE, SIDE)
    assert (row == row[0]).all() and (np.diff(row[0]) < 0).all() and row.min() > 0
    assert row[0].mean() == pytest.approx(1) and row[0, 0] == pytest.approx(1.6)
    assert np.allclose(row[0] + row[0, ::-1], 2)


@torch.no_grad()
def test_a_patch_keeps_its_side_when_others_are_dropped() -> None:
    head = network(1.0).head
    assert isinstance(head, GeMHead)
    standing = torch.tensor([[0, 3, 6, 9, 15]])
    kept = tokens(1)[:, torch.cat([torch.zeros(1, 1).long(), standing + 1], dim=1)[0]]
    pooled = head.pooled(kept)
    beside = head.beside(kept, pooled, standing)[0].numpy()
    x, weights = kept[0, 1:].numpy(), left_weights(BACKBONE, 1.0)[standing[0].numpy()]
    wanted = reference.gem(x, weights) - reference.gem(x)
    np.testing.assert_array_equal(beside, wanted)


@torch.no_grad()
def test_which_patches_stand_is_known_behind_every_dropping() -> None:
    net = network(1.0)
    random = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=random)
    assert net.see(frames, net.gate(4, 1.0)).patches is None
    visible = torch.stack([torch.randperm(16, generator=random)[:8].sort().values] * 4)
    seen = net.see(frames, net.gate(4, 1.0, tokens=0.5), visible)
    assert seen.patches is not None and seen.patches.shape == (4, 2) == seen.tokens[:, 1:, 0].shape
    for standing, shown in zip(seen.patches.tolist(), visible.tolist(), strict=True):
        assert set(standing) <= set(shown) and standing == sorted(standing)


@pytest.mark.parametrize(
    "options", [{"project": 20, "sides": 1.5}, {"project": 20, "sides": -0.1}, {"sides": 0.5}]
)
def test_what_sides_cannot_mean(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="sides"):
        registry.create(ModelConfig("tiny", BACKBONE, HeadConfig("gem", options)), seed=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"project": 20, "sides": "0.3"}, "sides is '0.3': it is a number"),
        ({"project": 20, "sides": True}, "sides is True: it is a number"),
        ({"project": 20, "digits": 2.0}, "digits is 2.0: it is a whole number from 1 up"),
        ({"project": 0}, "project is 0: it is a whole number from 1 up"),
        ({"project": True}, "project is True: it is a whole number from 1 up"),
        ({"project": -1}, "project is -1: it is a whole number from 1 up"),
        ({"project": 20, "side": 1}, "no option 'side'; it has project, digits, sides"),
    ],
)
def test_an_option_of_a_training_file_that_cannot_be_says_what_can(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=f"^head gem: .*{said}"):
        registry.create(ModelConfig("tiny", BACKBONE, HeadConfig("gem", options)), seed=0)

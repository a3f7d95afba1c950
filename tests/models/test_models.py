"""Every registered model trains, stays finite, and a frame's descriptor is its own affair."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from small_heads import SMALL_HEADS

from tatvpr_edge.models import registry
from tatvpr_edge.models.heads import HEADS, LEARNED_HEADS
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import FrameError, ModelError, UsageError

SMALL = ViTConfig(image_px=32, patch=8, dim=24, depth=3, heads=3, mlp_ratio=2, keep_after=(1,))


def small(head: str = "gem", **changes: object) -> ModelConfig:
    if head in LEARNED_HEADS:
        changes = {**changes, "keep_after": 0}
    backbone = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    return ModelConfig(f"test-{head}", backbone, HeadConfig(head, SMALL_HEADS.get(head, {})))


def frames(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize(
    "changes",
    [{}, {"groups": 4}, {"groups": {"down": 8, "qkv": 2}}, {"keep_after": (1, 2)},
     {"scope": "image"}, {"mlp_norm": False}, {"row_scales": True},
     {"ternary": False}],
    ids=str,
)  # fmt: skip
def test_forward_and_backward(head: str, changes: dict[str, object]) -> None:
    model = registry.create(small(head, **changes), seed=0)
    ks = torch.tensor([1.0, 0.4, 0.2])
    for tokens in (1.0, 0.5):
        descriptors = model(frames(3), ks, tokens)
        assert descriptors.shape == (3, model.descriptor_size)
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))
        model.zero_grad()
        (descriptors * torch.randn_like(descriptors)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} takes no part"
            assert bool(parameter.grad.isfinite().all()), name
            if name != "head.dustbin":  # tokens far from it leave it no share at all
                assert float(parameter.grad.abs().sum()) > 0, f"{name} would never be trained"


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_every_registered_model_runs(name: str) -> None:
    settings = registry.config(name)
    # Depth and width shrink, so that the largest fits a test; the shape of a frame stays.
    keep = (1,) if settings.backbone.keep_after else ()
    backbone = dataclasses.replace(settings.backbone, depth=2, keep_after=keep, dim=48, heads=3)
    model = registry.create(dataclasses.replace(settings, backbone=backbone), seed=0).eval()
    with torch.no_grad():
        assert bool(model(frames(1, backbone.image_px), 0.4).isfinite().all())


def test_the_named_models_are_those_that_were_promised() -> None:
    micro, base = registry.config("micro").backbone, registry.config("base").backbone
    assert (micro.image_px, micro.patch, micro.dim, micro.depth, micro.heads) == (
        128,
        16,
        192,
        6,
        3,
    )
    assert (base.image_px, base.patch, base.dim, base.depth, base.heads) == (224, 16, 768, 12, 12)
    assert registry.config("small-cls").head.kind == "cls"


def test_a_frame_does_not_see_its_batch() -> None:
    model = registry.create(small(groups=4), seed=1).eval()
    batch = frames(4)
    ks = torch.tensor([0.2, 0.4, 0.6, 1.0])
    with torch.no_grad():
        together = model(batch, ks, 0.5)
        for i in range(4):
            alone = model(batch[i : i + 1], float(ks[i]), 0.5)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_the_gradient_of_the_gate_passes_through_kept_activations_only() -> None:
    from tatvpr_edge.models.nn.layers import Gate, TernaryLayer

    layer = TernaryLayer(8, 4)
    with torch.no_grad():
        layer.weight.fill_(0.5)  # ternary: every weight is +1, the scale is 0.5
    x = torch.tensor([[[8.0, -7, 6, -5, 4, -3, 2, -1]]], requires_grad=True)
    layer(x, Gate(torch.tensor([0.25]))).sum().backward()
    assert x.grad is not None
    expected = torch.tensor([2.0, 2, 0, 0, 0, 0, 0, 0])  # of 4 outputs, 0.5 each
    torch.testing.assert_close(x.grad[0, 0], expected, rtol=1e-4, atol=0.0)  # scale: 0.5 + 1e-5


def test_warm_up_blends_from_full_precision_to_quantised_values() -> None:
    from tatvpr_edge.models.nn.layers import Gate, TernaryLayer

    torch.manual_seed(0)
    layer, x, k = TernaryLayer(16, 8), torch.randn(2, 3, 16), torch.ones(2)
    full = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, Gate(k, q_factor=0.0)), full, rtol=1e-4, atol=1e-5)
    almost = layer(x, Gate(k, q_factor=1.0 - 1e-6))
    torch.testing.assert_close(almost, layer(x, Gate(k)), rtol=1e-3, atol=1e-4)


def test_less_k_changes_the_descriptor_and_k_one_is_dense() -> None:
    model = registry.create(small(), seed=2).eval()
    with torch.no_grad():
        dense, sparse = model(frames(1)), model(frames(1), 0.1)
        assert not torch.equal(dense, sparse)
        assert torch.equal(dense, model(frames(1), 1.0))


@pytest.mark.parametrize("k", [0.0, -0.1, 1.5, float("nan")])
def test_k_outside_its_range_is_refused(k: float) -> None:
    model = registry.create(small(), seed=0)
    with pytest.raises(UsageError, match=r"k is .*\(0, 1\]"):
        model(frames(1), k)


def test_frames_of_another_size_or_type_are_refused() -> None:
    model = registry.create(small(), seed=0)
    with pytest.raises(FrameError, match="takes uint8"):
        model(frames(1, 40))
    with pytest.raises(FrameError, match="takes uint8"):
        model(frames(1).float())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_px": 130}, "not a multiple of patch"),
        ({"heads": 5}, "not a multiple of heads"),
        ({"groups": 7}, "groups.qkv: 192 channels are not a multiple of 7"),
        ({"groups": {"down": 5}}, "groups.down: 768 channels are not a multiple of 5"),
        ({"groups": {"mlp": 4}}, "numbers for qkv, out, up, down"),
        ({"groups": {"down": 0}}, "groups.down is 0"),
        ({"groups": "4"}, "one number, or numbers for"),
        ({"scope": "batch"}, "is not one of"),
        ({"keep_after": 6}, "below depth"),
        ({"keep_after": (2, 2)}, "at most 2 rising numbers"),
        ({"keep_after": (1, 2, 3)}, "at most 2 rising numbers"),
        ({"keep_after": (0, 2)}, "at most 2 rising numbers"),
        ({"keep_after": "2"}, "whole numbers"),
        ({"depth": 0}, "positive"),
        ({"depth": True}, "positive"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean is .* from 0 to 1.*divide statistics of 0 to 255"),
        ({"mean": (0.5, 0.5)}, "mean is .* three numbers"),
        ({"mean": 0.5}, "mean is .* three numbers"),
        ({"mean": ("a", "b", "c")}, "mean is .* three numbers"),
        ({"std": (0.0, 0.2, 0.2)}, "std is .* above 0"),
        ({"std": (0.2, 0.2, float("nan"))}, "std is .* above 0"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        registry.config("micro", **changes)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ModelError, match="micro"):
        registry.config("tiny")
    with pytest.raises(ModelError, match="cls"):
        registry.config("micro-netvlad")


def test_a_configuration_survives_json() -> None:
    for name in registry.names():
        settings = registry.config(name)
        assert ModelConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_configuration_of_one_group_and_one_keep_is_still_read() -> None:
    """Weights that were saved before layers had groups of their own."""
    settings = registry.config("micro", groups=4).to_dict()
    settings["backbone"] = {**settings["backbone"], "group": 4, "keep_after": 2}
    del settings["backbone"]["groups"]
    assert ModelConfig.from_dict(settings) == registry.config("micro", groups=4)


def test_a_second_keep_drops_of_the_tokens_that_still_stand() -> None:
    seen: list[int] = []
    model = registry.create(small(depth=4, keep_after=(1, 3)), seed=0).eval()
    for block in model.backbone.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    with torch.no_grad():
        model(frames(1), 1.0, 0.5)
    assert seen == [17, 9, 9, 5] == model.config.backbone.standing(0.5)[:-1]


def test_the_seed_fixes_the_weights() -> None:
    a, b, c = (registry.create(small(), seed=s) for s in (3, 3, 4))
    assert isinstance(a, PlaceModel)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(a.backbone.pos_embed, c.backbone.pos_embed)


def test_salad_assigns_what_the_marginals_say() -> None:
    from tatvpr_edge.models.heads.salad import SALADHead

    head = SALADHead(
        dataclasses.replace(SMALL, keep_after=0), clusters=5, channels=8, summary=8, hidden=16
    )
    torch.manual_seed(0)
    plan = head.transport(torch.randn(2, 5, 16))
    assert plan.shape == (2, 5, 16)
    # A token gives one unit, to clusters and dustbin together; a cluster takes about one.
    assert (plan.sum(1) <= 1 + 1e-5).all()
    torch.testing.assert_close(plan.sum(2), torch.ones(2, 5), atol=0.2, rtol=0)


@pytest.mark.parametrize("name", ["", "half \ud800", "nul \0", "long " * 100])
def test_a_name_that_no_file_could_have_is_refused(name: str) -> None:
    """It was trained, and could not be exported."""
    with pytest.raises(ModelError, match="cannot be called"):
        ModelConfig(name, SMALL, HeadConfig("cls"))


@pytest.mark.parametrize("head", ["mixvpr", "salad"])
def test_a_head_of_every_token_refuses_a_backbone_that_drops_some(head: str) -> None:
    """SALAD was trained so, and no build took its export."""
    with pytest.raises(ModelError, match="keep_after = 0"):
        registry.create(ModelConfig("x", SMALL, HeadConfig(head)))


def test_learned_heads_stand_on_backbones_that_drop_no_token() -> None:
    assert registry.config("small-mixvpr").backbone.keep_after == ()
    assert registry.config("small-gem").backbone.keep_after == (3,)

"""Ordered channels: nothing but the order of float sums changes, and groups keep more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from small_heads import SMALL_HEADS

from support.kept_energy import energy_kept
from tatvpr_edge import zoo
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights
from tatvpr_edge.models.data.frames import squash
from tatvpr_edge.models.heads import HEADS, LEARNED_HEADS
from tatvpr_edge.models.nn.config import LAYERS, HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.models.nn.quant import gate_mask
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.order import (
    Orders,
    apply_orders,
    measure_orders,
    neighbours,
    order_channels,
    watch,
)
from tatvpr_edge.spec.errors import ModelError

SMALL = ViTConfig(image_px=32, patch=8, dim=48, depth=2, heads=3, mlp_ratio=2, keep_after=(1,))
OPTIONS = {
    "cls": {"project": 20},
    "gem": {"project": 20},
    "sides": {"project": 20, "digits": 2, "sides": 1.0},
    **SMALL_HEADS,
}


def network(head: str = "gem", **changes: object) -> PlaceModel:
    if head in LEARNED_HEADS:
        changes = {"keep_after": 0, **changes}
    backbone = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    kind = "gem" if head == "sides" else head
    model = registry.create(ModelConfig("t", backbone, HeadConfig(kind, OPTIONS[head])), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # fresh norms and biases are the same in every channel
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def frames(count: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def shuffled(**which: bool) -> Orders:
    """Random orders of everything that can be folded, or of what ``which`` names alone."""
    rng = np.random.default_rng(3)
    size = SMALL.dim // SMALL.heads
    wanted = which or {"residual": True, "values": True, "hidden": True}
    blocks = range(SMALL.depth)
    return Orders(
        residual=rng.permutation(SMALL.dim) if wanted.get("residual") else None,
        values=[[rng.permutation(size) for _ in range(SMALL.heads)] for _ in blocks]
        if wanted.get("values")
        else None,
        hidden=[rng.permutation(SMALL.mlp_dim) for _ in blocks] if wanted.get("hidden") else None,
    )


def run(model: PlaceModel, k: float = 1.0, tokens: float = 1.0) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(frames()), k, tokens).numpy()


@pytest.mark.parametrize("head", [*HEADS, "sides"])
@pytest.mark.parametrize("tokens", [1.0, 0.5])
def test_in_full_precision_only_the_order_of_sums_changes(head: str, tokens: float) -> None:
    model = network(head, ternary=False)
    before = run(model, tokens=tokens)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    apply_orders(model, shuffled())
    assert any(not torch.equal(weights[n], v) for n, v in model.state_dict().items())
    np.testing.assert_allclose(run(model, tokens=tokens), before, atol=2e-6)


@pytest.mark.parametrize("which", ["values", "hidden"])
@pytest.mark.parametrize("row_scales", [False, True])
def test_orders_inside_a_block_keep_every_bit_of_a_dense_pass(which: str, row_scales: bool) -> None:
    """Ternary products are sums of whole numbers, exact in any order; only norms add floats."""
    model = network(mlp_norm=False, row_scales=row_scales)
    before = run(model)
    apply_orders(model, shuffled(**{which: True}))
    assert np.array_equal(run(model), before)


@pytest.mark.parametrize("k", [1.0, 0.4])
def test_a_ternary_network_stays_what_it_was(k: float) -> None:
    model = network()
    before = run(model, k)
    apply_orders(model, shuffled())
    assert (run(model, k) * before).sum(1).min() > 0.999


def test_neighbours_finds_the_fours_that_fire_together() -> None:
    rng = np.random.default_rng(0)
    places = rng.permutation(32)  # channel places[4 g + i] fires with set g
    fires = np.repeat(rng.random((4000, 8)) < 0.3, 4, axis=1) & (rng.random((4000, 32)) < 0.9)
    seen = np.empty((4000, 32))
    seen[:, places] = fires
    order = neighbours(seen.T @ seen, 4)
    assert sorted(order) == list(range(32))
    found = {frozenset(order[i : i + 4].tolist()) for i in range(0, 32, 4)}
    assert found == {frozenset(places[i : i + 4].tolist()) for i in range(0, 32, 4)}


def test_groups_of_another_size_and_heads_without_a_projection_are_refused() -> None:
    with pytest.raises(ModelError, match="groups of 2, 4, 8 or 16, not 3"):
        measure_orders(network(groups={"down": 3}), frames(1), 0.4)
    bare = registry.create(
        ModelConfig("t", dataclasses.replace(SMALL, groups=4), HeadConfig("cls")), seed=0
    )
    with pytest.raises(ModelError, match="the cls head gives out the tokens' own channels"):
        order_channels(bare, frames(1), 0.4)


def test_only_layers_with_groups_are_ordered() -> None:
    orders = measure_orders(network(groups={"down": 4}), frames(), 0.4)
    assert orders.residual is None and orders.values is None
    assert orders.hidden is not None and len(orders.hidden) == SMALL.depth
    assert all(sorted(order) == list(range(SMALL.mlp_dim)) for order in orders.hidden)


@pytest.mark.parametrize("groups", [{"qkv": 4}, {"up": 4}, {"qkv": 2, "up": 4}], ids=str)
def test_the_stream_is_ordered_by_what_its_grouped_readers_keep(groups: dict[str, int]) -> None:
    """Of all frames, for the widest group; the model is trained on as it was."""
    model, seen = network(groups=groups).train(), np.zeros((SMALL.dim, SMALL.dim))

    def count(name: str, layer: TernaryLayer, q: torch.Tensor, k: torch.Tensor) -> None:
        if name.rpartition(".")[2] in groups:
            mask = gate_mask(q, k)
            assert mask is not None
            fired = (q * mask != 0).flatten(0, -2).double().numpy()
            seen[:] += fired.T @ fired

    order = measure_orders(model, frames(40), 0.4).residual
    assert model.training
    watch(model, frames(40), 0.4, count)
    assert np.array_equal(order, neighbours(seen, 4))


def test_ordered_groups_of_the_shipped_model_keep_more_of_its_activations() -> None:
    """On frames that the orders were not made from."""
    gallery = sorted((zoo.path("micro").parent / "places" / "gallery").glob("*.jpg"))
    photos = np.stack([squash(Image.open(path), 128) for path in gallery[:24]])
    config = registry.config("micro", groups=4)
    model = load_weights(zoo.path("micro", "safetensors"), expected=config)
    before = energy_kept(model, photos[16:], 0.2)
    order_channels(model, photos[:16], 0.2)
    after = energy_kept(model, photos[16:], 0.2)
    assert set(before) == {f"blocks.{b}.{layer}" for b in range(6) for layer in LAYERS}
    for layer in ("out", "down"):
        gains = [after[f"blocks.{b}.{layer}"] - before[f"blocks.{b}.{layer}"] for b in range(6)]
        assert min(gains) > 0, (layer, gains)
    assert np.mean(list(after.values())) > np.mean(list(before.values())) + 0.02

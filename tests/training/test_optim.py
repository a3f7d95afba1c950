"""Optimisers: who trains with what."""

from __future__ import annotations

import pytest
import torch
from tiny_sets import TINY_BACKBONE

from tatvpr_edge.models import registry
from tatvpr_edge.models.train.config import OptimConfig
from tatvpr_edge.models.train.optim import Optimiser


def test_muon_takes_the_ternary_matrices_and_adamw_the_rest() -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    optimiser = Optimiser(model, model.parameters(), OptimConfig(kind="muon"))
    state = optimiser.state_dict()
    counts = {
        name: sum(len(group["params"]) for group in part["param_groups"])
        for name, part in state.items()
    }
    ternary = sum(
        name.endswith("weight") and ".attn." in name for name, _ in model.named_parameters()
    )
    assert sum(counts.values()) == len(list(model.parameters()))
    digits = 2 * model.config.head.options["digits"]  # of the mean, and of what tells sides
    assert counts["muon"] == 2 * ternary + digits  # attention and MLP alike, and the projections


def test_the_state_of_another_optimiser_is_refused() -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    muon = Optimiser(model, model.parameters(), OptimConfig(kind="muon"))
    adamw = Optimiser(model, model.parameters(), OptimConfig())
    with pytest.raises(ValueError, match="adamw, muon"):
        adamw.load_state_dict(muon.state_dict())


def test_vectors_are_not_decayed() -> None:
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.ones_(layer.bias)
    optimiser = Optimiser(layer, layer.parameters(), OptimConfig(weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step(0.1)
    assert torch.equal(layer.bias, torch.ones(2))
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 2), 0.95))

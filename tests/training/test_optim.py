"""Optimisers: Muon's update against an SVD and against torch's own, and who trains with what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_sets import TINY_BACKBONE
from torch import nn

from tatvpr_edge.models import registry
from tatvpr_edge.models.train.config import OptimConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.optim import Muon, Optimiser, orthogonalised


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 48), st.integers(1, 48), st.integers(0, 2**32 - 1))
def test_updates_are_nearly_orthogonal(count: int, rows: int, columns: int, seed: int) -> None:
    matrices = torch.randn(
        count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    found = orthogonalised(matrices)
    for matrix, update in zip(matrices, found, strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ update @ vh.T  # diagonal where the singular vectors are kept
        values = inner.diagonal()
        assert float((inner - torch.diag(values)).abs().max()) < 1e-6
        # Five steps bring all but tiny singular values near one (and one of a thousandth to .3).
        large = torch.linalg.svdvals(matrix) > 0.02 * torch.linalg.matrix_norm(matrix)
        assert bool((values[large] > 0.6).all()) and float(values.max()) < 1.3


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_steps_are_those_of_torch_but_for_its_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon([mine], 0.01, 0.1, 0.95, Crew())
    peer = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        ours.step()
        peer.step()
    moved = float((theirs - start).detach().norm())
    assert float((mine - theirs).detach().norm()) < 0.03 * moved


def test_muon_takes_the_ternary_matrices_and_adamw_the_rest() -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    optimiser = Optimiser(model, model.parameters(), OptimConfig(kind="muon"), Crew())
    state = optimiser.state_dict()
    counts = {
        name: sum(len(group["params"]) for group in part["param_groups"])
        for name, part in state.items()
    }
    ternary = sum(
        name.endswith("weight") and ".attn." in name for name, _ in model.named_parameters()
    )
    assert sum(counts.values()) == len(list(model.parameters()))
    assert counts["muon"] == 2 * ternary + 1  # attention and MLP alike, and the projection


def test_the_state_of_another_optimiser_is_refused() -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    muon = Optimiser(model, model.parameters(), OptimConfig(kind="muon"), Crew())
    adamw = Optimiser(model, model.parameters(), OptimConfig(), Crew())
    with pytest.raises(ValueError, match="adamw, muon"):
        adamw.load_state_dict(muon.state_dict())


def test_a_matrix_without_gradient_stays() -> None:
    still, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moved.grad = torch.eye(4)
    Muon([still, moved], 0.1, 0.0, 0.9, Crew()).step()
    assert np.array_equal(still.detach().numpy(), np.ones((4, 4)))
    assert not torch.equal(moved, still)

"""What the losses compute, against NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tatvpr_edge.models.evaluate.recall import rows_of, scores_of
from tatvpr_edge.models.train.config import MetricConfig
from tatvpr_edge.models.train.distil import ranking_loss
from tatvpr_edge.models.train.metric import Relations, binarized, similarity_loss


def test_ranking_is_what_a_kullback_leibler_divergence_of_softmaxes_says() -> None:
    rng = np.random.default_rng(3)
    student, teacher, others = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (rng.normal(size=(n, 5)) for n in (3, 3, 20))
    )
    p, q = (
        np.exp(x @ others.T / 0.1) / np.exp(x @ others.T / 0.1).sum(1, keepdims=True)
        for x in (teacher, student)
    )
    got = ranking_loss(*(torch.from_numpy(x) for x in (student, teacher, others)), 0.1)
    assert float(got) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-9)
    same = ranking_loss(*(torch.from_numpy(x) for x in (teacher, teacher, others)), 0.1)
    assert float(same) == pytest.approx(0.0, abs=1e-12)


def test_supcon_is_the_mean_logarithm_of_a_softmax_over_other_images() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(7, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    place = np.array([0, 0, 0, 1, 1, 2, 2])
    each = []
    for i in range(7):
        others = np.arange(7) != i
        log_share = x @ x[i] / 0.07 - np.log(np.exp(x[others] @ x[i] / 0.07).sum())
        each.append(-log_share[others & (place == place[i])].mean())
    config = MetricConfig(loss="supcon", temperature=0.07)
    got = similarity_loss(config)(torch.from_numpy(x), Relations.of(torch.from_numpy(place)))
    assert float(got) == pytest.approx(np.mean(each), rel=1e-6)


def test_supcon_orders_near_places_where_multi_similarity_pushes_them_apart() -> None:
    # Three places on an arc whose neighbours have a cosine of 0.95, two images each, well told
    # apart already: what remains of the loss is what it would still change.
    angle = np.repeat(np.arccos(0.95) * np.arange(3), 2)
    x = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], 1))
    place = torch.tensor([0, 0, 1, 1, 2, 2])
    ordered = similarity_loss(MetricConfig(loss="supcon", temperature=0.01))(x, Relations.of(place))
    apart = similarity_loss(MetricConfig())(x, Relations.of(place))
    assert float(ordered) < 0.02 < 0.5 < float(apart)


def test_what_is_neither_one_place_nor_surely_two_teaches_nothing() -> None:
    """The third image may show the first's place (a clip's frame a little further on)."""
    x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1]]), dim=1)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    far = torch.zeros(3, 3, dtype=torch.bool)
    open_ = Relations(torch.tensor([0, 0, 1]), same, far)
    loss = similarity_loss(MetricConfig(loss="supcon"))
    assert float(loss(x, open_)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(x, dataclasses.replace(open_, apart=~same))) > 0.3


def test_mirrored_images_are_another_place() -> None:
    relations = Relations.of(torch.tensor([0, 0, 0, 1]))
    made = relations.with_mirrored(torch.tensor([False, True, True, False]))
    assert made.same.tolist() == [
        [True, False, False, False],
        [False, True, True, False],
        [False, True, True, False],
        [False, False, False, True],
    ]
    assert torch.equal(made.apart, ~made.same)
    assert made.labels[0] != made.labels[1] == made.labels[2]


def test_signs_are_compared_as_a_binary_map_does_and_pass_gradients_on() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(6, 8)).astype(np.float32)
    x[0, 0] = 0.0
    descriptors = torch.from_numpy(x).requires_grad_()
    signs = binarized(descriptors)
    rows = rows_of(x, "binary")
    expected = scores_of(rows, rows, "binary")
    assert (signs @ signs.T).detach().numpy() == pytest.approx(expected, abs=1e-6)
    wanted = torch.from_numpy(rng.normal(size=x.shape).astype(np.float32))
    (signs * wanted).sum().backward()
    assert descriptors.grad is not None
    assert torch.equal(descriptors.grad, wanted)

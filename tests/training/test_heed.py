"""The tokens that are kept are those that the descriptor is made of: ``metric.heed_weight``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import tiny_run
from tiny_sets import labelled_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.layers import Gate
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train import metric
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DistilConfig, KConfig, MetricConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Randomness
from tatvpr_edge.models.train.metric import heeded
from tatvpr_edge.models.train.run import train
from tatvpr_edge.spec.errors import UsageError

BACKBONE = ViTConfig(image_px=64, patch=16, dim=32, depth=3, heads=2, keep_after=(2,))


def model(kind: str = "gem", keep_after: tuple[int, ...] = (2,)) -> PlaceModel:
    options = {"project": 16} if kind == "gem" else {}
    backbone = dataclasses.replace(BACKBONE, keep_after=keep_after)
    return registry.create(ModelConfig("tiny", backbone, HeadConfig(kind, options)), seed=3)


def frames(count: int = 8) -> torch.Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=random)


def looks_and_shares(net: PlaceModel) -> tuple[torch.Tensor, torch.Tensor]:
    looks: list[torch.Tensor] = []
    seen = net.see(frames(), net.gate(8, 1.0), looks=looks)
    return looks[0], net.head.shares(seen.tokens)


def kept_share(net: PlaceModel, keep: int = 4) -> float:
    """How much of the descriptor the patches bring that KeepTokens would keep."""
    looked, shares = looks_and_shares(net)
    best = looked.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return float(shares.gather(1, best).sum(1).mean())


def test_learning_it_keeps_what_the_descriptor_is_made_of() -> None:
    net = model().train()
    before = kept_share(net)
    optim = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optim.zero_grad()
        heeded(*looks_and_shares(net)).mean().backward()  # type: ignore[no-untyped-call]
        optim.step()
    assert kept_share(net) > before + 0.02


def test_the_share_of_a_patch_is_what_the_pooled_channels_lose_without_it() -> None:
    head = model().head
    tokens = torch.rand(1, 17, 32, generator=torch.Generator().manual_seed(1))
    tokens[0, 5] = 0  # brings nothing
    tokens[0, 9] *= 3  # brings most
    shares = head.shares(tokens)[0]
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    assert int(shares.argmin()) == 4
    assert int(shares.argmax()) == 8
    # Of two channels, each of one patch, one says half as much: so do their patches.
    tokens = torch.zeros(1, 17, 32)
    tokens[0, 3, 0], tokens[0, 4, 1] = 2.0, 1.0
    shares = head.shares(tokens)[0]
    assert float(shares[2] / shares[3]) == pytest.approx(2, rel=1e-4)


def test_what_is_heeded_is_what_tokens_are_kept_by() -> None:
    net = model()
    looks: list[torch.Tensor] = []
    net.see(frames(), net.gate(8, 1.0), looks=looks)
    seen = net.see(frames(), net.gate(8, 1.0, tokens=0.25))
    assert seen.patches is not None
    best = looks[0].argsort(dim=1, descending=True, stable=True)[:, : seen.patches.shape[1]]
    assert torch.equal(best.sort(1).values, seen.patches)


def test_nothing_is_said_of_tokens_that_were_dropped() -> None:
    net = model()
    looks: list[torch.Tensor] = []
    net.see(frames(), net.gate(8, 1.0, tokens=0.5), looks=looks)
    assert looks == []


def test_a_run_says_how_far_it_is(tmp_path: Path) -> None:
    config = dataclasses.replace(
        tiny_run(tmp_path),
        distil=DistilConfig(),
        metric=MetricConfig(steps=2, places=4, images=3, tokens_share=0.5, heed_weight=2.0),
    )
    parts: set[str] = set()
    train(config, lambda done: parts.update(done.parts))
    assert "heed" in parts


def test_a_batch_that_goes_through_the_network_in_parts_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many frames at a time as a core's cache takes: not one part of the loss is another."""
    learned: list[dict[str, float]] = []
    for frames_at_a_time in (5, 1000):
        monkeypatch.setattr(metric, "_CPU_FRAMES", frames_at_a_time)
        config = dataclasses.replace(
            tiny_run(tmp_path / str(frames_at_a_time)),
            k=KConfig(opening=0.0),
            distil=DistilConfig(),
            metric=MetricConfig(
                steps=1,
                places=4,
                images=3,
                tokens_share=0.5,
                heed_weight=2.0,
                consistency_weight=1.0,
                consistency_share=0.5,
            ),
        )
        train(config, lambda done: learned.append(done.parts))
    assert {"heed", "consistency", "similarity"} <= set(learned[0])
    assert learned[0] == pytest.approx(learned[1], rel=1e-5)


def stage_2(
    net: PlaceModel, folder: Path, k: KConfig, heed_weight: float = 0.0
) -> metric.MetricStage:
    places = labelled(labelled_set(folder / "set"))
    source = metric.Source(places, np.zeros((len(places), 64, 64, 3), np.uint8))
    config = MetricConfig(steps=4, places=4, images=2, heed_weight=heed_weight)
    return metric.MetricStage(net, [source], config, k, AugmentConfig.none(), Crew())


def test_every_place_where_tokens_leave_is_heeded_alike(tmp_path: Path) -> None:
    net = model(keep_after=(1, 2))
    parts = stage_2(net, tmp_path, KConfig(dense_share=1), 2.0).loss(0, Randomness.seeded(0))
    looks: list[torch.Tensor] = []
    with torch.no_grad():
        seen = net.see(torch.zeros_like(frames(1)), net.gate(1, 1.0), looks=looks)
    missed = [float(heeded(look, net.head.shares(seen.tokens)).mean()) for look in looks]
    assert len(missed) == 2 and missed[0] != missed[1]
    assert float(parts["heed"].detach()) == pytest.approx(2 * np.mean(missed), rel=1e-4)


def test_low_dials_are_pulled_to_what_all_channels_and_tokens_say(tmp_path: Path) -> None:
    net = model()
    stage = stage_2(net, tmp_path, KConfig(dense_share=0, opening=0, tokens_lowest=0.3))
    learning, wanted = [], []

    def see(_: object, given: tuple[torch.Tensor, Gate]) -> None:
        gate = given[1]
        to = learning if torch.is_grad_enabled() else wanted
        to.append((float(gate.k.min()), gate.tokens))

    net.backbone.register_forward_pre_hook(see)
    for step in range(4):
        assert "consistency" in stage.loss(step, Randomness.seeded(step))
    assert set(wanted) == {(1.0, 1.0)}
    assert min(learning)[0] < 1 and min(tokens for _, tokens in learning) < 1


def test_images_that_keep_fewer_tokens_stay_in_their_places(tmp_path: Path) -> None:
    """They go through the network by themselves: labels of the others stood beside them."""
    net = model()
    stage = stage_2(net, tmp_path, KConfig())
    fewer = torch.arange(8) % 3 == 1
    said = stage._describe_mixed(frames(), torch.ones(8), 0.25, fewer, None)
    for kept, share in ((fewer, 0.25), (~fewer, 1.0)):
        torch.testing.assert_close(said[kept], net(frames()[kept], 1.0, share))


def test_a_head_that_pools_no_patches_is_refused(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path)
    config = dataclasses.replace(
        whole,
        model=dataclasses.replace(whole.model, name="micro-cls", head={}),
        distil=DistilConfig(),
        metric=MetricConfig(steps=2, places=4, images=3, heed_weight=2.0),
    )
    with pytest.raises(UsageError, match="head 'cls' pools no patches"):
        train(config)

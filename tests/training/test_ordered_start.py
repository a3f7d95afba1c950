"""``[order]``: weights that begin with groups begin with neighbours that fire together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_training import tiny_run
from tiny_sets import TINY_BACKBONE, labelled_set

from support.kept_energy import energy_kept
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.train.config import (
    DistilConfig,
    MetricConfig,
    OrderConfig,
    TrainConfig,
)
from tatvpr_edge.models.train.run import train, wanted_model
from tatvpr_edge.models.train.training_file import check_config
from tatvpr_edge.spec.errors import UsageError


def start_of(folder: Path, order: OrderConfig, **metric: int) -> TrainConfig:
    """Groups of 4 on weights that were made without."""
    whole = tiny_run(folder)
    start = folder / "start.safetensors"
    if not start.exists():
        save_weights(registry.create(wanted_model(whole), seed=7), start)
    return dataclasses.replace(
        whole,
        run=dataclasses.replace(whole.run, output=str(folder / f"run{order.k}")),
        model=dataclasses.replace(
            whole.model, init=str(start), backbone={**TINY_BACKBONE, "groups": 4}
        ),
        order=order,
        distil=DistilConfig(),
        metric=MetricConfig(places=4, images=3, **metric),
    )


def test_groups_of_the_first_step_keep_more_and_say_the_same_at_k_1(tmp_path: Path) -> None:
    labelled_set(tmp_path / "set", places=12)
    made = {}
    for k in (0.0, 0.3):
        weights = train(start_of(tmp_path, OrderConfig(k=k, frames=20)))
        assert weights is not None
        made[k] = load_weights(weights).eval()
    frames = load_frames(labelled(tmp_path / "set").paths, 32, None)
    with torch.no_grad():
        given = torch.from_numpy(frames)
        assert torch.allclose(made[0.3](given, 1.0), made[0.0](given, 1.0), atol=1e-3)
    kept = {k: energy_kept(model, frames, 0.3) for k, model in made.items()}
    assert sum(kept[0.3].values()) > sum(kept[0.0].values())


def test_a_run_that_continues_orders_nothing_again(tmp_path: Path) -> None:
    config = start_of(tmp_path, OrderConfig(k=0.3, frames=20), steps=4)
    whole = train(config)
    broken = dataclasses.replace(config, run=dataclasses.replace(config.run, output=str(tmp_path)))
    assert train(broken, stop_after=2) is None
    again = train(broken)
    assert whole is not None and again is not None
    for name, value in load_weights(again).state_dict().items():
        assert torch.equal(value, load_weights(whole).state_dict()[name]), name


def test_an_order_of_random_weights_is_refused(tmp_path: Path) -> None:
    config = start_of(tmp_path, OrderConfig(k=0.3))
    bare = dataclasses.replace(config, model=dataclasses.replace(config.model, init=""))
    with pytest.raises(UsageError, match=r"order needs weights: model\.init"):
        check_config(bare, "train.toml")


def test_an_order_without_groups_is_refused(tmp_path: Path) -> None:
    config = start_of(tmp_path, OrderConfig(k=0.3))
    single = dataclasses.replace(config.model, backbone=dict(TINY_BACKBONE))
    with pytest.raises(UsageError, match="gates of groups"):
        check_config(dataclasses.replace(config, model=single), "train.toml")

"""``run.precision = "bf16"`` is of the network alone: frames and losses are those of fp32."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from test_training import tiny_run
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tatvpr_edge.models.nn.vit import ViT
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.models.train.run import train

Call = tuple[str, bool, Any]


@contextlib.contextmanager
def watched() -> Iterator[list[Call]]:
    """Every call of a module: its kind, whether precision was mixed, what it was given."""
    calls: list[Call] = []

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        first = given[0] if given else None
        calls.append((type(module).__name__, torch.is_autocast_enabled("cpu"), first))

    hook = register_module_forward_pre_hook(look)
    try:
        yield calls
    finally:
        hook.remove()


def of_one_step(folder: Path, precision: str) -> TrainConfig:
    whole = tiny_run(folder)
    run = dataclasses.replace(
        whole.run, precision=precision, output=str(folder / f"run-{precision}")
    )
    distil = dataclasses.replace(whole.distil, steps=1, ranking_weight=1.0, ranking_views=9)
    metric = dataclasses.replace(whole.metric, steps=1, loss="supcon", consistency_share=1.0)
    return dataclasses.replace(whole, run=run, distil=distil, metric=metric)


def test_a_network_in_bf16_sees_the_frames_of_one_in_fp32(tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {}
    for precision in ("fp32", "bf16"):
        with watched() as calls:
            train(of_one_step(tmp_path, precision))
        of_network = [(mixed, frames) for kind, mixed, frames in calls if kind == ViT.__name__]
        assert {mixed for mixed, _ in of_network} == {precision == "bf16"}
        seen[precision] = [frames for _, frames in of_network]
        # Places are compared in full: cosines of bfloat16 tell 256 steps.
        assert {mixed for kind, mixed, _ in calls if kind == "SupConLoss"} == {False}
    assert len(seen["fp32"]) == len(seen["bf16"]) >= 4
    for one, other in zip(seen["fp32"], seen["bf16"], strict=True):
        assert torch.equal(one, other)

"""tools/average_weights.py: the mean of weights of one architecture, and nothing else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import torch
from tiny_sets import TINY_BACKBONE

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel

TOOL = Path(__file__).resolve().parents[2] / "tools" / "average_weights.py"
MICRO = registry.config("micro")
BACKBONE = dataclasses.replace(MICRO.backbone, **TINY_BACKBONE)
TINY = dataclasses.replace(MICRO, name="tiny", backbone=BACKBONE)


def saved(path: Path, seed: int, config: ModelConfig = TINY) -> PlaceModel:
    model = registry.create(config, seed=seed)
    save_weights(model, path)
    return model


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_tensor_is_the_mean_of_those_given(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    states = [saved(path, seed).state_dict() for seed, path in enumerate(paths)]
    done = run(*paths, "--output", tmp_path / "mean.safetensors")
    assert done.returncode == 0, done.stderr
    mean = load_weights(tmp_path / "mean.safetensors").state_dict()
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
    for name, value in mean.items():
        torch.testing.assert_close(value, sum(state[name] for state in states) / 3)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", 0)
    deeper = dataclasses.replace(BACKBONE, depth=BACKBONE.depth + 1)
    saved(tmp_path / "b", 1, dataclasses.replace(TINY, name="deeper", backbone=deeper))
    refused = run(tmp_path / "a", tmp_path / "b", "--output", tmp_path / "mean.safetensors")
    assert refused.returncode == 1
    assert "deeper" in refused.stderr and "another architecture" in refused.stderr
    assert not (tmp_path / "mean.safetensors").exists()


def test_one_file_has_no_mean(tmp_path: Path) -> None:
    saved(tmp_path / "a", 0)
    refused = run(tmp_path / "a", "--output", tmp_path / "mean.safetensors")
    assert refused.returncode == 1 and "at least two" in refused.stderr

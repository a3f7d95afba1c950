"""Weights that a model begins with: whether they fit, and that those of every recipe do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_sets import TINY_BACKBONE

from tatvpr_edge import zoo
from tatvpr_edge.models import registry, train
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.heads import HEADS, whole_options
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.models.train.finetune import finetune_config
from tatvpr_edge.models.train.run import starting_model, wanted_model
from tatvpr_edge.models.train.training_file import read_config
from tatvpr_edge.spec.errors import ModelError

RECIPES = sorted((Path(train.__file__).parent / "recipes").glob("*.toml"))
BEGINNING = [path for path in RECIPES if read_config(path).model.init]
#: Heads of starting weights that no recipe makes: shipped once, and means of several runs.
OTHERS = {
    "runs/previous.safetensors": {"project": 512},
    "runs/micro-mean.safetensors": {"project": 512},
    "runs/micro-mix.safetensors": {"project": 512},
    "runs/micro-across-k-mean.safetensors": {"project": 512},
}


def with_head(kind: str, **options: object) -> ModelConfig:
    """A tiny backbone with that head."""
    made = registry.config(f"micro-{kind}", **{**TINY_BACKBONE, "keep_after": 0})
    return dataclasses.replace(made, head=HeadConfig(kind, dict(options)))


@pytest.mark.parametrize("kind", HEADS)
def test_an_option_at_its_default_and_none_mean_the_same(kind: str, tmp_path: Path) -> None:
    bare, path = with_head(kind), tmp_path / "bare.safetensors"
    said = with_head(kind, **whole_options(bare.head))
    assert said.head.options and said != bare
    save_weights(registry.create(bare, seed=0), path)
    assert load_weights(path, expected=said).config == said
    save_weights(registry.create(said, seed=0), path)
    assert load_weights(path, expected=bare).config == bare


def test_another_value_of_an_option_is_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_weights(registry.create(with_head("gem", project=48), seed=0), path)
    for options in ({"project": 48, "digits": 2}, {"project": 32}, {}):
        with pytest.raises(ModelError, match=r"another architecture .*\(head.options differ\)"):
            load_weights(path, expected=with_head("gem", **options))


def test_weights_stored_before_the_head_had_digits_are_finetuned_as_they_are(
    tmp_path: Path,
) -> None:
    path = tmp_path / "before.safetensors"
    stored = registry.config("micro", **TINY_BACKBONE)
    stored = dataclasses.replace(stored, head=HeadConfig("gem", {"project": 48}))
    model = registry.create(stored, seed=0)
    save_weights(model, path)
    tuned = starting_model(finetune_config(path, tmp_path, trained=8))
    for name, value in model.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], value)


def beginning(config: TrainConfig) -> ModelConfig | None:
    """The model that a recipe begins with; None: it is shipped."""
    init = Path(config.model.init)
    if config.model.init in zoo.names() or init.parts[:2] == ("models", "zoo"):
        return None
    if config.model.init in OTHERS:
        made = registry.config(config.model.name)
        options = OTHERS[config.model.init]
        return dataclasses.replace(made, head=HeadConfig("gem", dict(options)))
    [maker] = [path for path in RECIPES if read_config(path).run.output == str(init.parent)]
    return wanted_model(read_config(maker))


@pytest.mark.parametrize("recipe", BEGINNING, ids=lambda path: path.stem)
def test_what_a_recipe_begins_with_fits_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(recipe)
    made = beginning(config)
    if made is not None:
        monkeypatch.chdir(tmp_path)
        save_weights(registry.create(made, seed=0), Path(config.model.init))
    assert starting_model(config).config == wanted_model(config)


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=1)
    made = set()
    for _ in range(12):
        save_weights(model, tmp_path / "w.safetensors")
        made.add((tmp_path / "w.safetensors").read_bytes())
    assert len(made) == 1
    header_bytes = int.from_bytes(made.pop()[:8], "little")
    assert header_bytes % 8 == 0  # tensors that are mapped into memory are aligned
    read = load_weights(tmp_path / "w.safetensors")
    assert read.config == model.config
    wanted = model.state_dict()
    assert all(bool((wanted[name] == value).all()) for name, value in read.state_dict().items())

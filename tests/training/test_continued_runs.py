"""A run that goes on: by the same settings, from states and curves that may be damaged, alone."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import assert_same, tiny_run, weights_of
from tiny_sets import labelled_set, tower_set
from torch.nn.modules.module import register_module_forward_pre_hook

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_state, save_state, save_weights
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.nn.vit import ViT
from tatvpr_edge.models.train.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import (
    Progress,
    Randomness,
    TrainingError,
    read_curves,
    run_stage,
)
from tatvpr_edge.models.train.run import train, wanted_model
from tatvpr_edge.models.train.training_file import with_changes
from tatvpr_edge.spec.errors import DataError, ModelError, UsageError


def stage_2(folder: Path, **changes: Any) -> TrainConfig:
    """Six steps of stage 2 alone."""
    whole = tiny_run(folder)
    alone = dataclasses.replace(whole.metric, distil_weight=0.0)
    distil = dataclasses.replace(whole.distil, steps=0)
    return dataclasses.replace(whole, distil=distil, metric=alone, **changes)


def test_a_run_at_its_end_is_not_taken_for_one_by_other_settings(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    first = weights_of(train(config))
    assert_same(first, weights_of(train(config)))  # the same command again
    threads = with_changes(config, ["run.threads=2", "run.checkpoint_every_s=9"])
    assert_same(first, weights_of(train(threads)))  # what decides no weights may change
    for change, said in (
        ("metric.optim.lr=0.01", r"metric\.optim\.lr 0\.001 -> 0\.01"),
        ("run.seed=4", r"run\.seed 3 -> 4"),
        ("run.precision=bf16", r"run\.precision 'fp32' -> 'bf16'"),
        ("metric.loss=supcon", r"metric\.loss"),
    ):
        with pytest.raises(ModelError, match=f"at its end, by other settings.*{said}.*remove it"):
            train(with_changes(config, [change]))
    other = tuple(dataclasses.replace(table, rivals=0) for table in config.data)
    with pytest.raises(ModelError, match=r"data\[0\]\.rivals 1 -> 0"):
        train(dataclasses.replace(config, data=other))


def test_weights_that_were_trained_again_under_their_name_are_other_ones(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    config = stage_2(tmp_path)
    shape = wanted_model(config)
    save_weights(registry.create(shape, seed=1), file)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, init=str(file)),
        metric=dataclasses.replace(config.metric, anchor=f"model:{file}"),
    )
    first = weights_of(train(config))
    assert_same(first, weights_of(train(config)))
    save_weights(registry.create(shape, seed=2), file)
    with pytest.raises(ModelError, match=r"by other settings \(sha256\..*start\.safetensors '"):
        train(config)


def test_a_run_at_its_end_is_not_taken_for_one_of_other_frames(tmp_path: Path) -> None:
    """Whoever added frames to a folder and trained again was given the old weights as new ones."""
    config = stage_2(tmp_path)
    first = weights_of(train(config))
    os.utime(Path(config.data[0].root) / "p0-0.jpg", (1, 1))  # copied, say
    assert_same(first, weights_of(train(config)))
    labelled_set(Path(config.data[0].root), views=4)
    with pytest.raises(ModelError, match=r"by other settings \(sha256\.frames of .*/set '"):
        train(config)


def test_frames_of_each_table_of_one_folder_count(tmp_path: Path) -> None:
    """The last table's stood for all of its folder."""
    table = DataConfig(format="tower", root=str(tower_set(tmp_path / "tower")))
    config = stage_2(tmp_path, data=(table, dataclasses.replace(table, split="val")))
    train(config)
    one, other = (
        tmp_path / "tower" / "train" / name for name in ("f1/a/000001.jpg", "f2/b/000009.jpg")
    )
    assert one.stat().st_size != other.stat().st_size
    shutil.copy(one, other)
    with pytest.raises(ModelError, match=r"by other settings \(sha256\.frames of .*/tower '"):
        train(config)


def test_a_run_of_before_contents_were_kept_is_the_same_run(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    first = weights_of(train(config))
    path = Path(config.run.output) / "metric.state"
    state = load_state(path)
    known = state["settings"]
    newer = ("sha256", "run.precision")
    state["settings"] = {n: v for n, v in known.items() if not n.startswith(newer)}
    assert len(state["settings"]) < len(known)
    save_state(path, state)
    assert_same(first, weights_of(train(config)))


class AtZero:
    """A stage whose loss is 0, and has no slope there."""

    name, steps, optim = "metric", 2, OptimConfig()

    def __init__(self) -> None:
        self.layer = torch.nn.Linear(2, 1)

    def parameters(self) -> list[torch.nn.Parameter]:
        return list(self.layer.parameters())

    def modules(self) -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({"layer": self.layer})

    def loss(self, step: int, random: Randomness) -> dict[str, torch.Tensor]:
        return {"root": (0 * self.layer.weight).sum().sqrt()}


def test_a_gradient_that_is_no_number_changes_no_weight(tmp_path: Path) -> None:
    stage, random = AtZero(), Randomness.seeded(0)
    before = stage.layer.weight.clone()
    with pytest.raises(TrainingError, match=r"metric, step 1: the gradient.* no state was kept"):
        run_stage(stage, RunConfig(), random, Crew(), tmp_path)
    assert bool((stage.layer.weight == before).all())
    assert not (tmp_path / "metric.state").exists()


def test_rivals_are_looked_for_by_the_arithmetic_of_the_run(tmp_path: Path) -> None:
    """Weights of a file come evaluating: the first look, and the one after a stop at its step, had
    other last bits than that of an unbroken run, and may have found other rivals."""
    config = stage_2(tmp_path)
    start = tmp_path / "start.safetensors"
    save_weights(registry.create(wanted_model(config), seed=1), start)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, init=str(start)))
    training: list[bool] = []

    def look(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, ViT):
            training.append(module.training)

    hook = register_module_forward_pre_hook(look)
    try:
        assert train(config, stop_after=config.metric.rivals_every) is None
        assert train(config) is not None
    finally:
        hook.remove()
    assert training and all(training)


def test_stage_1_stays_where_stage_2_alone_changed(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    train(config)
    state = tmp_path / "run" / "metric.state"
    changed = with_changes(config, ["metric.optim.lr=0.01"])
    with pytest.raises(ModelError, match=r"metric\.state is at its end"):
        train(changed)
    state.unlink()
    assert train(changed) is not None
    with pytest.raises(ModelError, match=r"distil\.state is at its end.*distil\.batch 8 -> 4"):
        train(with_changes(changed, ["distil.batch=4"]))


def test_a_run_that_goes_on_by_other_settings_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = stage_2(tmp_path)
    assert train(config, stop_after=2) is None
    with caplog.at_level(logging.WARNING, "tatvpr_edge"):
        assert train(config, stop_after=2) is None
        assert "goes on" not in caplog.text
        assert train(with_changes(config, ["metric.steps=8"])) is not None
    assert "goes on with other settings than it began with: metric.steps 6 -> 8" in caplog.text


def test_curves_of_a_run_that_stopped_anywhere_are_whole(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    curves = tmp_path / "run" / "curves.csv"
    train(config, stop_after=4)
    rows = read_curves(curves)
    assert {row["step"] for row in rows} == {"4"}
    # A power cut leaves a row without its end, and what the disk had there before.
    with curves.open("ab") as file:
        file.write(b"metric,4,1e-3,simi\nmetric,3\n\xff\xfe\0\0,\nmetric,x,1,a,b\n")
    assert train(config) is not None
    assert [row["step"] for row in read_curves(curves)][: len(rows)] == ["4"] * len(rows)
    assert {row["step"] for row in read_curves(curves)} == {"4", "6"}
    curves.write_bytes(b"no\xfftable\n1\n")
    assert train(config) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("modules"),
        lambda state: state.update(modules=5),
        lambda state: state.update(step="x"),
        lambda state: state.update(step=-3),
        lambda state: state.update(step=True),
        lambda state: state.update(random={"torch": 1, "numpy": 2}),
        lambda state: state.update(random=[]),
        lambda state: state.update(optimiser=[1]),
        lambda state: state.update(optimiser={}),
        lambda state: state.update(stage="distil"),
    ],
)
def test_a_state_of_anything_else_is_one_line(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    config = stage_2(tmp_path)
    train(config, stop_after=2)
    path = tmp_path / "run" / "metric.state"
    state = load_state(path)
    damage(state)
    save_state(path, state)
    with pytest.raises(ModelError, match=r"metric\.state.*remove it"):
        train(config)


def test_a_folder_in_a_states_place_is_said_before_the_training(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    (tmp_path / "run" / "metric.state").mkdir(parents=True)
    steps: list[Progress] = []
    with pytest.raises(ModelError, match=r"metric\.state.*remove it"):
        train(config, steps.append)
    assert not steps


def test_an_output_that_cannot_be_made_is_named_and_one_without_a_run_goes(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"run\.output is .*file, which cannot be made"):
        train(with_changes(config, [f"run.output={tmp_path / 'file'}"]))
    with pytest.raises(ModelError, match="nosuch"):
        train(with_changes(config, [f"run.output={tmp_path / 'new'}", "model.init=nosuch"]))
    assert not (tmp_path / "new").exists()


def test_two_trainings_do_not_write_to_one_folder(tmp_path: Path) -> None:
    config = stage_2(tmp_path)

    def meanwhile(done: Progress) -> None:
        with pytest.raises(TrainingError, match="another training writes to it"):
            train(config)
        other = str(tmp_path / "other")
        run = dataclasses.replace(config.run, output=other)
        assert train(dataclasses.replace(config, run=run), stop_after=1) is None

    assert train(config, meanwhile, stop_after=1) is None
    assert train(config) is not None  # and whoever comes later may


def test_places_that_are_handed_over_are_their_givers_to_compare(tmp_path: Path) -> None:
    """``finetune`` compares the frames themselves, which no table names."""
    config = stage_2(tmp_path)
    places = [labelled(labelled_set(tmp_path / "set"))]
    train(config, places=places)
    assert train(with_changes(config, ["metric.optim.lr=0.01"]), places=places) is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("run.seed=true", "seed is True: expected int"),
        ("metric.optim.lr=-1", r"metric\.optim\.lr is -1"),
        ("metric.optim.rate=1", "unknown key 'rate'; known: clip"),
        ("metric.optim=1", "optim must be a table"),
        ("metric.optim.lr.x=1", "lr is no table"),
        ("data.root=x", "data is no table of single keys"),
        ("run.output=", r"run\.output is empty"),
        ("run.output=' '", r"run\.output is empty"),
        ("run.=1", "unknown key ''"),
    ],
)
def test_a_change_that_no_run_can_mean(change: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        with_changes(TrainConfig(), [change])


def test_a_change_reaches_every_table() -> None:
    config = with_changes(TrainConfig(), ["metric.optim.lr=1", "model.backbone={depth=4}"])
    assert (config.metric.optim.lr, config.model.backbone) == (1.0, {"depth": 4})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'run\.device is "cuda:1".*set run\.device = "cpu"'):
        train(with_changes(stage_2(tmp_path), ["run.device=cuda:1"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_process_of_a_machine_has_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them took the first one, which NCCL refuses."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UsageError, match=r'run\.device is "cuda:3".*a process for each GPU'):
        train(with_changes(stage_2(tmp_path), ["run.device=cuda"]))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"backbone": {"deep": 3}}, "no 'deep'; it has image_px"),
        ({"backbone": {"ternary": "no"}}, "ternary is 'no': it is true or false"),
        ({"head": {"digit": 3}, "init": "nano"}, "no option 'digit'; it has project"),
        ({"head": {"digits": "x"}, "init": "nano"}, "digits is 'x'"),
    ],
)
def test_a_network_that_is_misspelt(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    config = stage_2(tmp_path)
    section = dataclasses.replace(config.model, **{"name": "nano", "backbone": {}, **model})
    with pytest.raises(ModelError, match=said):
        train(dataclasses.replace(config, model=section))


def test_what_is_of_keep_tokens_is_refused_where_there_are_none(tmp_path: Path) -> None:
    config = stage_2(tmp_path)
    with pytest.raises(UsageError, match=r"k\.tokens_lowest and .* micro has none"):
        train(with_changes(config, ["model.backbone={keep_after=0}"]))


def test_an_anchor_of_another_size_is_told_by_both_sizes(tmp_path: Path) -> None:
    config = with_changes(stage_2(tmp_path), ["metric.anchor=model:nano"])
    with pytest.raises(UsageError, match=r"'model:nano' says 256 numbers.* 512: name an anchor"):
        train(config)


def test_views_of_another_teacher_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path)
    distil = dataclasses.replace(
        whole.distil, views=str(tmp_path / "made"), teacher="model:nano", channels=4, steps=1
    )
    metric = dataclasses.replace(whole.metric, steps=0, distil_weight=0.0)
    config = dataclasses.replace(whole, distil=distil, metric=metric)
    assert train(config) is not None
    for change, said in (
        ("distil.teacher=model:micro", r"distil\.teacher = 'model:nano', not 'model:micro'"),
        ("distil.channels=8", r"distil\.channels = 4, not 8"),
    ):
        with pytest.raises(UsageError, match=f"made was made with {said}: name another"):
            train(with_changes(config, [change, f"run.output={tmp_path / 'other'}"]))
    few = with_changes(config, ["distil.channels=999", f"distil.views={tmp_path / 'few'}"])
    with pytest.raises(DataError, match=r"128 channels.*distil\.channels is at most 128"):
        train(few)
    assert not list(tmp_path.glob("few*"))


def of_own_views(folder: Path) -> TrainConfig:
    """One step of stage 1, of views of two floors that a teacher of ours makes on the way."""
    whole = tiny_run(folder)
    start = folder / "teacher.safetensors"
    save_weights(registry.create(wanted_model(whole), seed=1), start)
    table = DataConfig(format="tower", root=str(tower_set(folder / "tower")))
    distil = dataclasses.replace(
        whole.distil, views=str(folder / "made"), teacher=f"model:{start}", channels=4, steps=1
    )
    metric = dataclasses.replace(whole.metric, steps=0, distil_weight=0.0)
    return dataclasses.replace(whole, distil=distil, metric=metric, data=(table,))


def test_views_of_a_teacher_that_was_trained_again_are_another_ones(tmp_path: Path) -> None:
    config = of_own_views(tmp_path)
    assert train(config) is not None
    again = with_changes(config, [f"run.output={tmp_path / 'again'}"])
    teacher = tmp_path / "teacher.safetensors"
    save_weights(registry.create(wanted_model(config), seed=2), teacher)
    with pytest.raises(
        UsageError, match=r"made was made with SHA-256 of .*teacher\.safetensors = "
    ):
        train(again)
    teacher.unlink()  # it has been asked
    assert train(again) is not None


def test_a_run_at_its_end_is_not_taken_for_one_of_other_views(tmp_path: Path) -> None:
    config = of_own_views(tmp_path)
    assert train(config) is not None
    shutil.rmtree(tmp_path / "made")
    other = [f"run.output={tmp_path / 'other'}", "run.seed=4"]
    assert train(with_changes(config, other)) is not None
    with pytest.raises(ModelError, match=r"by other settings \(sha256\.distil\.views '"):
        train(config)


def test_a_teacher_that_is_shown_nothing_says_so(tmp_path: Path) -> None:
    config = of_own_views(tmp_path)
    none = dataclasses.replace(config.data[0], views=0.0)
    with pytest.raises(UsageError, match=r"at least one \[\[data\]\] table with views above 0"):
        train(dataclasses.replace(config, data=(none,)))


def test_views_of_what_a_run_leaves_out_are_none_of_its(tmp_path: Path) -> None:
    config = of_own_views(tmp_path)
    assert train(config) is not None
    fewer = dataclasses.replace(config.data[0], leave_out=("f2",))
    config = with_changes(config, [f"run.output={tmp_path / 'again'}"])
    with pytest.raises(UsageError, match=r"made shows 'f2', which data\[0\]\.leave_out leaves out"):
        train(dataclasses.replace(config, data=(fewer,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("run.seed=4", "run.seed 3 -> 4"),
        ("augment.smallest_crop=0.9", "augment.smallest_crop 0.65 -> 0.9"),
        ("", "files of its frames"),
    ],
)
def test_views_of_other_settings_or_frames_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str, said: str
) -> None:
    config = of_own_views(tmp_path)
    with caplog.at_level(logging.WARNING, "tatvpr_edge"):
        assert train(config) is not None
        assert not caplog.records
        if not change:
            frame = next((tmp_path / "tower/train").rglob("*.jpg"))
            frame.write_bytes(frame.read_bytes() + b"\0")
        changed = [f"run.output={tmp_path / 'again'}", *filter(None, [change])]
        assert train(with_changes(config, changed)) is not None
    assert f"although changed since it was made: {said} (remove it" in caplog.text


def test_a_batch_of_more_views_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"36 views of the teacher, and distil\.batch = 99"):
        train(with_changes(tiny_run(tmp_path), ["distil.batch=99"]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda views: np.save(views / "descriptors.npy", np.zeros((5, 4), np.float16)),
        lambda views: shutil.copy(views / "pixels.npy", views / "features.npy"),
        lambda views: (views / "card.json").write_text("[]"),
        lambda views: (views / "pixels.npy").write_bytes(b""),
        lambda views: np.save(views / "pixels.npy", np.float32(3)),
    ],
)
def test_views_that_do_not_belong_together(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    config = tiny_run(tmp_path)
    spoil(tmp_path / "views")
    with pytest.raises(DataError, match=r"views: .*teacher views.*remove it to make it anew"):
        train(config)

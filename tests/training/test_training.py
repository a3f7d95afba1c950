"""Training: configuration, both stages, resuming to the same bits, and clear errors."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_sets import TINY_BACKBONE, ColourTeacher, labelled_set

from tatvpr_edge.models.checkpoint import load_state, load_weights, save_state
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import (
    DataConfig,
    DistilConfig,
    KConfig,
    MetricConfig,
    ModelSection,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from tatvpr_edge.models.train.loop import Progress, TrainingError
from tatvpr_edge.models.train.run import train
from tatvpr_edge.models.train.training_file import read_config, with_changes
from tatvpr_edge.models.train.views import read_views, write_views
from tatvpr_edge.spec.errors import DataError, ModelError, UsageError

RECIPES = Path(__file__).resolve().parents[2] / "models" / "train" / "recipes"


def tiny_run(folder: Path, **changes: Any) -> TrainConfig:
    """Six steps of stage 1 and six of stage 2 on a tiny network and six places."""
    data = folder / "set"
    if not data.exists():
        labelled_set(data)
        places = labelled(data)
        write_views(
            folder / "views", places.paths, [2] * len(places), ColourTeacher(),
            side_px=32, channels=4,
        )  # fmt: skip
    config = TrainConfig(
        run=RunConfig(output=str(folder / "run"), seed=3, threads=1, cache=""),
        model=ModelSection(name="micro", backbone=dict(TINY_BACKBONE), head={"digits": 1}),
        k=KConfig(opening=0.5, tokens_lowest=0.5),
        augment=AugmentConfig(),
        distil=DistilConfig(
            views=str(folder / "views"), steps=6, batch=8, visible_share=0.5,
            quantise_from=0.2, quantise_until=0.6, optim=OptimConfig(kind="muon"),
        ),
        metric=MetricConfig(
            steps=6, places=4, images=2, rivals_every=4, distil_weight=0.5, binary_weight=0.2,
            optim=OptimConfig(lr=1e-3),
        ),
        data=(DataConfig(format="labelled", root=str(data), rivals=1),),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def weights_of(path: Path | None) -> dict[str, torch.Tensor]:
    assert path is not None
    return dict(load_weights(path).state_dict())


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_killed_and_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path)
    unbroken = weights_of(train(whole))
    broken = dataclasses.replace(
        whole, run=dataclasses.replace(whole.run, output=str(tmp_path / "b"))
    )
    calls = 0
    while (path := train(broken, stop_after=2)) is None:
        calls += 1
        assert calls < 20
    assert calls >= 4  # both stages were interrupted
    assert_same(unbroken, weights_of(path))
    header = (tmp_path / "run" / "curves.csv").read_text().splitlines()[0]
    assert header == "stage,step,lr,part,value"


def test_a_run_that_dies_between_checkpoints_resumes_to_the_same_weights(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    whole = tiny_run(tmp_path)
    unbroken = weights_of(train(whole))
    run = dataclasses.replace(whole.run, output=str(tmp_path / "b"), checkpoint_every_s=0.0)
    broken = dataclasses.replace(whole, run=run)

    def die(done: Progress) -> None:
        if done.stage == "metric" and done.step == 4:
            raise Killed

    with pytest.raises(Killed):
        train(broken, die)
    assert_same(unbroken, weights_of(train(broken)))


@pytest.mark.parametrize(
    ("kind", "lr", "loss"),
    [
        ("adamw", 1e-3, "multi-similarity"),
        ("muon", 1e-2, "multi-similarity"),
        ("adamw", 1e-3, "supcon"),
    ],
)
def test_both_stages_lower_their_loss(tmp_path: Path, kind: str, lr: float, loss: str) -> None:
    config = tiny_run(tmp_path)
    optim = OptimConfig(lr=lr, kind=kind)
    config = dataclasses.replace(
        config,
        augment=AugmentConfig.none(),
        distil=dataclasses.replace(
            config.distil, steps=40, optim=OptimConfig(lr=3 * lr, kind=kind)
        ),
        # at random: hard negatives stay hard
        metric=dataclasses.replace(
            config.metric, steps=40, distil_weight=0.0, optim=optim, loss=loss
        ),
        data=(dataclasses.replace(config.data[0], rivals=0),),
    )
    seen: dict[str, list[float]] = {"distil": [], "metric": []}
    train(config, lambda p: seen[p.stage].append(p.loss))
    for stage, losses in seen.items():
        assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8]), stage


def test_the_teacher_goes_on_teaching_beside_stage_2(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    optim = OptimConfig(lr=3e-3)
    config = dataclasses.replace(
        config,
        k=KConfig(opening=0.5),  # all tokens, in every batch
        distil=dataclasses.replace(config.distil, steps=0),
        metric=dataclasses.replace(config.metric, steps=40, distil_weight=2.0, optim=optim),
    )
    taught: list[float] = []
    train(config, lambda p: taught.append(p.parts["tokens"]))
    assert np.mean(taught[-8:]) < 0.9 * np.mean(taught[:8])
    run = dataclasses.replace(config.run, output=str(tmp_path / "without"))
    metric = dataclasses.replace(config.metric, distil_weight=0.0)
    parts: set[str] = set()
    train(dataclasses.replace(config, run=run, metric=metric), lambda p: parts.update(p.parts))
    assert parts == {"similarity", "binary", "consistency"}


def test_weights_learn_to_say_at_low_k_what_they_said_at_k_1(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    before = train(dataclasses.replace(config, metric=MetricConfig()))
    assert before is not None
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, output=str(tmp_path / "own")),
        model=dataclasses.replace(config.model, init=str(before)),
        k=KConfig(lowest=0.15, opening=0.0, dense_share=0.2, power=2.0),
        distil=dataclasses.replace(
            config.distil, teacher=f"model:{before}", views=str(tmp_path / "own_views"),
            whitened=False, steps=90, channels=24, descriptor_weight=50.0, visible_share=1.0,
            quantise_until=0.0, optim=OptimConfig(lr=1e-2, warmup_steps=5),
        ),
        metric=MetricConfig(),
    )  # fmt: skip
    frames = torch.from_numpy(np.array(read_views(tmp_path / "views").pixels))
    after = train(config)
    assert after is not None
    with torch.no_grad():
        wanted = load_weights(before).eval()(frames, 1.0)
        was = (load_weights(before).eval()(frames, 0.2) * wanted).sum(1).mean()
        now = (load_weights(after).eval()(frames, 0.2) * wanted).sum(1).mean()
    assert 1 - now < 0.7 * (1 - was)


def test_ranking_alone_teaches_a_student_to_find_what_its_teacher_finds(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    before = train(dataclasses.replace(config, metric=MetricConfig()))
    assert before is not None
    distil = dataclasses.replace(
        config.distil, teacher=f"model:{before}", views=str(tmp_path / "own_views"),
        whitened=False, channels=24, tokens_weight=0.0, descriptor_weight=0.0, ranking_weight=1.0,
        ranking_views=20, steps=40, quantise_until=0.0, optim=OptimConfig(lr=1e-2, warmup_steps=5),
    )  # fmt: skip
    config = dataclasses.replace(
        config, distil=distil, metric=MetricConfig(),
        run=dataclasses.replace(config.run, output=str(tmp_path / "own")),
    )  # fmt: skip
    seen: list[float] = []
    parts: set[str] = set()

    def watch(progress: Progress) -> None:
        parts.update(progress.parts)
        seen.extend(value for name, value in progress.parts.items() if name == "ranking")

    train(config, watch)
    assert "ranking" in parts and "tokens" not in parts
    assert np.mean(seen[-8:]) < 0.8 * np.mean(seen[:8])


def test_frames_without_a_share_are_seen_by_the_teacher_alone(tmp_path: Path) -> None:
    before = train(dataclasses.replace(tiny_run(tmp_path), metric=MetricConfig()))
    config = tiny_run(tmp_path)
    # Places too few for a batch: drawing from them would be an error.
    scenery = labelled_set(tmp_path / "scenery", places=2, views=4)
    unlabelled = DataConfig(format="labelled", root=str(scenery), share=0.0, views=0.5)
    config = dataclasses.replace(
        config, data=(unlabelled, *config.data),
        run=dataclasses.replace(config.run, output=str(tmp_path / "own")),
        distil=dataclasses.replace(
            config.distil, steps=0, channels=24, teacher=f"model:{before}",
            views=str(tmp_path / "own_views"), whitened=False,
        ),
    )  # fmt: skip
    seen: list[Progress] = []
    assert train(config, seen.append) is not None
    made = [p for p in seen if p.stage == "views"]
    assert seen[: len(made)] == made and made[-1].step == made[-1].steps == 4 + 18
    assert {p.stage for p in seen} == {"views", "metric"}


def test_descriptors_of_another_size_are_only_learned_whitened(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    plain = dataclasses.replace(config.distil, whitened=False)
    with pytest.raises(DataError, match=r"distil\.whitened"):
        train(dataclasses.replace(config, distil=plain))


def test_only_the_last_blocks_train_when_asked(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    config = dataclasses.replace(config, metric=dataclasses.replace(config.metric, last_blocks=1))
    weights_of(train(config))
    before = weights_of(tmp_path / "run" / "distil.safetensors")
    after = weights_of(tmp_path / "run" / "metric.safetensors")
    for name in before:
        moved = not torch.equal(before[name], after[name])
        expected = name.startswith(("backbone.blocks.1.", "backbone.norm.", "head."))
        assert moved == expected or "bias" in name, name


def test_a_float_twin_trains_alike(tmp_path: Path) -> None:
    section = ModelSection(name="micro", backbone={**TINY_BACKBONE, "ternary": False})
    path = train(tiny_run(tmp_path, model=section))
    assert path is not None
    assert not load_weights(path).config.backbone.ternary


@pytest.mark.slow
def test_two_processes_give_the_loss_and_weights_of_one(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, k=KConfig(opening=0.0, tokens_lowest=0.5))
    # By this seed one process has all those frames of the first batch that keep all tokens.
    metric = dataclasses.replace(config.metric, tokens_share=0.5, heed_weight=9.0)
    config = with_changes(dataclasses.replace(config, metric=metric), ["run.seed=9"])
    alone: list[float] = []
    one = weights_of(train(config, lambda p: alone.append(p.loss)))
    program = tmp_path / "together.py"
    program.write_text(
        "import json, pickle, sys\n"
        "from pathlib import Path\n"
        "from tatvpr_edge.models.train.run import train\n"
        "config = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "losses = []\n"
        "train(config, lambda p: losses.append(p.loss))\n"
        "import os\n"
        "tasks = [task / 'comm' for task in Path('/proc/self/task').iterdir()]\n"
        "left = [task.read_text() for task in tasks if 'gloo' in task.read_text()]\n"
        "assert not left, left  # now and then they abort the program as it ends\n"
        "if os.environ['RANK'] == '0': Path(sys.argv[2]).write_text(json.dumps(losses))\n"
    )
    run = dataclasses.replace(config.run, output=str(tmp_path / "two"))
    (tmp_path / "config.bin").write_bytes(pickle.dumps(dataclasses.replace(config, run=run)))
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(program), str(tmp_path / "config.bin"), str(tmp_path / "losses.json"),
        ],
        check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    together = json.loads((tmp_path / "losses.json").read_text())
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    # Later steps differ by rounding only, which a flipped ternary weight may amplify.
    np.testing.assert_allclose(together, alone, rtol=2e-2)
    two = weights_of(tmp_path / "two" / "weights.safetensors")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=2e-2)


def test_teacher_views_appear_whole_and_say_how_they_were_made(tmp_path: Path) -> None:
    places = labelled(labelled_set(tmp_path / "set", places=2, views=2))
    folder = write_views(
        tmp_path / "views", places.paths, [1, 0, 2, 3], ColourTeacher(), side_px=32, channels=4
    )
    views = read_views(folder)
    assert views.pixels.shape == (6, 32, 32, 3)
    assert views.features.shape == (6, 4, 4, 4)
    assert views.card["teacher"] == {"name": "colour", "source": "arithmetic"}
    with pytest.raises(DataError, match="exists"):
        write_views(folder, places.paths, [1] * 4, ColourTeacher(), side_px=32, channels=4)
    places.paths[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="no image that can be read"):
        write_views(tmp_path / "b", places.paths, [1] * 4, ColourTeacher(), side_px=32, channels=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "views"]


def test_a_frame_that_cannot_be_read_is_told_before_the_teacher_looks(tmp_path: Path) -> None:
    """The last of a hundred thousand ended hours of a teacher's work, of which nothing was kept."""
    asked = []

    class Asked(ColourTeacher):
        def features(self, frames: torch.Tensor) -> torch.Tensor:
            asked.append(len(frames))
            return super().features(frames)

    places = labelled(labelled_set(tmp_path / "set", places=8))
    places.paths[-1].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"p7-2\.jpg"):
        write_views(tmp_path / "v", places.paths, [1] * 24, Asked(), side_px=32, channels=4)
    assert not asked
    shown = [1] * 23 + [0]
    write_views(tmp_path / "v", places.paths, shown, Asked(), side_px=32, channels=4)
    assert asked


# --- faults -------------------------------------------------------------------------------------


def test_nan_in_a_batch_names_the_step_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, k=KConfig())
    views = np.load(tmp_path / "views" / "features.npy", mmap_mode="r+")
    train(config, stop_after=2)
    kept = (tmp_path / "run" / "distil.state").read_bytes()
    views[:] = np.nan
    views.flush()
    with pytest.raises(TrainingError, match=r"distil, step 3: the loss is nan \(tokens\)"):
        train(config)
    assert (tmp_path / "run" / "distil.state").read_bytes() == kept


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    train(config, stop_after=2)
    other = ModelSection(name="micro", backbone={**TINY_BACKBONE, "dim": 48})
    with pytest.raises(ModelError, match=r"distil\.state: a checkpoint of another architecture"):
        train(dataclasses.replace(config, model=other))
    init = ModelSection(
        name="micro", backbone={**TINY_BACKBONE, "depth": 3}, init=str(tmp_path / "w.safetensors")
    )
    from tatvpr_edge.models import registry
    from tatvpr_edge.models.checkpoint import save_weights

    save_weights(
        registry.create(registry.config("micro", **TINY_BACKBONE)), tmp_path / "w.safetensors"
    )
    with pytest.raises(ModelError, match=r"backbone\.depth"):
        train(dataclasses.replace(config, model=init))


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {marker}",)

    torch.save({"version": 1, "x": Bomb()}, tmp_path / "bomb.state")
    with pytest.raises(ModelError, match="more than data"):
        load_state(tmp_path / "bomb.state")
    (tmp_path / "raw.state").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"raw\.state"):
        load_state(tmp_path / "raw.state")
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "list"])
def test_a_damaged_state_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.state"
    save_state(path, {"a": torch.zeros(100)})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        torch.save([1, 2], path)
    with pytest.raises(ModelError, match=r"x\.state"):
        load_state(path)


def test_too_few_places_for_a_batch(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    metric = dataclasses.replace(config.metric, places=40)
    distil = dataclasses.replace(config.distil, steps=0)
    with pytest.raises(DataError, match="6 places, a batch needs 40"):
        train(dataclasses.replace(config, metric=metric, distil=distil))


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(recipe: Path) -> None:
    config = read_config(recipe)
    learns = config.distil.steps + config.metric.steps > 0 or config.refit.asked
    assert config.data if learns else config.model.enlarge


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nsed = 1\n", "unknown key 'sed': did you mean seed"),
        ("[metrik]\n", "unknown key 'metrik': did you mean metric"),
        ("[metric]\nplaces = 1\n", "metric.places is 1: at least 2 and at most 1048576$"),
        ("[[data]]\nformat = 'labelled'\nroot = 'x'\nleave_out = ['m1']\n", "data.leave_out names"),
        ("[run]\nseed = 'one'\n", "seed is 'one': expected int"),
        ("[run]\nseed = true\n", "expected int"),
        ("[run\n", "not valid TOML"),
        ("run = 3\n", "must be a table"),
        ("[k]\nlowest = 0\n", "k.lowest"),
        ("[metric]\nsteps = 3\n", r"at least one \[\[data\]\]"),
        ("[distil]\nsteps = 3\n", "needs distil.views"),
        ("[metric]\ndistil_weight = 1\n", "needs distil.views"),
        ("[metric]\ndistil_weight = -1\n", "distil_weight"),
        ("[distil]\nvisible_share = 1.5\n", "visible_share"),
        ("[distil]\ntokens_weight = -1\n", "tokens_weight"),
        ("[distil]\ntokens_weight = 0\ndescriptor_weight = 0\n", "at least one must be above 0"),
        ("[metric]\nloss = 'triplet'\n", 'metric.loss is "multi-similarity" or "supcon"'),
        ("[metric]\ntemperature = 0\n", "metric.temperature"),
        ("[metric]\nbinary_weight = -1\n", "metric.binary_weight"),
        ("[run]\nprecision = 'fp8'\n", "precision"),
        ("[[data]]\nshare = -1\n", "share must not be negative"),
        ("[metric]\nsteps = 3\n[[data]]\nshare = 0\n", "a share above 0"),
        (
            "[metric]\nsteps = 3\n[[data]]\nroot = 'x'\nnear = 2\n",
            'metric.loss = "supcon", or leave',
        ),
        ("[model]\ninit = 'micro'\n[refit]\nown = 0.5\n", "needs a refit.teacher"),
        ("[model]\ninit = 'micro'\n[refit]\nown = 1\nteacher = 'model:micro'\n", "leave one"),
    ],
)
def test_a_wrong_training_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_config(path)


def test_changes_from_the_command_line() -> None:
    config = with_changes(TrainConfig(), ["run.seed=7", "k.lowest=1", "run.output=runs/x"])
    assert (config.run.seed, config.k.lowest, config.run.output) == (7, 1.0, "runs/x")
    for bad in ("seed=1", "run.sed=1", "run.seed=x", "run.seed", "nothing.x=1"):
        with pytest.raises(UsageError, match="--set"):
            with_changes(TrainConfig(), [bad])


def test_the_command_trains_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tatvpr_edge.cli import main

    tiny_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    backbone = "\n".join(f"{key} = {value}" for key, value in TINY_BACKBONE.items())
    (tmp_path / "c.toml").write_text(
        "[run]\noutput = 'out'\ncache = ''\nthreads = 1\n"
        f"[model]\nname = 'micro'\n[model.backbone]\n{backbone}\n"
        "[distil]\nviews = 'views'\nsteps = 3\nbatch = 4\n"
        "[metric]\nsteps = 3\nplaces = 3\nimages = 2\n"
        "[[data]]\nformat = 'labelled'\nroot = 'set'\n"
    )
    assert main(["train", "--config", "c.toml", "--stop-after", "2"]) == 0
    assert "continues" in capsys.readouterr().out
    assert main(["train", "--config", "c.toml", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["finished"] and Path(done["weights"]).is_file()
    # Of the processes that torchrun starts one speaks: two documents are no JSON.
    with monkeypatch.context() as second:
        second.setenv("RANK", "1")
        Path(done["picture"]).unlink()
        assert main(["train", "--config", "c.toml", "--json"]) == 0
    assert capsys.readouterr().out == "" and not Path(done["picture"]).exists()
    assert main(["export", done["weights"], "--output", "tiny.onnx"]) == 0
    assert main(["train", "--config", "missing.toml"]) == 1
    assert "missing.toml: no such file" in capsys.readouterr().err

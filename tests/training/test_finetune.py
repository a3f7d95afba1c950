"""``tatvpr-edge finetune``: frames of one's own in; a model out only where it finds more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import TINY_BACKBONE, labelled_set, picture, write_rows

from support.browser import browse
from tatvpr_edge import zoo
from tatvpr_edge.cli import main
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.data.formats import open_source
from tatvpr_edge.models.data.own import Division, read_own
from tatvpr_edge.models.evaluate.protocols import Trial
from tatvpr_edge.models.train.config import DataConfig
from tatvpr_edge.models.train.finetune import finetune_config, held_trials, judge
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import DataError, ModelError

Run = Callable[..., str]

PROBE = """<script>
document.body.append(Object.assign(document.createElement("script"), {
  type: "application/json", id: "answer",
  textContent: JSON.stringify({
    plots: document.querySelectorAll("svg.plot").length,
    rows: document.querySelectorAll("td:first-child").length,
    flat: [...document.querySelectorAll("svg.plot")].filter(p => p.clientHeight < 50).length,
    wide: document.documentElement.scrollWidth > innerWidth,
  })}));
</script></body>"""


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that trains in a moment."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=4)
    model.trained = True
    save_weights(model, path)
    return path


@pytest.fixture
def finetune(
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command in an empty folder from the tiny weights; what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, status: int = 0) -> str:
        words = ["finetune", *map(str, arguments), "--from", str(tiny_weights)]
        code = main(words)
        shown = capsys.readouterr()
        assert code == status, shown.err + shown.out
        return shown.err if status else shown.out

    return run


def drive(root: Path, frames: int = 96, digits: int = 0) -> Path:
    """One drive: a new place every third frame; names as cameras count them."""
    root.mkdir(parents=True)
    for number in range(frames):
        picture(500 + number // 3, number).save(root / f"f{number:0{digits}d}.jpg", quality=95)
    return root


QUICK = ("--steps", "3", "--no-build")


def test_frames_in_time_order_give_a_model_and_a_report(finetune: Run, tmp_path: Path) -> None:
    drive(tmp_path / "frames")
    shown = finetune("frames", *QUICK, "--keep-anyway")
    assert "frames held out" in shown and "report: finetuned/report.html" in shown
    made = tmp_path / "finetuned"
    assert load_weights(made / "weights.safetensors").trained
    assert (made / "model.onnx").is_file() and (made / "report.html").is_file()
    # Nothing of the run lies about half-written.
    assert not [path for path in made.rglob("*") if path.suffix in (".partial", ".tmp")]


def test_what_is_measured_is_told_as_it_begins(tiny_weights: Path) -> None:
    """Both halves of an hour's measuring were silent."""
    images = [picture(number, 0) for number in range(4)]
    trial, said = Trial(images, images, np.eye(4, dtype=bool)), list[str]()
    judge("these", tiny_weights, tiny_weights, (1.0,), [trial, trial], said.append)
    assert said == [f"trial {n}: {which}" for n in (1, 2) for which in ("before", "after")]


def test_the_model_is_built_for_a_board(finetune: Run, build_cache: Path, tmp_path: Path) -> None:
    labelled_set(tmp_path / "frames", places=10)
    arguments = ("frames", "--steps", "2", "--keep-anyway", "--json")
    made = json.loads(finetune(*arguments))
    assert made["by"] == "labels" and made["kept"]
    artifact = read_artifact(Path(made["artifact"]))
    assert artifact.manifest.board == "host" and artifact.manifest.model.weights == "trained"
    # The same command again has nothing left to do, and says the same.
    again = json.loads(finetune(*arguments))
    assert made.pop("seconds") > 0 and again.pop("seconds") > 0
    assert made == again


def test_the_old_weights_stay_where_the_new_ones_find_no_more(
    finetune: Run, tmp_path: Path
) -> None:
    # Two places of one colour each are held out, and found before: nothing can be better.
    root = tmp_path / "frames"
    root.mkdir()
    rows = []
    for place in range(8):
        shade = Image.new("RGB", (48, 36), (10, 10, 10) if place % 2 else (250, 250, 250))
        for view in range(2):
            name = f"p{place}-{view}.png"
            shade.save(root / name)
            rows.append({"name": name, "place": place})
    write_rows(root / "poses.csv", rows)
    arguments = ("frames", "--steps", "1", "--no-build")
    shown = finetune(*arguments)
    made = tmp_path / "finetuned"
    assert "are not found better" in shown
    assert "stays, nothing is exported (--keep-anyway" in shown
    assert not (made / "model.onnx").exists() and not (made / "weights.safetensors").exists()
    assert "nothing was exported" in (made / "report.html").read_text()
    assert "exported all the same" in finetune(*arguments, "--keep-anyway")
    assert (made / "model.onnx").is_file()


def test_a_killed_run_goes_on_to_the_same_weights(
    finetune: Run, tiny_weights: Path, tmp_path: Path
) -> None:
    drive(tmp_path / "frames")
    finetune("frames", *QUICK, "-o", "whole", "--keep-anyway")
    code = (
        "import os, signal, sys\n"
        # Bits are of as many threads, which another test's training may have set here.
        f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
        # A shell that starts tests in the background has it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tatvpr_edge.models.train import metric\n"
        "from tatvpr_edge.cli import main\n"
        "from tatvpr_edge.models.train import finetune\n"
        "plain = metric.MetricStage.loss\n"
        "def loss(self, step, random):\n"
        "    if step == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(self, step, random)\n"
        "metric.MetricStage.loss = loss\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["finetune", "frames", *QUICK, "-o", "broken", "--keep-anyway"]
    words += ["--from", str(tiny_weights)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 130 and "error: interrupted" in done.stderr, done.stderr
    left = sorted(path.name for path in (tmp_path / "broken").iterdir())
    assert left == ["run"] and not [*tmp_path.rglob("*partial*"), *tmp_path.rglob("*.tmp")]
    finetune("frames", *QUICK, "-o", "broken", "--keep-anyway")
    whole, broken = (
        load_weights(tmp_path / name / "weights.safetensors").state_dict()
        for name in ("whole", "broken")
    )
    assert all(bool((whole[name] == broken[name]).all()) for name in whole)


def test_an_output_of_other_frames_or_options_is_refused(finetune: Run, tmp_path: Path) -> None:
    drive(tmp_path / "frames")
    finetune("frames", *QUICK)
    assert "give another --output" in finetune("frames", "--steps", "2", status=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert "no run of finetune" in finetune("no-frames", *QUICK, "-o", "mine", status=1)
    # Nor is what `tatvpr-edge train` left in a folder of that name gone on with.
    (tmp_path / "mine" / "thesis.txt").unlink()
    (tmp_path / "mine" / "run").mkdir()
    (tmp_path / "mine" / "run" / "metric.state").write_bytes(b"")
    assert "no run of finetune" in finetune("frames", *QUICK, "-o", "mine", status=1)


def test_what_is_held_out_is_never_learned(tmp_path: Path) -> None:
    own = read_own(drive(tmp_path / "frames"), Division())
    learned = {own.places.paths[i] for clip in own.places.places for i in clip}
    held = {frame.path for frame in (*own.held.gallery, *own.held.queries)}
    assert learned and held and not learned & held
    # f9 comes before f10, and frames between both parts belong to neither.
    numbers = [int(path.stem[1:]) for path in learned]
    assert numbers and max(numbers) + 7 < min(int(path.stem[1:]) for path in held)
    for trial in held_trials(own.held):
        assert trial.answerable().all()


def test_copies_of_what_is_learned_among_what_judges_are_told(
    finetune: Run, tmp_path: Path
) -> None:
    """A drive that lies in two folders was held out and learned, and the gain was believed."""
    for name in ("a", "b", "c"):
        drive(tmp_path / "frames" / name, 40)
    own = read_own(tmp_path / "frames", Division())
    assert own.copies == 0  # of each its end is held out
    drive(tmp_path / "frames" / "d", 40)
    own = read_own(tmp_path / "frames", Division())
    assert own.copies == len(own.held.gallery) + len(own.held.queries) == 40
    picture(1, 2).save(tmp_path / "frames" / "d" / "f3.jpg", quality=95)
    report = finetune("frames", "--steps", "1", "--no-build", "--json")
    assert json.loads(report)["held_out"] == {"places": 5, "frames": 40, "copies": 39}
    page = (tmp_path / "finetuned" / "report.html").read_text()
    assert "39 of these are copies of frames to learn from" in page


def test_more_frames_than_memory_is_for_judge_alike(
    finetune: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those held out of a long drive were all decoded at once, and changed twice over."""
    held = read_own(drive(tmp_path / "frames"), Division()).held
    kept = judge("", tiny_weights, tiny_weights, (1.0,), held_trials(held))
    monkeypatch.setattr("tatvpr_edge.models.train.finetune._IN_MEMORY", 2)
    trials = held_trials(held)
    assert not any(isinstance(t.gallery, list) or isinstance(t.queries, list) for t in trials)
    assert judge("", tiny_weights, tiny_weights, (1.0,), trials) == kept
    first, second = (np.asarray(trial.queries[0]) for trial in trials)
    assert (first != second).any() and (first == np.asarray(trials[0].queries[:1][0])).all()


def test_drives_in_folders_are_held_out_whole(tmp_path: Path) -> None:
    for name in "abcdef":
        drive(tmp_path / "frames" / name, 30)
    own = read_own(tmp_path / "frames", Division())
    assert {frame.path.parent.name for frame in own.held.gallery} == {"e", "f"}
    assert own.trained_frames == 120


def test_positions_say_which_frames_show_one_place(tmp_path: Path) -> None:
    labelled_set(tmp_path / "frames", places=12)
    table = (tmp_path / "frames" / "poses.csv").read_text().replace(",place,", ",room,")
    (tmp_path / "frames" / "poses.csv").write_text(table)
    own = read_own(tmp_path / "frames", Division())
    assert own.by == "poses" and own.trained == 9 and own.held.places == 3


def test_by_positions_nothing_that_is_learned_lies_near_what_is_held_out(tmp_path: Path) -> None:
    """The second lap passed 30 cm beside the first, in the cells of the other side of a line: all
    of the street that was held out had been learned."""
    rows = [
        {"name": f"{lap}-{metre:03d}.jpg", "x": metre, "y": 9.9 + 0.3 * lap}
        for lap in range(2)
        for metre in range(0, 100, 4)
    ]
    (tmp_path / "frames").mkdir()
    for number, row in enumerate(rows):
        picture(number, 0).save(tmp_path / "frames" / str(row["name"]))
    write_rows(tmp_path / "frames" / "poses.csv", rows)
    own = read_own(tmp_path / "frames", Division())
    at = {row["name"]: (row["x"], row["y"]) for row in rows}
    learned = np.array([at[own.places.paths[i].name] for p in own.places.places for i in p])
    held = np.array([at[frame.name] for frame in (*own.held.gallery, *own.held.queries)])
    assert own.trained >= 4 and own.held.places >= 2
    apart = np.hypot(*(learned[:, None] - held).transpose(2, 0, 1))
    assert apart.min() > 10.0


def test_a_column_of_places_that_names_none_says_nothing(project_root: Path) -> None:
    """As of the shipped drive, which has positions: finetune wanted a name on every line."""
    assert read_own(project_root / "models" / "zoo" / "drive", Division()).by == "poses"


def test_floors_above_each_other_are_different_places(tmp_path: Path) -> None:
    labelled_set(tmp_path / "frames", places=12)
    rows = [
        {"name": f"p{place}-{view}.jpg", "x": view, "y": 5, "z": 4 * place}
        for place in range(12)
        for view in range(3)
    ]
    write_rows(tmp_path / "frames" / "poses.csv", rows)
    own = read_own(tmp_path / "frames", Division(within_m=3.0))
    assert own.trained == 9 and own.held.places == 3
    source = DataConfig(format="poses", root=str(tmp_path / "frames"))
    assert len(open_source(source).places) == 5  # cubes of 10 m


def test_an_altitude_by_satellite_parts_no_place(tmp_path: Path) -> None:
    """It is off by as much as a cell is high."""
    labelled_set(tmp_path / "frames", places=4)
    rows = [
        {"name": f"p{place}-{view}.jpg", "easting": 500_005, "northing": 100 * place, "z": 9 + view}
        for place in range(4)
        for view in range(3)
    ]
    write_rows(tmp_path / "frames" / "poses.csv", rows)
    source = DataConfig(format="poses", root=str(tmp_path / "frames"))
    assert [len(members) for members in open_source(source).places] == [3] * 4


def spoil(folder: Path) -> None:
    (folder / "f5.jpg").write_bytes(b"no picture")


def only(count: int) -> Callable[[Path], None]:
    def leave(folder: Path) -> None:
        for path in sorted(folder.iterdir())[count:]:
            path.unlink()

    return leave


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (only(0), (), "holds no frame"),
        (only(20), (), "20 frames in time order are too few"),
        (spoil, ("--strict",), "f5.jpg"),
        (spoil, ("--by", "poses"), "does not say where its frames were taken"),
        (spoil, ("--by", "labels"), "does not say which frames show one place: put a poses.csv"),
        (spoil, ("--from", "none.safetensors"), "none.safetensors"),
        (spoil, ("--from", "macro"), "shipped model's name (micro, "),
        (spoil, ("--board", "jetson-orin-nan"), "did you mean jetson-orin-nano"),
    ],
)
def test_what_cannot_be_learned_from_is_told_in_one_line(
    finetune: Run, tmp_path: Path, change: Any, options: tuple[str, ...], words: str,
    tiny_weights: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(drive(tmp_path / "frames"))
    # The last --from wins.
    code = main(["finetune", "frames", *QUICK, "--from", str(tiny_weights), *options])
    shown = capsys.readouterr()
    assert code == 1 and shown.err.count("error: ") == 1 and words in shown.err, shown.err
    assert not (tmp_path / "finetuned").exists()


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_that_is_none_is_told_before_anything_is_made(tmp_path: Path, seed: str) -> None:
    assert main(["finetune", str(tmp_path), "--seed", seed]) == 2
    assert main(["export", "nano", "--random", seed, "-o", str(tmp_path / "x.onnx")]) == 2


@pytest.mark.parametrize("name", ["drive.mp4", "drive.mcap", "drive.bag"])
def test_a_recording_is_no_folder_of_pictures(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="is a recording, and training takes pictures: write its"):
        read_own(tmp_path / name, Division())


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("micro-salad", {"keep_after": ()}, "its head 'salad' cannot be anchored"),
        ("micro", {"ternary": False}, "a float twin, of which no model.onnx can be made"),
    ],
)
def test_weights_that_could_not_be_exported_are_refused_before_frames_are_read(
    finetune: Run,
    tmp_path: Path,
    model: str,
    changes: dict[str, Any],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every frame was decoded first, which takes an hour of a large set."""
    file = tmp_path / "other.safetensors"
    save_weights(registry.create(registry.config(model, **{**TINY_BACKBONE, **changes})), file)
    assert main(["finetune", "no-frames", *QUICK, "--from", str(file)]) == 1
    assert words in capsys.readouterr().err
    with pytest.raises(ModelError, match=words):
        finetune_config(file, tmp_path / "run", 4)
    assert not (tmp_path / "finetuned").exists()


@pytest.mark.parametrize(
    "option", [("--within", "3m"), ("--pose-frame", "local"), ("--every", "2")]
)
def test_an_option_that_would_steer_nothing_is_refused(
    finetune: Run, tmp_path: Path, option: tuple[str, str]
) -> None:
    labelled_set(tmp_path / "frames", places=10)
    said = finetune("frames", *QUICK, *option, status=2)
    assert option[0] in said and "are told by labels" in said


def test_one_place_is_not_enough(tmp_path: Path) -> None:
    labelled_set(tmp_path / "frames", places=1, views=40)
    with pytest.raises(DataError, match="1 place with two frames or more by labels"):
        read_own(tmp_path / "frames", Division())


def test_a_damaged_frame_is_named_and_left_out(tmp_path: Path) -> None:
    folder = drive(tmp_path / "frames")
    spoil(folder)
    own = read_own(folder, Division())
    assert [frame.name for frame in own.skipped] == ["f5.jpg"]
    assert folder / "f5.jpg" not in own.places.paths


@pytest.mark.parametrize("by", ["labels", "poses"])
def test_a_damaged_frame_of_a_table_is_left_out_of_the_training_too(
    finetune: Run, tmp_path: Path, by: str
) -> None:
    labelled_set(tmp_path / "frames", places=10)
    (tmp_path / "frames" / "p1-1.jpg").write_bytes(b"no picture")
    made = json.loads(finetune("frames", *QUICK, "--by", by, "--json"))
    assert [frame["name"] for frame in made["skipped"]] == ["p1-1.jpg"]
    assert made["frames"] + made["held_out"]["frames"] == 29


def test_a_table_that_was_changed_is_another_run(finetune: Run, tmp_path: Path) -> None:
    # What the weights were taught last time may be what they would be judged by this time.
    table = labelled_set(tmp_path / "frames", places=10) / "poses.csv"
    finetune("frames", *QUICK)
    finetune("frames", *QUICK)
    said = table.read_text()
    for other in (said.replace(",p2,", ",p3,"), said.replace(",p9,", ",p8,")):
        table.write_text(other)
        assert "give another --output" in finetune("frames", *QUICK, status=1)


@pytest.mark.parametrize(("drives", "frames"), [(1, 84), (12, 6), (6, 14)])
def test_every_step_finds_the_places_that_were_counted(
    tmp_path: Path, drives: int, frames: int
) -> None:
    for number in range(drives):
        drive(tmp_path / "frames" / f"{number:02d}", frames)
    own = read_own(tmp_path / "frames", Division())
    rng = np.random.default_rng(0)
    drawn = [len(own.places.draw(rng)) for _ in range(100)]
    assert min(drawn) >= own.trained >= 4


def test_init_by_name_means_the_shipped_weights(tmp_path: Path) -> None:
    from tatvpr_edge.models.train.config import ModelSection, TrainConfig
    from tatvpr_edge.models.train.run import starting_model

    model = starting_model(TrainConfig(model=ModelSection(init="micro")))
    shipped = load_weights(zoo.path("micro", "safetensors")).state_dict()
    assert all(bool((shipped[name] == value).all()) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_browser_shows_the_report(finetune: Run, tmp_path: Path) -> None:
    drive(tmp_path / "<b>&frames")
    finetune("<b>&frames", "--steps", "10", "--no-build")
    page = (tmp_path / "finetuned" / "report.html").read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", PROBE))
    for width in (1100, 400):
        shown = browse(probed, f"--window-size={width},2400", "--dump-dom")
        assert "CONSOLE" not in shown.stderr
        found = re.search(r'id="answer"[^>]*>(.*?)</script>', shown.stdout, re.DOTALL)
        assert found is not None
        assert json.loads(found[1]) == {"plots": 3, "rows": 8, "flat": 0, "wide": False}, width

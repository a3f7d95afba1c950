"""Where a result cannot be written, that is told before the work is done, not after it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tatvpr_edge import zoo
from tatvpr_edge.runtime import MapWriter
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import MapError

Run = Callable[..., subprocess.CompletedProcess[str]]


#: Every command that writes what it is told to, and where.
WRITERS = pytest.mark.parametrize(
    "arguments",
    [
        ("describe", "frames", "-o", "{}.npy"),
        ("evaluate", "frames", "frames", "--html", "{}.html"),
        ("evaluate", "frames", "frames", "--csv", "{}.csv"),
        ("evaluate", "--data", "frames", "--protocol", "utm", "--plot", "{}.png"),
        ("evaluate", "frames", "frames", "--descriptors", "{}"),
        ("map", "build", "frames", "-o", "{}.placemap"),
        ("map", "merge", "m.placemap", "m.placemap", "-o", "{}.placemap"),
        ("map", "lean", "m.placemap", "-o", "{}.placemap"),
        ("demo", "-o", "{}.png"),
        ("watch", "frames", "--rerun", "{}.rrd"),
        ("profile", "artifact", "--output", "{}"),
        ("export", "nano", "--random", "1", "--output", "{}.onnx"),
        ("finetune", "frames", "--output", "{}"),
    ],
    ids=lambda arguments: " ".join(arguments),
)


@WRITERS
@pytest.mark.parametrize(
    ("target", "words"),
    [("file/a", "file is not a folder"), ("/proc/a", "/proc is not writable")],
)
def test_an_impossible_target_costs_no_work(
    tatvpr: Run,
    folder: Path,
    tiny_host: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    target: str,
    words: str,
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "frames").symlink_to(folder)
    (tmp_path / "artifact").symlink_to(tiny_host)
    wanted = [word.format(target) for word in arguments]
    told = tatvpr(*wanted, status=1).stderr
    assert f"cannot write {target}" in told and words in told
    assert "frames:" not in told and "measuring" not in told  # nothing was described or timed


def test_what_cannot_be_replaced_costs_no_work_either(tatvpr: Run, folder: Path) -> None:
    told = tatvpr("evaluate", str(folder), str(folder), "--csv", "/dev/null", status=1).stderr
    assert told == "error: cannot write /dev/null: it is a device or a way to a pipe: name a file\n"


@pytest.mark.parametrize(
    "words", [("--html", "loop.html"), ("--csv", "loop.csv"), ("--descriptors", "loop")]
)
def test_a_link_to_itself_is_no_fault_of_ours(
    tatvpr: Run, folder: Path, tmp_path: Path, words: tuple[str, str]
) -> None:
    """Before Python 3.13 it was told as one; what comes next is told, or the link replaced."""
    (link := tmp_path / words[1]).symlink_to(link)
    told = tatvpr("evaluate", str(folder), str(folder), *words, status=1).stderr
    assert "fault of tatvpr-edge" not in told


@WRITERS
def test_nothing_is_written_into_an_artifact_that_would_be_refused_then(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "frames").symlink_to(folder)
    shutil.copytree(tiny_host, tmp_path / "artifact")
    (tmp_path / "link").symlink_to("artifact/lib")
    for target in ("artifact/a", "link/a"):
        told = tatvpr(*(word.format(target) for word in arguments), status=1).stderr
        assert f"cannot write {target}" in told and "artifact is an artifact" in told
    read_artifact(tmp_path / "artifact")


def test_nor_is_an_artifact_a_training_a_recording_or_a_map_of_the_board(
    tatvpr: Run, folder: Path, tiny_host: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    artifact, built = tmp_path / "artifact", tmp_path / "m.placemap"
    shutil.copytree(tiny_host, artifact)
    tatvpr("map", "build", folder, "-o", built, "--artifact", artifact)
    words = ("build", "--board", "host", "--model", tiny_onnx, "-o", artifact / "a")
    assert "artifact is an artifact" in tatvpr(*words, status=1).stderr
    (tmp_path / "train.toml").write_text("")
    words = ("train", "--config", "train.toml", "--set", f"run.output={artifact / 'a'}")
    assert "artifact is an artifact" in tatvpr(*words, status=1).stderr
    words = ("watch", folder, "--artifact", artifact, "--map", built, "--record", artifact / "a")
    assert "artifact is an artifact" in tatvpr(*words, status=1).stderr
    with pytest.raises(MapError, match="artifact is an artifact"):
        MapWriter(artifact / "a.placemap", artifact)
    read_artifact(artifact)


def test_another_manifest_is_in_nobodys_way(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a page of the web"}')
    tatvpr("describe", folder, "-o", "d.npy", "--artifact", tiny_host)


def test_a_folder_that_is_missing_is_named(tatvpr: Run, folder: Path, tiny_host: Path) -> None:
    words = ("describe", folder, "-o", "no/where.npy", "--artifact", tiny_host)
    assert "no does not exist: create it first" in tatvpr(*words, status=1).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("describe", "frames", "-o", "a.txt"),
        ("evaluate", "--data", "frames", "--protocol", "utm", "--plot", "a.txt"),
        ("watch", "frames", "--rerun", "a.txt"),
    ],
    ids=lambda words: words[0],
)
def test_another_kind_of_file_is_told_first(
    tatvpr: Run, folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "frames").symlink_to(folder)
    assert "cannot write a.txt: name it with ." in tatvpr(*words, status=1).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("export", "w.safetensors", "-o", "{}"),
        ("export", "nano", "--weights", "w.safetensors", "-o", "{}"),
        ("evaluate", "w.safetensors", "frames", "--html", "{}"),
        ("evaluate", "frames", "w.safetensors", "--csv", "{}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["w.safetensors", "link"])
def test_what_is_read_is_not_written(
    tatvpr: Run, folder: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    """The second name that a shell completed was the first: the weights of a training were gone."""
    (tmp_path / "frames").symlink_to(folder)
    shutil.copy(zoo.path("nano", "safetensors"), weights := tmp_path / "w.safetensors")
    (tmp_path / "link").symlink_to(weights)
    before = weights.read_bytes()
    told = tatvpr(*(word.format(name) for word in words), status=1).stderr
    assert "it is what shall be read: name another file" in told
    assert weights.read_bytes() == before


def test_a_table_of_answers_is_no_table_of_positions(tatvpr: Run, tmp_path: Path) -> None:
    """--csv is written, unlike --poses of other commands: what was given with it was gone."""
    for name in ("map", "queries"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    (table := tmp_path / "queries" / "poses.csv").write_text("name,x,y\na.png,1,2\n")
    told = tatvpr("evaluate", "map", "queries", "--csv", "queries/poses.csv", status=1).stderr
    assert "queries/poses.csv: it is what shall be read" in told
    assert table.read_text() == "name,x,y\na.png,1,2\n"


@pytest.mark.parametrize("output", ["artifact", "artifact/figures"])
def test_figures_do_not_go_into_the_artifact(
    tatvpr: Run, tiny_host: Path, tmp_path: Path, output: str
) -> None:
    """It may hold what its manifest lists alone: nothing opened it afterwards."""
    (tmp_path / "artifact").symlink_to(tiny_host)
    told = tatvpr("profile", "artifact", "-o", output, "--no-write", status=1).stderr
    assert f"cannot write {output}: " in told and "holds its own files alone" in told
    assert not list(tiny_host.glob("*.html"))

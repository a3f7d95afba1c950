"""A command that was killed anywhere is given again: it goes on, or says that all is done, and ends
with the very bytes of a run that nothing disturbed, and nothing beside them."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from PIL import Image

from support.artifacts import scenes
from support.deaths import dies_at
from tatvpr_edge.cli import main

MAP = ("map", "build", "frames", "--bands", "1")
ADD = ("map", "add", "m", "more/frames")


@pytest.fixture
def start(ram_path: Path, tiny_host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command begins with: 24 frames along a line, twice under other names."""
    place = ram_path / "start"
    for folder, name in ((place / "frames", ""), (place / "more" / "frames", "again ")):
        folder.mkdir(parents=True)
        rows = ["name,x,y"]
        for index, frame in enumerate(scenes(24, 48, 64)):
            Image.fromarray(frame).save(folder / f"{name}{index:02}.png")
            rows.append(f"{name}{index:02}.png,{10 * index},0")
        (folder / "poses.csv").write_text("\n".join(rows))
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(ram_path / "deployed"))
    return place


def state(place: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, and its bytes."""
    files = [path for path in place.rglob("*") if not path.is_dir() or path.suffix == ".tmp"]
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else b""
        for path in files
        if path.parent.name != "frames"
    }


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], (*MAP, "-o", "m")),
        ([(*MAP, "-o", "m"), ADD], ("map", "prune", "m", "--max-places", "20")),
        ([(*MAP, "-o", "m")], ADD),
        ([(*MAP, "-o", "m"), ADD], ("map", "compact", "m")),
        ([(*MAP, "-o", "m"), ADD], ("map", "calibrate", "m", "--within", "11", "--sequence", "1")),
        (
            [(*MAP, "-o", "m"), (*MAP, "-o", "n")],
            ("map", "merge", "m", "n", "-o", "all", "--same-frame"),
        ),
        (
            [(*MAP, "-o", "m", "--single-view"), (*ADD, "--single-view")],
            ("map", "lean", "m"),
        ),
        ([], ("describe", "frames", "-o", "d.npy")),
        ([], ("export", "nano", "--random", "1", "-o", "nano.onnx")),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, tuple) else "",
)
def test_the_second_run_mends_what_a_killed_one_left(
    start: Path,
    ram_path: Path,
    tiny_host: Path,
    before: list[tuple[str, ...]],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: tuple[str, ...]) -> int:
        runs = command[1] in ("build", "add", "calibrate") or command[0] == "describe"
        return main([*command, *(["--artifact", str(tiny_host)] if runs else [])])

    monkeypatch.chdir(start)
    for command in before:
        assert run(command) == 0
    undisturbed = Path(shutil.copytree(start, ram_path / "undisturbed"))
    monkeypatch.chdir(undisturbed)
    assert run(words) == 0
    wanted = state(undisturbed)
    assert wanted != state(start)
    for change in itertools.count():
        place = Path(shutil.copytree(start, ram_path / f"at{change}"))
        monkeypatch.chdir(place)
        if not dies_at(change, lambda: run(words)):
            break
        done = {name: data for name, data in state(place).items() if name != "m.lock"} == wanted
        capsys.readouterr()
        again = run(words)
        said = capsys.readouterr().err
        assert again == 0 or (done and said.count("error: ") == 1), f"change {change}: {said}"
        if done:  # it had nothing to write; who has takes the lock over
            (place / "m.lock").unlink(missing_ok=True)
        assert state(place) == wanted, f"change {change}"
        shutil.rmtree(place)
    assert change >= 2

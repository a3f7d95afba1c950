"""``tatvpr-edge demo``: the whole job, with whatever model is given; a table and pictures."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tatvpr_edge
from tatvpr_edge import zoo
from tatvpr_edge.cli import main
from tatvpr_edge.compilers.build import keep_host
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.spec.artifact import read_artifact

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def demo(
    tmp_path: Path,
    build_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs ``tatvpr-edge demo OPTIONS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        status = main(["demo", *options])
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(options, status, shown.out, shown.err)

    return run


def test_every_query_has_its_place_in_the_gallery() -> None:
    _, gallery = labelled_frames(zoo.ZOO / "places" / "gallery")
    _, queries = labelled_frames(zoo.ZOO / "places" / "queries")
    assert len(set(gallery)) == len(gallery) >= 30
    assert set(queries) == set(gallery)


@pytest.mark.slow
def test_the_demo_prints_a_line_for_every_k_and_draws_the_sheet(
    demo: Run, tiny_onnx: Path, tmp_path: Path
) -> None:
    options = ["--model", str(tiny_onnx), "--k", "1,.2", "-o", "sheet.png"]
    done = demo(*options)
    assert done.returncode == 0, done.stderr
    assert "calibrate" not in done.stderr  # no advice about a map that is gone afterwards
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.strip().startswith(("1 ", "0.2 "))]
    assert [row[0] for row in rows] == ["1", "0.2"]
    assert all("%" in row and row[3] == "98" for row in rows)
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet.load()
        assert sheet.format == "PNG" and sheet.width > 1000 and sheet.height > 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sheet-drive.png", "sheet.png"]


@pytest.mark.slow
def test_the_shipped_model_finds_its_places(demo: Run, tmp_path: Path) -> None:
    if "micro" not in zoo.names():
        pytest.fail("the shipped model is missing from models/zoo")
    done = demo("--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["k"] for row in document["rows"]] == [1.0, 0.6, 0.4, 0.2]
    assert document["places"] >= 30
    for row in document["rows"]:
        assert row["right"] >= 0.9 * row["queries"], f"at k = {row['k']}"  # 95 or 96 of 98 at each
        assert row["queries"] >= 60 and row["macs"] > 0 and row["median_ms"] > 0
        answers = document["answers"][f"{row['k']:g}"]
        assert sum(answer["right"] for answer in answers) == row["right"]
    drive = document["drive"]
    assert drive["frames"] > 150 and drive["right"] == len(drive["loops"]) >= 30
    for name in ("tatvpr-demo.png", drive["picture"]):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.format == "PNG"


@pytest.mark.slow
def test_what_others_build_meanwhile_is_not_the_demos(
    demo: Run, tiny_host: Path, tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two demos on one machine keep their artifact at one place: the last one's stays."""
    folder = tmp_path_factory.mktemp("other") / "nano"
    others = [tatvpr_edge.build("host", model="nano", output=folder), tiny_host]
    done = threading.Event()

    def keep() -> None:
        while not done.wait(0.05):
            others.reverse()
            keep_host(others[0])

    building = threading.Thread(target=keep)
    building.start()
    try:
        ended = demo("--model", str(tiny_onnx), "--k", "1", "--json")
    finally:
        done.set()
        building.join()
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["artifact"] == str(host_artifact())
    read_artifact(host_artifact())  # whole, whosever it is


@pytest.mark.slow
def test_a_home_that_cannot_be_written_costs_a_note(
    demo: Run,
    tiny_onnx: Path,
    build_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache" / "tatvpr-edge"
    cache.mkdir(parents=True)
    (cache / "objects").symlink_to(build_cache / "tatvpr-edge" / "objects")  # compiled already
    (cache / "artifacts").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = demo("--model", str(tiny_onnx), "--k", "1")
    assert done.returncode == 0 and "artifact:" not in done.stdout
    assert "the artifact is not kept for Localizer(): " in done.stderr


def test_a_picture_that_cannot_be_written_is_told_at_once(demo: Run) -> None:
    done = demo("-o", "no/where.png")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: cannot write no/where.png: ")

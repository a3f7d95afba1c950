"""``map calibrate``, as a user runs it: from a drive, from the map, and what stays as it was."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tatvpr_edge.cli.map_calibrate import _note_settings, _say_sequence
from tatvpr_edge.mapping.calibrate_answers import AtSetting

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def corridor(tmp_path: Path) -> Path:
    """Sixty frames along a wall of blobs, half a metre apart, with their positions."""
    folder = tmp_path / "corridor"
    folder.mkdir()
    coarse = np.random.default_rng(5).integers(0, 256, (4, 68, 3), np.uint8)
    wall = np.asarray(Image.fromarray(coarse).resize((68 * 16, 64), Image.Resampling.BILINEAR))
    rows = ["name,x,y"]
    for index in range(60):
        Image.fromarray(wall[:, 16 * index : 16 * index + 96]).save(folder / f"{index:02}.png")
        rows.append(f"{index:02}.png,{index / 2},0")
    (folder / "poses.csv").write_text("\n".join(rows))
    return folder


def test_a_map_is_calibrated_and_answers_say_how_sure_they_are(
    tatvpr: Run, tiny_host: Path, corridor: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", corridor, "--artifact", tiny_host, "-o", "m")
    assert json.loads(tatvpr("map", "info", "m", "--json").stdout)["bands"][0]["accepts"] == (
        "not calibrated"
    )
    options = ["--artifact", tiny_host, "--within", "1.2m", "--precision", "0.9"]
    done = tatvpr("map", "calibrate", "m", *options)
    assert "band k=1: " in done.stdout and "AUROC" in done.stdout and "60 of 60" in done.stderr
    assert "calibrated: " in tatvpr("map", "info", "m").stdout
    assert "made at k=1 and say nothing of lower settings" in done.stderr
    document = json.loads(tatvpr("map", "calibrate", "m", corridor, *options, "--json").stdout)
    assert document["learned_from"] == str(corridor) and document["within_m"] == 1.2
    assert document["skipped"] == []
    (band,) = document["bands"]
    assert band["calibration"]["precision"] == 0.9 and band["learned"]["right"] >= 20
    assert 0 <= band["learned"]["ece"] <= 1
    # One calibration serves every setting, and each gets its own share of it.
    told = tatvpr("map", "calibrate", "m", corridor, *options)
    said = told.stdout
    assert "lower settings" not in told.stderr
    assert re.search(r"; accepts \d+ % at k=1, \d+ % at k=0.4, \d+ % at k=0.2, ", said)
    assert re.search(r", \d+ % at k=1:0.5, \d+ % at k=0.4:0.5$", said, re.M)
    by_setting = band["learned"]["by_setting"]
    assert [(one["k"], one["tokens"]) for one in by_setting] == [
        *((1.0, 1.0), (0.4, 1.0), (0.2, 1.0)),
        *((1.0, 0.5), (0.4, 0.5)),
    ]
    shares = [one["recall"] for one in by_setting]
    assert sum(one["accepted"] for one in by_setting) == band["learned"]["accepted"]
    # The precision is kept over all settings: where one of them has less, that is said.
    sequence = band["learned"]["sequence"]["by_setting"]
    fewer = [one for one in by_setting + sequence if one["right"] < 0.9 * one["accepted"]]
    assert ("over all of these settings, but" in told.stderr) == bool(fewer)
    assert list(band["learned"]["recall_by_k"].values()) == shares[:3]
    assert sum(shares) / 5 == pytest.approx(band["calibration"]["recall"], abs=1e-6)
    Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "blank.png")
    query = ("query", corridor / "30.png", tmp_path / "blank.png", "--artifact", tiny_host)
    asked = tatvpr(*query, "--map", "m", "--k", "1")
    assert asked.stdout.split()[:6] == ["frame", "place", "score", "position", "sure", "accepted"]
    assert "blank.png: not accepted: the frame shows no structure" in asked.stderr
    seen, blank = json.loads(tatvpr(*query, "--map", "m", "--k", "1", "--json").stdout)
    assert 0 <= seen["confidence"] <= 1 and seen["margin"] > 0 and seen["tag"] == "30.png"
    assert blank["accepted"] is False and "no structure" in blank["reason"]


def test_what_a_drive_taught_is_not_given_up_for_the_maps_own_descriptors(
    tatvpr: Run, tiny_host: Path, corridor: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", corridor, "--artifact", tiny_host, "-o", "m")
    options = ("--artifact", tiny_host, "--within", "1.2m", "--precision", "0.6")
    tatvpr("map", "calibrate", "m", corridor, *options)
    learned = (tmp_path / "m").read_bytes()
    (band,) = json.loads(tatvpr("map", "info", "m", "--json").stdout)["bands"]
    assert band["calibration"]["recall"] > 0, "something is accepted"
    said = tatvpr("map", "calibrate", "m", *options, status=1).stderr
    assert "m is calibrated: precision 60 %" in said and "--replace" in said
    assert (tmp_path / "m").read_bytes() == learned
    tatvpr("map", "calibrate", "m", *options, "--replace")
    assert (tmp_path / "m").read_bytes() != learned


def test_a_map_of_two_bands_asks_each_place_in_both(
    tatvpr: Run, tiny_host: Path, corridor: Path
) -> None:
    made = tatvpr("map", "build", corridor, "--artifact", tiny_host, "-o", "m", "--bands", "1,.2")
    assert "60 of 60" in made.stderr
    asked = ("map", "calibrate", "m", "--artifact", tiny_host, "--within", "1.2m")
    done = tatvpr(*asked)
    assert "queries: 120 of 120" in done.stderr
    few = "sequences of 5: no threshold gives 99.9 %: nothing will be accepted; give a longer drive"
    assert few in tatvpr(*asked, "--replace", "--precision", ".999").stderr
    few = r"of 60: \d+ right and \d+ wrong answers, 20 of each are .*: give a longer drive, in its"
    assert re.search(few, tatvpr(*asked, "--replace", "--sequence", "60").stderr)


def test_positions_without_queries_are_refused(
    tatvpr: Run, tiny_host: Path, corridor: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", corridor, "--artifact", tiny_host, "-o", "m")
    before = (tmp_path / "m").read_bytes()
    for more in ((), ("--frames", corridor)):
        asked = ("map", "calibrate", "m", *more, "--artifact", tiny_host, "--within", "1.2m")
        said = tatvpr(*asked, "--poses", corridor / "poses.csv", status=1).stderr
        assert "those of labelled queries" in said.splitlines()[-1]
    assert (tmp_path / "m").read_bytes() == before


def test_frames_that_a_calibration_leaves_out_are_listed(
    tatvpr: Run, tiny_host: Path, corridor: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", corridor, "--artifact", tiny_host, "-o", "m")
    Image.new("RGB", (96, 64)).save(corridor / "20.png")
    (corridor / "40.png").write_bytes(b"no picture")
    asked = ("map", "calibrate", "m", corridor, "--artifact", tiny_host, "--within", "1.2m")
    left = [line for line in tatvpr(*asked).stderr.splitlines() if line.startswith("left out: ")]
    assert "20.png: the frame shows no structure" in left[0] and "40.png is no image" in left[1]
    assert left[2:] == ["left out: 2 of 60 frames"]
    skipped = json.loads(tatvpr(*asked, "--json").stdout)["skipped"]
    assert [frame["name"] for frame in skipped] == ["20.png", "40.png"]


def test_a_calibration_that_cannot_be_is_one_line(
    tatvpr: Run, a_map: Path, tiny_host: Path
) -> None:
    before = a_map.read_bytes()
    said = tatvpr("map", "calibrate", a_map, "--artifact", tiny_host, status=1).stderr
    assert "more than 12 places from a query" in said.splitlines()[-1]
    # The map has no positions, so that queries which have some would be of no use.
    assert said.rstrip().endswith("with positions (--poses FILE), or a narrower --within-places")
    said = tatvpr("map", "calibrate", a_map, "--precision", "1.5", status=2).stderr
    assert "precision" in said
    assert a_map.read_bytes() == before


def test_queries_of_a_map_without_positions_are_refused_before_they_are_described(
    tatvpr: Run, a_map: Path, tiny_host: Path, corridor: Path, folder: Path
) -> None:
    """More of them, or positions for them, would not help either."""
    for queries in (corridor, folder):
        said = tatvpr("map", "calibrate", a_map, queries, "--artifact", tiny_host, status=1).stderr
        assert said.startswith("error: the map's places have no positions")
        assert "--frames" in said and "make the map again" in said


def test_a_share_that_falls_short_is_not_told_as_the_precision(
    capsys: pytest.CaptureFixture[str],
) -> None:
    of: Any = SimpleNamespace(by_setting=(AtSetting(0.4, 1.0, 0.9, 10000, 9496),))
    _note_settings(of, "band k=1", 0.95)
    assert "95 % are right over all of these settings, but 94.9 % at" in capsys.readouterr().err


def test_sequences_that_lack_wrong_answers_want_a_map_that_reaches_further(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report: Any = SimpleNamespace(k=1.0, tokens=1.0, sequence=None, sequence_seen=(214, 13))
    _say_sequence(report, 5, 0.95)
    said = "214 right and 13 wrong answers, 20 of each are needed to learn from: give a map with"
    assert said in capsys.readouterr().err

"""The table of calibrations: its truth is tower-shift's, and a floor is judged by the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tatvpr_edge.mapping.calibrate import ask, fit_band
from tatvpr_edge.mapping.calibrate_answers import Answers
from tatvpr_edge.models.evaluate.calibrated import Described, Frames, Tower, judge
from tatvpr_edge.runtime import Localizer


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    """Three floors of one clip each, 100 frames along a wall of blobs of its own."""
    root = tmp_path / "tower"
    rows = ["path,split,floor,clip,frame"]
    for floor in range(3):
        coarse = np.random.default_rng(floor).integers(0, 256, (4, 36, 3), np.uint8)
        wall = np.asarray(Image.fromarray(coarse).resize((36 * 16, 64), Image.Resampling.BILINEAR))
        folder = root / f"floor{floor}"
        folder.mkdir(parents=True)
        for frame in range(100):
            Image.fromarray(wall[:, 4 * frame : 4 * frame + 96]).save(folder / f"{frame}.png")
            rows.append(f"floor{floor}/{frame}.png,val,f{floor},clip,{frame}")
    (root / "frames.csv").write_text("\n".join(rows))
    return root


def test_floors_are_judged_by_what_the_others_taught(
    tower: Path, tiny_host: Path, project_root: Path
) -> None:
    command = [sys.executable, project_root / "tools" / "calibration_figures.py"]
    options = ["--data", tower, "--artifact", tiny_host, "--trials", "1", "--precision", "0.7"]
    # Signs of an untrained model hardly differ: bytes alone.
    options += ["--kinds", "int8"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert set(document) == {"int8"}
    for rows in document.values():
        assert set(rows) == {"1.0", "0.4", "0.2"}
        for row in rows.values():
            # 3 floors x 75 queries, each asked of the map with its floor and without it.
            assert row["answers"] == 450
            assert 0 <= row["ece"] <= 1 and 0.5 < row["auroc"] <= 1
    # The same queries, followed, and ranked by the protocol itself.
    evaluated = subprocess.run(
        [
            *(sys.executable, "-m", "tatvpr_edge", "evaluate", "--data", tower),
            *("--protocol", "tower-shift", "--artifact", tiny_host, "--k", "1"),
            *("--baseline", "none", "--no-time", "--json", "--sequence", "4"),
        ],
        capture_output=True,
        text=True,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    answered = json.loads(evaluated.stdout)
    (followed,) = answered["sequences"]["artifacts"].values()
    assert followed["binary"] is None and "binary map: not judged" in evaluated.stderr
    for way in ("single", "sequence"):
        row = followed["int8"][way]["1"]
        assert row["answers"] == 5 * 150 * 3 and 0 <= row["ece"] <= 1
    int8 = followed["int8"]
    assert int8["sequence"]["1"]["recall@1"] > int8["single"]["1"]["recall@1"]
    (model,) = answered["protocols"]["tower-shift"].values()
    ours = 100 * document["int8"]["1.0"]["recall@1"]
    assert ours == pytest.approx(model["int8"]["recall@1"]["1.0"], abs=6)  # one trial of five


def test_no_floor_is_judged_by_what_it_taught_itself(tiny_host: Path) -> None:
    """Of three floors one looks like itself everywhere: it would warn of its own answers."""
    rng = np.random.default_rng(0)
    floor = np.repeat(["a", "b", "c"], 40)
    poses = np.full((120, 7), np.nan)
    poses[:, 0], poses[:, 1] = 10 * np.arange(120), 0
    frames = Frames(floor, np.repeat([0, 1, 2], 40), poses)
    with Localizer(tiny_host) as localizer:
        places = rng.normal(size=(120, localizer.artifact.manifest.model.descriptor_size))
        places[80:] += 3 * places[80]
        noise = 1.5 * rng.normal(size=(2, *places.shape))
        trials = [(places + of).astype("f4") for of in noise]
        described = Described(places.astype("f4"), {1.0: trials})
        tower = Tower(localizer, "int8", frames, frames, described)
        (row,) = judge(tower, 0.8).values()
        own = {name: ask(tower.map, tower.truth, tower.asked(name)) for name in tower.floors}
        taken = dict.fromkeys((True, False), 0)
        for name, answers in own.items():
            for alone in taken:
                rest = [of for other, of in own.items() if not alone or other != name]
                made = fit_band(tower.map, tower.truth, Answers.joined(rest), 0, 0.8).calibration
                odds = answers.odds(made.weights, made.dials)
                taken[alone] += int((odds >= made.threshold).sum())
    assert row["accepted"] == taken[True] != taken[False]
    # Each trial plays each clip from its beginning.
    drives = [query.drive for name in tower.floors for query in tower.asked(name)]
    assert len(set(drives)) == 6 and all(drives.count(drive) == 40 for drive in drives)

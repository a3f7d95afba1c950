"""The scripts in tools/: a simulated run and its table, a recording, the Pareto plot, overhead."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import board_trees as boards
import pytest
from PIL import Image

from governing.compare import compare, published_recall
from support import interrupts


def tool(project_root: Path, name: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(project_root / "tools" / name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 22)
    return colours is not None and len(colours) > 100 and image.width > 600


def test_the_governor_beats_a_threshold_rule_and_holds_what_fixed_choices_break() -> None:
    outcomes = {one.name: one for one in compare(range(30))}
    governor, rule = outcomes["governor"], outcomes["threshold rule"]
    large, small = outcomes["always k = 1"], outcomes["always k = 0.2"]
    assert governor.minutes_held == small.minutes_held == 1.0
    assert large.minutes_held < 0.6
    assert governor.right_per_joule > rule.right_per_joule > large.right_per_joule
    assert governor.mean_recall > small.mean_recall + 0.005
    assert governor.most_switches_a_minute <= 6 < rule.most_switches_a_minute


def test_published_recall_passes_through_the_published_points() -> None:
    assert [round(published_recall(k), 3) for k in (1.0, 0.6, 0.4)] == [0.914, 0.910, 0.899]


def test_a_simulated_run_is_plotted(project_root: Path, tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    ran = tool(project_root, "governor_trials.py", "simulate", "--seed", 7, "--output", picture)
    assert ran.returncode == 0, ran.stderr
    assert "(simulated)" in ran.stdout
    assert is_drawn(picture)


def test_a_recording_is_replayed(project_root: Path, tmp_path: Path) -> None:
    boards.orin_nano(tmp_path / "board")
    trace, picture = tmp_path / "power.csv", tmp_path / "run.png"
    ran = tool(project_root, "governor_trials.py", "record", "--seconds", 2, "--interval", 0.05,
               "--root", tmp_path / "board", "--output", trace)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = trace.read_text().splitlines()
    assert rows[0] == "time_s,power_mw,condition,source,hottest_c"
    assert len(rows) > 10
    assert rows[1].split(",")[1:4] == ["4824.0", "ok", "ina"]
    ran = tool(project_root, "governor_trials.py", "simulate", "--trace", trace, "--budget", "9W",
               "--output", picture)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "budget 9.00 W" in ran.stdout
    assert is_drawn(picture)


TIMES = [("0", "nan"), ("0", "inf"), ("0", "1e9"), ("5", "0")]  # none, without end, and backwards


@pytest.mark.parametrize(
    "text",
    ["", "time_s\n1\n", "time_s,power_mw\n0,\n1,\n"]
    + [f"time_s,power_mw\n{first},5\n{then},6\n" for first, then in TIMES],
)
def test_what_is_no_recording_is_refused(project_root: Path, tmp_path: Path, text: str) -> None:
    trace = tmp_path / "x.csv"
    trace.write_text(text)
    ran = tool(project_root, "governor_trials.py", "simulate", "--trace", trace)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


def test_a_board_without_sensors_leaves_an_earlier_recording(
    project_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    trace = tmp_path / "power.csv"
    trace.write_text("of another day")
    ran = tool(project_root, "governor_trials.py", "record", "--root", tmp_path / "bare",
               "--output", trace)  # fmt: skip
    assert ran.returncode == 1 and "tells neither power nor temperature" in ran.stderr
    assert trace.read_text() == "of another day"


def test_a_recording_that_is_ended_is_kept_and_takes_the_place_of_an_earlier_one_then(
    project_root: Path, tmp_path: Path
) -> None:
    """It was emptied as the new one began."""
    boards.orin_nano(tmp_path / "board")
    trace, pipe = tmp_path / "power.csv", tmp_path / "tell"
    trace.write_text("of another day")
    os.mkfifo(pipe)
    # What the command itself knows of its rows is told through the pipe, once there are two.
    program = (
        "import csv, sys; sys.path.insert(0, sys.argv.pop(1)); pipe = sys.argv.pop(1)\n"
        "class Told:\n"
        "    def __init__(self, *a, **k): self.real, self.count = writer(*a, **k), 0\n"
        "    def writerow(self, row):\n"
        "        self.real.writerow(row); self.count += 1\n"
        "        if self.count == 3: open(pipe, 'w').close()\n"
        "writer, csv.writer = csv.writer, Told\n"
        "import governor_trials; sys.exit(governor_trials.main())"
    )
    words = [sys.executable, "-c", program, project_root / "tools", pipe, "record", "--interval"]
    words += ["0.05", "--root", tmp_path / "board", "--output", trace]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heed
    ) as recording:
        pipe.read_bytes()
        assert trace.read_text() == "of another day"
        recording.send_signal(signal.SIGINT)
        assert recording.communicate()[1] == "error: interrupted\n"
    assert recording.returncode == 130
    assert len(trace.read_text().splitlines()) >= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "power.csv", "tell"]


@pytest.mark.slow
def test_the_pareto_plot(
    project_root: Path, tmp_path: Path, make_document: Callable[..., dict[str, Any]]
) -> None:
    pictures = []
    for energy in (True, False):
        profile, picture = tmp_path / "profile.json", tmp_path / f"pareto-{energy}.png"
        profile.write_text(json.dumps(make_document(energy=energy, invalid=(0.4,))))
        ran = tool(project_root, "pareto.py", profile, "--output", picture)
        assert ran.returncode == 0, ran.stderr
        table = json.loads(ran.stdout)
        assert len(table) == 8
        assert all((row["energy_mj"] is not None) is energy for row in table)
        assert is_drawn(picture)
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]


def test_the_pareto_plot_needs_recall(
    project_root: Path, tmp_path: Path, make_document: Callable[..., dict[str, Any]]
) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(make_document(recall=False)))
    ran = tool(project_root, "pareto.py", profile)
    assert ran.returncode == 1
    assert "carries no recall" in ran.stderr


@pytest.mark.slow
def test_overhead_is_measured(project_root: Path, tiny_host: Path, tmp_path: Path) -> None:
    """That it runs and what it states; the limits are judged by the script on a quiet machine."""
    boards.orin_nano(tmp_path)
    ran = tool(project_root, "bench_overhead.py", tiny_host, "--root", tmp_path, "--seconds", 2)
    assert ran.returncode in (0, 1), ran.stderr
    stated = json.loads(ran.stdout)
    assert all(math.isfinite(value) and value >= 0 for value in stated.values())
    assert stated["memory_bytes"] < 2_000_000

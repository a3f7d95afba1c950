"""A real artifact is profiled: here, with a power sensor made of files, and as a board would be."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import board_trees as boards
import pytest
from click.testing import CliRunner
from test_profile_files import check_trace

from support.board import quick_options, running_sshd
from tatvpr_edge.cli import main
from tatvpr_edge.cli.profile import command
from tatvpr_edge.deploy.push import deploy
from tatvpr_edge.deploy.transport import LocalTransport
from tatvpr_edge.profile.document import check_document
from tatvpr_edge.profile.recall import evaluated_recall
from tatvpr_edge.profile.remote import profile_on
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.__main__ import main as board_main
from tatvpr_edge.runtime.profile import fractions_from_text, settings_for
from tatvpr_edge.runtime.profiling import Plan, Setting, profile_artifact
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.runtime.telemetry import sampler as sampler_module
from tatvpr_edge.spec.artifact import MANIFEST, read_artifact, replace_profile
from tatvpr_edge.spec.errors import DeployError, UsageError
from tatvpr_edge.spec.manifest import seal

QUICK = Plan(
    (Setting(1.0), Setting(0.2)), warmup=2, repeats=20, power_seconds=1.0, idle_s=0.6, attempts=1
)


@contextmanager
def board_that_draws(
    root: Path, draw: dict[str, float], interval_s: float = 0.03
) -> Iterator[Sampler]:
    """A monitor in files, whose power follows ``draw["mw"]`` every few milliseconds."""
    monitor = boards.ina3221(root, {1: ("VDD_IN", 5000, 200)})
    ended = threading.Event()

    def follow() -> None:
        n = 0
        while not ended.wait(0.005):
            n += 1
            boards.put(monitor, "next", draw["mw"] / 5.0 + n % 2)
            (monitor / "next").replace(monitor / "curr1_input")

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        with Sampler(root=str(root), interval_s=interval_s, cpu_share=1.0) as sampler:
            yield sampler
    finally:
        ended.set()
        thread.join()


def test_where_no_power_is_readable_there_is_latency_and_the_reason(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    document = profile_artifact(tiny_artifact, QUICK, root=str(tmp_path / "bare"))
    check_document(document, "the profile")
    assert [point["k"] for point in document["points"]] == [1.0, 0.2]
    for point in document["points"]:
        latency = point["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert latency["count"] == 20
        assert point["energy_mj"] is None
        assert point["macs"] > 0
        assert {"frame", "patch_embed", "blocks.0.qkv"} <= {x["name"] for x in point["layers"]}
    assert document["points"][0]["macs"] > document["points"][1]["macs"]
    spans = [(event["start_s"], event["ms"] / 1e3) for event in document["events"]]
    assert len(spans) == 40 and {event["k"] for event in document["events"]} == {1.0, 0.2}
    assert all(start + lasts <= after for (start, lasts), (after, _) in itertools.pairwise(spans))
    assert document["device"]["power_note"].startswith("latency only: no power source")
    json.dumps(document, allow_nan=False)


def test_energy_is_measured_with_the_idle_board_subtracted(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    draw = {"mw": 1000.0}

    def progress(what: str, done: int, of: int) -> None:
        draw["mw"] = 3500.0 if what.startswith("k=") else 1000.0
        # What is measured begins when the monitor says so: on a busy machine its thread lags.
        deadline = time.monotonic() + 20
        while abs((sampler.latest().total.value or 0.0) / draw["mw"] - 1) > 0.05:
            assert time.monotonic() < deadline, "the monitor never showed the new draw"
            time.sleep(0.01)

    with board_that_draws(tmp_path / "board", draw) as sampler:
        document = profile_artifact(tiny_artifact, QUICK, sampler=sampler, progress=progress)
    device = document["device"]
    assert device["power_source"] == "ina VDD_IN"
    assert device["idle_mw"] == pytest.approx(1000.0, rel=0.1)
    for point in document["points"]:
        assert point["power_mw"] == pytest.approx(3500.0, rel=0.1)
        # Back to back, a query lasts as long as its latency: 2.5 W of it are the query's own.
        expected_mj = 2500.0 * point["latency_ms"]["mean"] / 1e3
        assert point["energy_mj"] == pytest.approx(expected_mj, rel=0.2)
        assert point["energy_gross_mj"] > point["energy_mj"]
    assert len(document["power"]) > 20


def test_a_run_lasts_until_a_sensor_that_is_asked_seldom_has_told_enough(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    """A Raspberry Pi's command takes 10 ms, and is asked seldom: no energy was known."""
    plan = replace(QUICK, settings=(Setting(0.2),), power_seconds=0.2, idle_s=0.1)
    draw = {"mw": 1000.0}

    def progress(what: str, done: int, of: int) -> None:
        draw["mw"] = 3500.0 if what.startswith("k=") else 1000.0

    with board_that_draws(tmp_path / "board", draw, interval_s=0.15) as sampler:
        document = profile_artifact(tiny_artifact, plan, sampler=sampler, progress=progress)
    assert document["device"]["idle_mw"] is not None
    assert document["points"][0]["energy_note"] == ""
    assert document["points"][0]["energy_mj"] > 0


def test_a_fuel_gauge_that_stands_still_tells_no_energy(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    """It shows one figure for up to a minute, that of another setting or of the idle board."""
    for name, value in {"type": "Battery", "status": "Discharging", "power_now": 9_000_000}.items():
        boards.put(tmp_path, f"sys/class/power_supply/BAT0/{name}", value)
    plan = replace(QUICK, settings=(Setting(0.2),), power_seconds=0.5, idle_s=0.3)
    with Sampler(root=str(tmp_path), interval_s=0.03, cpu_share=1.0) as sampler:
        document = profile_artifact(tiny_artifact, plan, sampler=sampler)
    assert document["device"]["power_source"] == "battery BAT0"
    assert document["device"]["idle_mw"] is None
    (point,) = document["points"]
    assert point["energy_mj"] is None and point["power_mw"] is None
    assert "too few to integrate" in point["energy_note"]


def test_a_throttled_run_is_marked(tiny_artifact: Path, tmp_path: Path) -> None:
    root = tmp_path / "hot"
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    boards.put(root, counter, 4)
    started = threading.Event()

    def progress(what: str, done: int, of: int) -> None:
        started.set()

    def heat() -> None:
        started.wait(30)
        for n in itertools.count(5):
            boards.put(root, "next", n)
            (root / "next").replace(root / counter)
            if stop.wait(0.002):
                return

    stop = threading.Event()
    thread = threading.Thread(target=heat)
    thread.start()
    try:
        plan = replace(QUICK, seconds=1.0)  # long enough for the other thread to have its turn
        document = profile_artifact(tiny_artifact, plan, root=str(root), progress=progress)
    finally:
        stop.set()
        thread.join()
    for point in document["points"]:
        assert not point["valid"]
        assert "thermal throttle events" in point["invalid"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_writes_every_file_and_the_artifacts_profile(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run(tiny_artifact, "--k", "1,.2", "--repeats", "20", "--warmup", "1", "-o", out,
              "--recall", "none", "--json")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    document = json.loads((out / "profile.json").read_text())
    assert printed == {**document, "files": str(out), "written": True}
    assert len(list(csv.DictReader((out / "profile.csv").read_text().splitlines()))) == 2
    check_trace(json.loads((out / "trace.json").read_text()))
    assert "plot-latency" in (out / "report.html").read_text()
    manifest = read_artifact(tiny_artifact).manifest
    assert [point["k"] for point in manifest.profile["points"]] == [1.0, 0.2]
    valid = [point["valid"] for point in manifest.profile["points"]]
    with Localizer(tiny_artifact, k="auto", preset="turbo") as localizer:
        assert localizer.governor is not None
        assert localizer.governor.ladder.measured is any(valid)
        assert localizer.governor.choose().k == 1.0


GOOD = [
    {"k": 0.2, "tokens": 1.0, "latency_ms": 2.5},
    {"k": 1.0, "tokens": 1.0, "latency_ms": 9},
]


@pytest.mark.parametrize("valid", [0, 1])
def test_where_no_point_is_valid_the_command_says_so(
    tiny_artifact: Path, tmp_path: Path, valid: int
) -> None:
    """The board is a program that prints what was measured here, throttled but for ``valid``."""
    document = profile_artifact(tiny_artifact, QUICK, root=str(tmp_path))
    for index, point in enumerate(document["points"]):
        point["valid"] = index < valid
        point["invalid"] = "" if index < valid else "7 thermal throttle events"
    (tmp_path / "said").write_text(json.dumps(document))
    board = tmp_path / "board"
    board.write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\n")
    board.chmod(0o755)
    deployed(tmp_path / "root", tiny_artifact)
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": []})
    words = (tiny_artifact, "--on", "local:", "--python", board, "--root", tmp_path / "root",
             "--k", "1,.2", "-o", tmp_path / "out", "--recall", "none")  # fmt: skip
    ran = run(*words)
    assert ran.exit_code == 0, ran.output
    assert "keeps the profile that it had" not in ran.stderr
    assert "left as it is" not in ran.stdout
    last = ran.stdout.splitlines()[-1]
    kept = read_artifact(tiny_artifact).manifest.profile["points"]
    assert [point["valid"] for point in kept] == [index < valid for index in range(2)]
    if valid:
        assert last == f"written into {tiny_artifact}: the governor uses the 1 valid of 2 points"
    else:
        assert last.startswith("no point is valid: ") and "nothing to go by" in last
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": GOOD})
    assert json.loads(run(*words, "--json").stdout)["written"] is bool(valid)


def test_no_write_leaves_the_artifact_as_it_was(tiny_artifact: Path, tmp_path: Path) -> None:
    before = (tiny_artifact / "manifest.json").read_bytes()
    ran = run(tiny_artifact, "--k", "1", "--repeats", "3", "-o", tmp_path / "out", "--no-write",
              "--recall", "none")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert "left as it is" in ran.stdout
    assert (tiny_artifact / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_recall_on_the_shipped_places(tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(tiny_artifact, "--k", "1", "--repeats", "3", "-o", out)
    assert ran.exit_code == 0, ran.output
    (point,) = json.loads((out / "profile.json").read_text())["points"]
    assert 0.0 < point["recall"] <= 1.0  # random weights recall little, but not nothing
    assert "98 queries, 49 places" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "0"], "above 0 and at most 1"),
        (["--k", "1.5"], "above 0 and at most 1"),
        (["--tokens", "fast"], "fast"),
        (["--recall", "nowhere.json"], "nowhere.json"),
        (["--k", "0.01"], "was built for 0.05 to 1"),
    ],
)
def test_wrong_arguments_are_one_line(
    tiny_artifact: Path, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(tiny_artifact), "--repeats", "1", *words]) in (1, 2)
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_a_full_disk_is_told_and_leaves_no_half_of_a_file(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "figures"
    words = ["profile", str(tiny_artifact), "--repeats", "1", "--recall", "none", "--no-write"]
    monkeypatch.setattr(os, "fsync", full)
    assert main([*words, "-o", str(folder)]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"error: cannot write {folder / 'profile.json'}: No space left on device"
    assert list(folder.iterdir()) == []


def test_a_signed_artifact_is_refused_before_it_is_measured(
    tiny_artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tiny_artifact / "manifest.sig").write_text("a signature\n")
    assert main(["profile", str(tiny_artifact)]) == 1
    assert "is signed" in capfd.readouterr().err


def test_a_profile_without_a_valid_point_does_not_replace_a_good_one(
    tiny_artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other programs use the processor while it is profiled: such points are for people alone."""
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": GOOD})
    words = ["profile", str(tiny_artifact), "--k", "1,.2", "--recall", "none"]
    words += ["--repeats", "5", "--seconds", "1", "-o", str(tmp_path / "figures")]
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        assert main(words) == 0
    finally:
        for program in busy:
            program.kill()
            program.wait()
    said = capfd.readouterr()
    measured = json.loads((tmp_path / "figures" / "profile.json").read_text())["points"]
    assert [point["valid"] for point in measured] == [False, False]
    assert read_artifact(tiny_artifact).manifest.profile["points"] == GOOD
    assert "keeps the profile that it had" in said.err and "left as it is" in said.out


def test_the_boards_own_command(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--k", "1,.2", "--tokens", "1,.5", "--repeats", "3", "--warmup", "0"]
    assert board_main(["profile", str(tiny_artifact), *words]) == 0
    captured = capsys.readouterr()
    document = check_document(json.loads(captured.out), "what the board printed")
    assert [(p["k"], p["tokens"]) for p in document["points"]] == [
        (1.0, 1.0), (0.2, 1.0), (1.0, 0.5), (0.2, 0.5)
    ]  # fmt: skip
    assert board_main(["profile", str(tiny_artifact), "--k", "fast"]) == 1
    assert capsys.readouterr().err.startswith("error: 'fast'")


def deployed(root: Path, artifact: Path) -> None:
    """What a deploy leaves: current -> releases/ID with the artifact."""
    (root / "releases/one").mkdir(parents=True)
    (root / "releases/one/artifact").symlink_to(artifact)
    (root / "current").symlink_to("releases/one")


def test_a_board_measures_its_live_release(tiny_artifact: Path, tmp_path: Path) -> None:
    root = tmp_path / "board with spaces"
    deployed(root, tiny_artifact)
    told: list[str] = []
    plan = Plan((Setting(1.0), Setting(0.2)), warmup=0, repeats=3)
    document = profile_on(
        LocalTransport(), tiny_artifact, plan, str(root), sys.executable, tell=told.append
    )
    assert [point["k"] for point in document["points"]] == [1.0, 0.2]
    assert any(line.startswith("k=0.2") for line in told)


def test_a_board_measures_the_frontier_alone_and_not_every_pair_of_its_numbers(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    document = json.loads((tiny_artifact / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 0.5, "recall": 48.0}]  # fmt: skip
    (tiny_artifact / MANIFEST).write_bytes(seal(document))
    deployed(tmp_path, tiny_artifact)

    def measured(settings: tuple[Setting, ...]) -> list[tuple[float, float]]:
        plan = Plan(settings, warmup=0, repeats=3)
        there = profile_on(LocalTransport(), tiny_artifact, plan, str(tmp_path), sys.executable)
        return [(point["k"], point["tokens"]) for point in there["points"]]

    assert measured(settings_for(tiny_artifact, None, None)) == [(1.0, 1.0), (0.4, 0.5)]
    grid = settings_for(tiny_artifact, [1.0, 0.4], [1.0, 0.5])
    assert len(measured(grid)) == 4
    with pytest.raises(UsageError, match="these settings are neither"):
        measured((*grid[:2], Setting(0.2, 0.5)))


def test_a_board_without_a_release_or_with_another(tiny_artifact: Path, tmp_path: Path) -> None:
    plan = Plan((Setting(1.0),), warmup=0, repeats=1)
    with pytest.raises(DeployError, match="nothing is deployed") as empty:
        profile_on(LocalTransport(), tiny_artifact, plan, str(tmp_path), sys.executable)
    reaching = shlex.join(["local:", "--root", str(tmp_path), "--python", sys.executable])
    assert str(empty.value).endswith(f"run `tatvpr-edge deploy ARTIFACT {reaching}` first")
    root, other = tmp_path / "root", tmp_path / "other"
    deployed(root, tiny_artifact)
    with pytest.raises(DeployError, match="exit status 127"):
        profile_on(LocalTransport(), tiny_artifact, plan, str(root), "no-such-python")
    shutil.copytree(tiny_artifact, other)
    golden = next((other / "golden").glob("*.rgb"))
    golden.write_bytes(bytes(255 - byte for byte in golden.read_bytes()))
    manifest = json.loads((other / MANIFEST).read_text())
    for entry in manifest["files"]:
        if entry["path"] == f"golden/{golden.name}":
            entry["sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (other / MANIFEST).write_bytes(seal(manifest))
    (root / "current/python").write_text('echo measured > "$0.ran"; exit 1\n')
    with pytest.raises(DeployError, match="runs another artifact") as differs:
        profile_on(LocalTransport(), other, plan, str(root), sys.executable)
    assert not (root / "current/python.ran").exists()  # told before minutes of measuring
    reaching = shlex.join([str(other), "local:", "--root", str(root), "--python", sys.executable])
    assert str(differs.value).endswith(f"deploy it first (tatvpr-edge deploy {reaching})")


def test_settings_are_those_told_else_the_artifacts_frontier(
    tiny_host: Path, tmp_path: Path
) -> None:
    assert fractions_from_text("1,.2") == [1.0, 0.2] and fractions_from_text(None) is None
    with pytest.raises(UsageError, match="fractions with commas"):
        fractions_from_text("1;2")
    assert settings_for(tiny_host, [1.0, 0.2], [1.0, 0.5]) == (
        Setting(1.0, 1.0), Setting(0.2, 1.0), Setting(1.0, 0.5), Setting(0.2, 0.5)
    )  # fmt: skip
    assert [s.k for s in settings_for(tiny_host, None, None)] == [1.0, 0.6, 0.4, 0.2]
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 0.5, "recall": 48.0}]  # fmt: skip
    (tmp_path / "A" / MANIFEST).write_bytes(seal(document))
    assert settings_for(tmp_path / "A", None, None) == (Setting(1.0, 1.0), Setting(0.4, 0.5))
    assert settings_for(tmp_path / "A", [0.6], None) == (Setting(0.6, 1.0),)


def test_a_k_that_the_artifact_was_not_built_for_is_told_before_the_others_are_measured(
    tiny_host: Path, tmp_path: Path
) -> None:
    """A profile that names no k failed there, too, at k = 1 or after minutes at k = .2."""
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    (tmp_path / "A" / MANIFEST).write_bytes(
        seal({**document, "k_range": [0.3, 0.9], "defaults": {"k": 0.6, "tokens": 1.0}})
    )
    with pytest.raises(UsageError, match=r"k is 0.2: this artifact was built for 0.3 to 0.9"):
        settings_for(tmp_path / "A", [0.6, 0.2], None)
    assert [s.k for s in settings_for(tmp_path / "A", None, [0.5])] == [0.6, 0.4]


def test_what_each_setting_finds_comes_from_the_artifacts_frontier(
    tiny_host: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 1.0, "recall": 48.0}]  # fmt: skip
    (tmp_path / "A" / MANIFEST).write_bytes(seal(document))
    ran = run(tmp_path / "A", "--repeats", "3", "-o", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    made = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert [(p["k"], p["recall"]) for p in made["points"]] == [(1.0, 0.5), (0.4, 0.48)]
    profile = read_artifact(tmp_path / "A").manifest.profile
    assert [p["recall"] for p in profile["points"]] == [0.5, 0.48]
    assert "evaluation" in profile["device"]["recall_of"]
    frontier = read_artifact(tmp_path / "A").manifest.frontier
    assert evaluated_recall(frontier, (Setting(1.0), Setting(0.2))) is None
    assert evaluated_recall((), (Setting(1.0),)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": ()},
        {"settings": (Setting(0.0),)},
        {"settings": (Setting(1.0), Setting(1.0))},
        {"repeats": 0},
        {"attempts": 99},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Plan(**wrong)


@pytest.mark.slow
def test_profile_on_a_board_over_ssh(tiny_artifact: Path, tmp_path: Path) -> None:
    """A real deploy over a real sshd, then the command as a user types it."""
    root, out = tmp_path / "root", tmp_path / "out"
    with running_sshd(tmp_path / "etc") as sshd:
        deploy(
            sshd.transport(),
            tiny_artifact,
            options=quick_options(root, runtime="always", python=sys.executable),
        )
        words = ["profile", str(tiny_artifact), "--on", "127.0.0.1", "--port", str(sshd.port)]
        words += ["--ssh-config", str(sshd.config), "--root", str(root), "--k", "1,.2"]
        assert main([*words, "--repeats", "5", "--recall", "none", "-o", str(out)]) == 0
    document = json.loads((out / "profile.json").read_text())
    assert [point["k"] for point in document["points"]] == [1.0, 0.2]
    assert "plot-latency" in (out / "report.html").read_text()
    points = read_artifact(tiny_artifact).manifest.profile["points"]
    assert points[0]["latency_ms"]["p50"] > 0


def test_a_board_whose_queries_draw_ten_times_as_much_tells_their_energy(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    """So large a step is believed after a second, in which neither run nor idle board had power."""
    plan = replace(QUICK, settings=(Setting(0.2),))
    draw = {"mw": 1000.0}

    def progress(what: str, done: int, of: int) -> None:
        draw["mw"] = 15_000.0 if what.startswith("k=") else 1000.0

    with board_that_draws(tmp_path / "board", draw) as sampler:
        document = profile_artifact(tiny_artifact, plan, sampler=sampler, progress=progress)
    assert document["device"]["idle_mw"] == pytest.approx(1000.0, rel=0.1)
    assert document["points"][0]["power_mw"] == pytest.approx(15_000.0, rel=0.1)


def test_power_of_two_sources_is_no_energy(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a board whose monitor failed for good, or whose charger was pulled: what one source covers
    was subtracted from what another does."""
    monkeypatch.setattr(sampler_module, "_RESELECT_S", 0.1)
    first, second = FedSource("first"), FedSource("second")
    plan = replace(QUICK, settings=(Setting(0.2),), power_seconds=0.5, idle_s=0.3)
    ended = threading.Event()
    feeds = [first, second]

    def feed() -> None:
        while not ended.wait(0.01):
            for source in feeds:
                source.feed(power_w=5.0 if source is first else 40.0)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with Sampler([first, second], interval_s=0.02, cpu_share=1.0) as sampler:

            def progress(what: str, done: int, of: int) -> None:
                if what.startswith("k="):
                    feeds[:] = [second]
                    deadline = time.monotonic() + 20
                    while sampler.latest().total.source != "second":
                        assert time.monotonic() < deadline
                        time.sleep(0.01)

            document = profile_artifact(tiny_artifact, plan, sampler=sampler, progress=progress)
    finally:
        ended.set()
        thread.join()
    assert document["device"]["idle_mw"] is None
    assert "told by first, then by second" in document["device"]["idle_note"]
    assert document["points"][0]["energy_mj"] is None

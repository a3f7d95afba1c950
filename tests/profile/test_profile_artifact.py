"""A real artifact is measured: here, with a power sensor made of files."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import board_trees as boards
import pytest

from tatvpr_edge.profile.document import check_document
from tatvpr_edge.runtime.profiling import Plan, Setting, profile_artifact
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.runtime.telemetry import sampler as sampler_module

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

"""The sampler thread: fresh readings, a bounded history, a bounded cost."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path

import board_trees as boards
import pytest

from tatvpr_edge.runtime.telemetry import Condition, FedSource, Reading, Role, Sampler
from tatvpr_edge.runtime.telemetry.discover import Found
from tatvpr_edge.runtime.telemetry.reader import Reader
from tatvpr_edge.runtime.telemetry.sampler import SLOWEST_S
from tatvpr_edge.spec.errors import UsageError


def wait_for(condition: object, patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def test_the_thread_reads_by_itself(tmp_path: Path) -> None:
    monitor = boards.orin_nano(tmp_path)
    with Sampler(interval_s=0.02, cpu_share=1.0, root=str(tmp_path)) as sampler:
        assert sampler.ready(20.0)
        assert sampler.latest().total.value == 4824
        boards.put(monitor, "curr1_input", 1100)
        wait_for(lambda: sampler.latest().total.value == pytest.approx(4824 * 1.1))
        assert sampler.running
        wait_for(lambda: len(sampler.history()) > 3)
    assert not sampler.running
    times = [point.time_s for point in sampler.history()]
    assert times == sorted(times)


class Costly:
    """A source whose reading burns processor time."""

    name = "costly"

    def describe(self) -> str:
        return "burns 20 ms a reading"

    def read(self, now_s: float) -> list[Reading]:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return [Reading("x", Role.TOTAL, "mW", self.name, now_s, 1000.0)]

    def close(self) -> None:
        pass


def test_a_costly_source_is_read_less_often() -> None:
    with Sampler(sources=[Costly()], interval_s=0.02, cpu_share=0.05) as sampler:
        # 20 ms at 5 % of a core is a reading every 400 ms; the mean moves towards it.
        wait_for(lambda: sampler.effective_interval_s > 0.15)


class Command(Costly):
    """Whose time another process spends."""

    name = "pmic"

    def read(self, now_s: float) -> list[Reading]:
        threading.Event().wait(0.02)
        return [Reading("x", Role.TOTAL, "mW", self.name, now_s, 1000.0)]


def test_a_command_costs_what_it_takes() -> None:
    with Sampler(sources=[Command()], interval_s=0.02, cpu_share=0.05) as sampler:
        wait_for(lambda: sampler.effective_interval_s > 0.15)


def test_a_costly_source_is_still_read_before_the_governor_takes_it_for_lost() -> None:
    """A Raspberry Pi's command of 10 ms was asked once in 2 s and more: the governor went between
    its safe level and the best one, six times a minute."""
    with Sampler(sources=[Costly()], interval_s=0.02, cpu_share=1e-4) as sampler:
        wait_for(lambda: sampler.effective_interval_s > 0.02)  # 30 s by its cost, a fifth at once
        assert sampler.effective_interval_s < 0.2 * SLOWEST_S + 0.02 < 2.0


@pytest.mark.parametrize("interval_s", [0.02, 1.0])
def test_history_is_two_minutes_long(interval_s: float) -> None:
    now_s = 0.0
    source = FedSource(clock=lambda: now_s)
    sampler = Sampler([source], interval_s=interval_s, clock=lambda: now_s)
    for _ in range(round(130 / interval_s)):
        now_s += interval_s
        source.feed(power_w=5.0)
        sampler.sample()
    times = [point.time_s for point in sampler.history()]
    assert times[-1] - times[0] == pytest.approx(120.0, abs=0.03)


@pytest.mark.parametrize("interval_s", [0.0, 0.001, 31.0, float("nan")])
def test_intervals_are_checked(interval_s: float) -> None:
    with pytest.raises(UsageError, match="interval_s is "):
        Sampler(sources=[], interval_s=interval_s)


def test_a_root_that_is_none_is_no_machine_without_sensors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"root is .*: a folder that there is"):
        Sampler(root=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), -1.0, "1"])
def test_waiting_times_are_checked(timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout_s is "):
        Sampler(sources=[]).ready(timeout_s)


def test_shares_are_checked() -> None:
    with pytest.raises(UsageError, match="cpu_share is "):
        Sampler(sources=[], cpu_share=0.0)


def test_starting_twice_is_one_thread(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    sampler = Sampler(root=str(tmp_path))
    sampler.start()
    threads = sampler._threads
    sampler.start()
    assert sampler._threads is threads
    sampler.stop()
    sampler.stop()


def test_a_machine_without_sensors_says_why() -> None:
    total = Sampler(sources=[]).sample().total
    assert (total.value, total.detail) == (None, "no power sensor")


def test_a_forked_child_samples_by_itself(tmp_path: Path) -> None:
    monitor = boards.orin_nano(tmp_path)
    with Sampler(interval_s=0.02, cpu_share=1.0, root=str(tmp_path)) as sampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                boards.put(monitor, "curr1_input", 1200)
                wait_for(lambda: sampler.latest().total.value == pytest.approx(4824 * 1.2))
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sampler.running


class Blocks:
    """A source whose driver never answers, until the test lets it."""

    name = "blocks"

    def __init__(self, good_readings: int = 0) -> None:
        self.good_readings = good_readings
        self.let = threading.Event()
        self.blocked = threading.Event()
        self.closed = False

    def describe(self) -> str:
        return "never answers"

    def read(self, now_s: float) -> list[Reading]:
        if self.good_readings == 0:
            self.thread = threading.current_thread()
            self.blocked.set()
            self.let.wait()
        self.good_readings -= 1
        return [Reading("x", Role.TOTAL, "mW", self.name, now_s, 1000.0)]

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("good_readings", [0, 3])
def test_a_sensor_that_blocks_hangs_nobody(good_readings: int) -> None:
    """Waiting for ever would hang this test; what it waits for is bounded in `stop`."""
    blocks = Blocks(good_readings)
    sampler = Sampler(sources=[blocks], interval_s=0.02, cpu_share=1.0)
    sampler.start()
    assert blocks.blocked.wait(20.0)
    assert sampler.ready(0.1) is (good_readings > 0)
    sampler.stop()
    assert not blocks.closed  # closing what a thread still reads would be worse
    if not good_readings:
        assert "blocks has not answered" in sampler.latest().total.detail
    last = sampler.latest()
    blocks.let.set()
    blocks.thread.join(20.0)
    assert sampler.latest() is last  # what it answers then belongs to nobody


def test_a_sensor_that_blocks_leaves_the_others_going(tmp_path: Path) -> None:
    monitor = boards.orin_nano(tmp_path)
    fifo = tmp_path / "sys/devices/virtual/thermal/thermal_zone0/temp"
    boards.zones(tmp_path, tj_thermal=50_000)
    fifo.unlink()
    os.mkfifo(fifo)  # reading it waits for a writer that never comes
    with Sampler(interval_s=0.02, cpu_share=1.0, root=str(tmp_path)) as sampler:
        wait_for(lambda: sampler.latest().total.value == 4824)
        boards.put(monitor, "curr1_input", 1100)
        wait_for(lambda: sampler.latest().total.value == pytest.approx(4824 * 1.1))
        assert sampler.latest().hottest.value is None
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # lets the reader go


def test_a_better_source_that_is_slow_to_answer_is_waited_for() -> None:
    now_s = 0.0
    better = Blocks()
    fast = Costly()
    sampler = Sampler([better, fast], interval_s=0.02, cpu_share=1.0, clock=lambda: now_s)
    sampler.start()
    wait_for(lambda: len(sampler.latest().readings) == 1)
    assert sampler.latest().total.detail == "blocks has not answered yet"
    better.good_readings = -1
    better.let.set()
    wait_for(lambda: sampler.latest().total.source == "blocks")
    sampler.stop()


def test_what_fell_silent_hides_nothing_that_still_tells() -> None:
    now_s = 0.0
    old, new = (FedSource(name, clock=lambda: now_s) for name in ("old", "new"))
    sampler = Sampler([old, new], clock=lambda: now_s)
    old.feed(temperature_c=60.0)
    now_s = 60.0
    new.feed(temperature_c=50.0, battery_j=10.0)
    snapshot = sampler.sample()
    assert (snapshot.hottest.source, snapshot.battery_energy.source) == ("new", "new")


def test_what_one_thread_looks_for_in_vain_is_found_by_others() -> None:
    """As after a fork in the middle of it: the child had no sensor for half a minute."""
    entered, go_on = threading.Event(), threading.Event()
    fed = FedSource()

    def find() -> Found:
        if entered.is_set():
            return Found(fed, {})
        entered.set()
        go_on.wait(20.0)
        return Found(None, {"fed": "is not there"})

    reader = Reader("fed", find)
    first = threading.Thread(target=reader.look, args=(0.0,))
    first.start()
    assert entered.wait(20.0)
    reader.look(0.1)
    go_on.set()
    first.join()
    assert reader.source is fed


def test_what_is_found_after_the_end_is_not_read(tmp_path: Path) -> None:
    """Reading starts a program, as tegrastats, which nobody would end any more."""
    asked, go_on = tmp_path / "asked", tmp_path / "go-on"
    said = "C_A current(0)=1A\nC_V volt(1)=1V"
    script = f"echo >>{asked}; until [ -e {go_on} ]; do sleep 0.02; done; echo '{said}'"
    boards.command(tmp_path, "vcgencmd", script)
    sampler = Sampler(root=str(tmp_path))
    sampler.start()
    (thread,) = [one for one in sampler._threads if one.name.endswith("pmic")]
    wait_for(asked.exists)
    sampler.stop()
    go_on.touch()
    thread.join(20.0)
    assert len(asked.read_text().splitlines()) == 1


class Unread(Costly):
    """A battery whose gauge cannot be read."""

    name = "unread"

    def read(self, now_s: float) -> list[Reading]:
        about = "BAT0", Role.BATTERY_ENERGY, "J", self.name, now_s
        return [Reading(*about, None, Condition.IO_ERROR, "no answer")]


def test_the_hottest_zone_counts_and_the_battery_that_tells() -> None:
    now_s = 0.0
    zones = [FedSource(name, clock=lambda: now_s) for name in ("cool", "hot", "warm")]
    sampler = Sampler([Unread(), *zones], clock=lambda: now_s)
    for source, degrees in zip(zones, (40.0, 80.0, 60.0), strict=True):
        source.feed(temperature_c=degrees, battery_j=degrees)
    assert sampler.sample().hottest.value == 80.0
    assert sampler.sample().battery_energy.source == "cool"
    now_s = 600.0  # all fell silent: what they said keeps its age
    last = sampler.sample().hottest
    assert (last.value, last.age_s(now_s)) == (80.0, 600.0)


def test_a_sampler_that_was_not_started_says_so() -> None:
    total = Sampler(sources=[Costly()]).latest().total
    assert total.value is None
    assert "was not started: call start()" in total.detail


def test_a_program_feeds_what_it_measures() -> None:
    now_s = 100.0
    source = FedSource("mavlink", covers="the whole robot", clock=lambda: now_s)
    sampler = Sampler([source], clock=lambda: now_s)
    assert "has not fed a power yet" in sampler.sample().total.detail
    source.feed(power_w=12.5, battery_percent=81, temperature_c=-4.0)
    now_s = 101.5
    snapshot = sampler.sample()
    assert (snapshot.total.value, snapshot.total.covers) == (12_500.0, "the whole robot")
    assert snapshot.total.age_s(now_s) == 1.5  # it is as old as it is
    assert snapshot.hottest.value == -4.0
    source.feed(battery_j=3600.0)
    snapshot = sampler.sample()
    assert snapshot.battery_energy.value == 3600.0
    assert snapshot.total.age_s(now_s) == 1.5
    for wrong in ({"power_w": -1.0}, {"power_w": float("nan")}, {"battery_j": float("inf")}):
        with pytest.raises(UsageError, match="feed a finite number from 0 up"):
            source.feed(**wrong)
    absurd = ({"battery_percent": 300.0}, {"battery_percent": -1}, {"temperature_c": -500.0})
    for wrong in absurd:
        with pytest.raises(UsageError, match="feed a number from"):
            source.feed(power_w=1.0, **wrong)
    assert sampler.sample().total.value == 12_500.0


def test_power_that_was_fed_long_before_it_was_read_ends_no_sampler() -> None:
    now_s = 0.0
    source = FedSource(clock=lambda: now_s)
    source.feed(power_w=5.0)
    now_s = 200.0  # further back than the history goes
    with Sampler([source], interval_s=0.02, cpu_share=1.0, clock=lambda: now_s) as sampler:
        assert sampler.ready(20.0)
        assert sampler.latest().total.age_s(now_s) == 200.0
        assert sampler.history() == []
        source.feed(power_w=6.0)
        wait_for(lambda: sampler.latest().total.value == 6000.0)
        wait_for(lambda: [point.power_mw for point in sampler.history()] == [6000.0])


def test_no_power_at_all_from_a_board_that_runs_is_not_believed(tmp_path: Path) -> None:
    now_s = 0.0
    monitor = boards.orin_nano(tmp_path)
    sampler = Sampler(root=str(tmp_path), clock=lambda: now_s)
    for _ in range(8):
        now_s += 0.25
        assert sampler.sample().total.ok
    boards.put(monitor, "curr1_input", 0)
    for _ in range(40):  # longer than any real step of load takes to be confirmed
        now_s += 0.25
        assert not sampler.sample().total.ok

"""The sampler thread: fresh readings, a bounded history, a bounded cost."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import board_trees as boards
import pytest

from tatvpr_edge.runtime.telemetry import Reading, Role, Sampler
from tatvpr_edge.spec.errors import UsageError


def wait_for(condition: object, patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def test_the_thread_reads_by_itself(tmp_path: Path) -> None:
    monitor = boards.orin_nano(tmp_path)
    with Sampler(interval_s=0.02, cpu_share=1.0, root=str(tmp_path)) as sampler:
        assert sampler.latest().total.value == 4824  # the first pass is made before it returns
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


def test_history_is_two_minutes_long(tmp_path: Path) -> None:
    now_s = 0.0
    boards.orin_nano(tmp_path)
    sampler = Sampler(root=str(tmp_path), clock=lambda: now_s)
    for _ in range(400):
        now_s += 1.0
        sampler.sample()
    times = [point.time_s for point in sampler.history()]
    assert times[-1] - times[0] == 120.0


@pytest.mark.parametrize("interval_s", [0.0, 0.001, 31.0, float("nan")])
def test_intervals_are_checked(interval_s: float) -> None:
    with pytest.raises(UsageError, match="sampling interval"):
        Sampler(sources=[], interval_s=interval_s)


def test_shares_are_checked() -> None:
    with pytest.raises(UsageError, match="sampling share"):
        Sampler(sources=[], cpu_share=0.0)


def test_starting_twice_is_one_thread(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    sampler = Sampler(root=str(tmp_path))
    sampler.start()
    thread = sampler._thread
    sampler.start()
    assert sampler._thread is thread
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

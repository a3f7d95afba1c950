"""A thread that reads the sensors at a bounded cost and keeps the last two minutes.

The cost of every pass is measured (CPU time of the thread, wall time of the commands it ran); the
interval is stretched until a pass costs at most ``cpu_share`` of one core.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tatvpr_edge.runtime.telemetry.discover import Discovery, Source, discover
from tatvpr_edge.runtime.telemetry.plausible import Plausibility
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import Tree
from tatvpr_edge.spec.errors import UsageError

__all__ = ["Sampler", "Snapshot", "TimedPower", "aged"]

_HISTORY_S = 120.0
_MAX_POINTS = 2400
_RESELECT_S = 5.0
_COMMAND_SOURCES = ("pmic",)  # each reading starts a process, whose time is not this thread's
_MAX_INTERVAL_S = 30.0


@dataclass(frozen=True, slots=True)
class TimedPower:
    """One point of the power history; ``power_mw`` is None where the total was not OK."""

    time_s: float
    power_mw: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest reading of every sensor."""

    time_s: float
    readings: tuple[Reading, ...]
    total: Reading
    """Power of the preferred source, or the condition that stands in its place."""
    hottest: Reading
    """The hottest zone that tells its temperature."""
    battery_energy: Reading

    def of_role(self, role: Role) -> list[Reading]:
        """Readings of one role."""
        return [reading for reading in self.readings if reading.role is role]


def _absent(name: str, role: Role, unit: str, now_s: float, why: str) -> Reading:
    return Reading(name, role, unit, "none", now_s, None, Condition.ABSENT, why)


class Sampler:
    """Reads every source of a board, in a thread or on demand.

    Args:
        sources: what to read; found by itself under ``root`` when None.
        interval_s: wished time between passes, at least 0.02.
        cpu_share: the largest share of one core that reading may take.
        root: root of the board's file system.
        clock: monotonic seconds; every age and time of this object is on it.

    Raises:
        UsageError: an interval or share outside its range.
    """

    def __init__(
        self,
        sources: Sequence[Source] | None = None,
        interval_s: float = 0.25,
        cpu_share: float = 0.005,
        root: str = "/",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0.02 <= interval_s <= _MAX_INTERVAL_S:
            raise UsageError(
                f"sampling interval of {interval_s} s: give 0.02 to {_MAX_INTERVAL_S:g} s"
            )
        if not 0.0 < cpu_share <= 1.0:
            raise UsageError(f"sampling share of {cpu_share}: give a fraction of one core, 0 to 1")
        self.discovery = (
            discover(Tree(root)) if sources is None else Discovery(sources=list(sources))
        )
        self.interval_s = interval_s
        self.effective_interval_s = interval_s
        self._cpu_share = cpu_share
        self._clock = clock
        self._plausibility = Plausibility()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._history: deque[TimedPower] = deque(maxlen=_MAX_POINTS)
        self._primary: str | None = None
        self._primary_ok_s = -float("inf")
        self._latest = self._snapshot(clock(), [])
        _LIVE.add(self)

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the thread is alive (a forked child has none)."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; the first pass is made before this returns."""
        if self.running:
            return
        self._stop.clear()
        self.sample()
        self._thread = threading.Thread(target=self._loop, name="tatvpr-telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the sources."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.discovery.close()

    def _after_fork(self) -> None:
        """A child has no thread, and locks that a thread of the parent may hold for ever."""
        was_running = self._thread is not None and not self._stop.is_set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None
        if was_running:
            self.start()

    def latest(self) -> Snapshot:
        """The newest snapshot; its readings carry their age."""
        return self._latest

    def sample(self) -> Snapshot:
        """One pass over every source, now."""
        readings: list[Reading] = []
        now_s = self._clock()
        for source in self.discovery.sources:
            # A source must not raise; one that does must not end the telemetry of the others.
            try:
                fresh = source.read(self._clock())
            except Exception as error:
                fresh = [
                    Reading(
                        source.name,
                        Role.TOTAL,
                        "mW",
                        source.name,
                        now_s,
                        None,
                        Condition.IO_ERROR,
                        f"{type(error).__name__}: {error}",
                    )
                ]
            readings += [self._plausibility.judge(reading) for reading in fresh]
        snapshot = self._snapshot(now_s, readings)
        with self._lock:
            self._latest = snapshot
            total = snapshot.total
            if not self._history or total.taken_s > self._history[-1].time_s:
                self._history.append(TimedPower(total.taken_s, total.value))
                while now_s - self._history[0].time_s > _HISTORY_S:
                    self._history.popleft()
        return snapshot

    def history(self) -> list[TimedPower]:
        """The last two minutes of total power, oldest first."""
        with self._lock:
            return list(self._history)

    def _loop(self) -> None:
        while not self._stop.wait(self.effective_interval_s):
            cpu_s, wall_s = time.thread_time(), time.perf_counter()
            self.sample()
            cost_s = time.thread_time() - cpu_s
            if any(source.name in _COMMAND_SOURCES for source in self.discovery.sources):
                cost_s = max(cost_s, time.perf_counter() - wall_s)
            wished_s = min(max(self.interval_s, cost_s / self._cpu_share), _MAX_INTERVAL_S)
            # Averaged, so that one pass that was preempted does not starve the governor.
            self.effective_interval_s += 0.2 * (wished_s - self.effective_interval_s)

    def _snapshot(self, now_s: float, readings: list[Reading]) -> Snapshot:
        zones = [r for r in readings if r.role is Role.TEMPERATURE and r.value is not None]
        hottest = max(zones, key=lambda r: r.value or 0.0, default=None)
        energy = next((r for r in readings if r.role is Role.BATTERY_ENERGY), None)
        return Snapshot(
            now_s,
            tuple(readings),
            self._select_total(readings, now_s),
            hottest
            or _absent(
                "temperature", Role.TEMPERATURE, "C", now_s, "no thermal zone tells its temperature"
            ),
            energy or _absent("battery", Role.BATTERY_ENERGY, "J", now_s, "no battery"),
        )

    def _select_total(self, readings: list[Reading], now_s: float) -> Reading:
        """The total of one source, kept while it answers.

        Another source measures something else (the package instead of the board), so one bad
        sample must not make the governor compare the two: only a source that has been silent for
        five seconds is given up.
        """
        totals = {r.source: r for r in reversed(readings) if r.role is Role.TOTAL}
        if not totals:
            why = "; ".join(self.discovery.missing.values()) or "no power sensor"
            return _absent("total", Role.TOTAL, "mW", now_s, why)
        ordered = [
            totals[source.name] for source in self.discovery.sources if source.name in totals
        ] or list(totals.values())
        primary = totals.get(self._primary or "")
        if primary is not None and primary.ok:
            self._primary_ok_s = now_s
            return primary
        if primary is not None and now_s - self._primary_ok_s < _RESELECT_S:
            return primary
        candidate = next((reading for reading in ordered if reading.ok), None)
        if candidate is not None:
            self._primary, self._primary_ok_s = candidate.source, now_s
            return candidate
        return primary or ordered[0]


_LIVE: weakref.WeakSet[Sampler] = weakref.WeakSet()


def _after_fork() -> None:
    for sampler in list(_LIVE):
        sampler._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def aged(reading: Reading, now_s: float, stale_s: float) -> Reading:
    """The reading, or STALE in its place when it is older than ``stale_s``."""
    if reading.value is None or reading.age_s(now_s) <= stale_s:
        return reading
    return replace(
        reading,
        value=None,
        condition=Condition.STALE,
        detail=f"{reading.age_s(now_s):.1f} s old",
    )

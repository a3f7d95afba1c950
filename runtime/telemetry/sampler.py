"""Threads that read the sensors at a bounded cost and keep the last two minutes.

The cost of every pass is measured (CPU time of the threads, wall time of the commands they ran);
the interval is stretched until a pass costs at most ``cpu_share`` of one core, or to `SLOWEST_S`.
Every source has a thread of its own, because a driver may block: the others go on, and what it said
grows old.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.telemetry.discover import FAMILIES, Discovery, Source
from tatvpr_edge.runtime.telemetry.plausible import Plausibility
from tatvpr_edge.runtime.telemetry.reader import LOOK_AGAIN_S, Reader
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import Tree
from tatvpr_edge.spec.values import between, wrong

_HISTORY_S = 120.0
_MAX_POINTS = 6000  # at the shortest interval
_RESELECT_S = 5.0
_COMMAND_SOURCES = ("pmic",)  # each reading starts a process, whose time is not this thread's
_MAX_INTERVAL_S = 30.0
#: So often a sensor is read, however much that costs: the governor takes what is older than two
#: seconds for lost, and would go between its safe level and another all the time.
SLOWEST_S = 1.5
_FIRST_S = 1.0  # so long a less trusted source waits for a better one's first answer
_STOP_S = 1.0  # so long stop() waits for threads that are reading


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


def _absent(name: str, role: Role, unit: str, now_s: float, why: str) -> Reading:
    return Reading(name, role, unit, "none", now_s, None, Condition.ABSENT, why)


def _listed(sources: Any) -> list[Any]:
    try:
        return list(sources)
    except TypeError:
        raise wrong(sources, "sources", "a list of what is read, such as FedSource()") from None


class Sampler(OneProcess):
    """Reads every source of a board, each in a thread of its own, or on demand.

    Neither the constructor nor `start`, `stop` and `latest` ever wait for a sensor: one that blocks
    leaves its own readings to grow old, and nothing else. `ready` waits, for those who want to.

    Args:
        sources: what to read; found by itself under ``root`` when None.
        interval_s: wished time between passes, at least 0.02.
        cpu_share: the largest share of one core that reading may take; no pass waits longer than
            `SLOWEST_S` for that.
        root: root of the board's file system.
        clock: monotonic seconds; every age and time of this object is on it.

    Raises:
        UsageError: an interval or share outside its range.
    """

    _elsewhere = "start another one there, and make the Localizer that takes it there, too"

    def __init__(
        self,
        sources: Sequence[Source] | None = None,
        interval_s: float = 0.25,
        cpu_share: float = 0.005,
        root: str = "/",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        meaning = f"seconds between passes, 0.02 to {_MAX_INTERVAL_S:g}"
        interval_s = between(interval_s, 0.02, _MAX_INTERVAL_S, "interval_s", meaning)
        if between(cpu_share, 0, 1, "cpu_share", "a fraction of one core, above 0") == 0:
            raise wrong(cpu_share, "cpu_share", "a fraction of one core, above 0")
        if sources is not None and not all(hasattr(one, "read") for one in _listed(sources)):
            raise wrong(sources, "sources", "a list of what is read, such as FedSource()")
        tree = Tree(root)
        if not tree.root.is_dir():
            raise wrong(root, "root", "a folder that there is, with the board's sys/ in it")
        self._readers = (
            [Reader(family.name, partial(family.find, tree)) for family in FAMILIES]
            if sources is None
            else [Reader.of(source) for source in sources]
        )
        self.interval_s = interval_s
        self.effective_interval_s = interval_s
        self._cpu_share = cpu_share
        self._clock = clock
        self._plausibility = Plausibility()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._started_s: float | None = None
        self._history: deque[TimedPower] = deque(maxlen=_MAX_POINTS)
        self._primary: str | None = None
        self._primary_ok_s = self._primary_best_s = -float("inf")
        self._latest = self._snapshot(clock())
        tell_children(self)

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return bool(self._threads) and not self._stop.is_set()

    @property
    def discovery(self) -> Discovery:
        """The sources found, in order of preference for the total, and why others are not there.

        Looks for them first, unless `start` has its threads looking.
        """
        if not self.running:
            for reader in self._readers:
                reader.look(self._clock())
        found = Discovery()
        for reader in self._readers:
            if reader.source is not None:
                found.sources.append(reader.source)
            found.missing.update(reader.missing)
        return found

    def start(self) -> None:
        """Starts the threads; see `ready` for when there is something to read."""
        if self.running:
            return
        self._stop = threading.Event()
        self._started_s = self._clock()
        with self._lock:
            self._latest = self._snapshot(self._started_s)
        self._threads = [
            threading.Thread(
                target=self._loop,
                args=(reader, self._stop),
                name=f"tatvpr-telemetry-{reader.name}",
                daemon=True,
            )
            for reader in self._readers
        ]
        for thread in self._threads:
            thread.start()

    def ready(self, timeout_s: float = 1.0) -> bool:
        """Waits until every source has answered once; whether all have, by then.

        Raises:
            UsageError: ``timeout_s`` is no time, or more than a day.
        """
        end_s = time.monotonic() + between(timeout_s, 0, 86400, "timeout_s", "seconds, to a day")
        return all(
            reader.answered.wait(max(0.0, end_s - time.monotonic())) for reader in self._readers
        )

    def stop(self) -> None:
        """Ends the threads and closes the sources; one that blocks is left behind, unclosed."""
        self._stop.set()
        end_s = time.monotonic() + _STOP_S
        threads: list[threading.Thread | None] = [*self._threads]
        for thread, reader in zip(
            threads or [None] * len(self._readers), self._readers, strict=True
        ):
            if thread is not None:
                thread.join(max(0.0, end_s - time.monotonic()))
            blocks = thread is not None and thread.is_alive()
            if not blocks and reader.source is not None:
                reader.source.close()
        self._threads = []

    def _after_fork(self) -> None:
        """A child has no thread, and locks that a thread of the parent may hold for ever."""
        was_running = self.running
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = []
        for reader in self._readers:
            reader.after_fork()
        if was_running:
            self.start()

    def latest(self) -> Snapshot:
        """The newest snapshot; its readings carry their age."""
        return self._latest

    def sample(self) -> Snapshot:
        """One pass over every source, now, in the caller's thread."""
        for reader in self._readers:
            reader.look(self._clock())
            self._publish(reader, reader.read(self._clock()), self._clock())
        return self._latest

    def history(self) -> list[TimedPower]:
        """The last two minutes of total power, oldest first."""
        with self._lock:
            return list(self._history)

    def _loop(self, reader: Reader, stop: threading.Event) -> None:
        while not stop.is_set():
            reader.look(self._clock())
            if stop.is_set():
                return  # nobody would close what is found from now on
            if reader.source is None:
                self._publish(reader, [], self._clock())
                stop.wait(LOOK_AGAIN_S)
                continue
            cpu_s, wall_s = time.thread_time(), time.perf_counter()
            fresh = reader.read(self._clock())
            if stop.is_set():
                return  # it blocked, and another thread may read the source by now
            self._publish(reader, fresh, self._clock())
            reader.cost_s = time.thread_time() - cpu_s
            if reader.source.name in _COMMAND_SOURCES:
                reader.cost_s = max(reader.cost_s, time.perf_counter() - wall_s)
            cost_s = sum(one.cost_s for one in self._readers)
            wished_s = max(self.interval_s, min(cost_s / self._cpu_share, SLOWEST_S))
            # Averaged, so that one pass that was preempted does not starve the governor.
            self.effective_interval_s += 0.2 * (wished_s - self.effective_interval_s)
            stop.wait(self.effective_interval_s)

    def _publish(self, reader: Reader, fresh: list[Reading], now_s: float) -> None:
        with self._lock:
            reader.readings = [self._plausibility.judge(reading) for reading in fresh]
            reader.answered.set()
            snapshot = self._latest = self._snapshot(now_s)
            total = snapshot.total
            while self._history and self._history[-1].time_s > now_s:  # the clock went back
                self._history.pop()
            if not self._history or total.taken_s > self._history[-1].time_s:
                self._history.append(TimedPower(total.taken_s, total.value))
                # What a driver held back for longer than that goes as well.
                while self._history and now_s - self._history[0].time_s > _HISTORY_S:
                    self._history.popleft()

    def _snapshot(self, now_s: float) -> Snapshot:
        readings = [reading for reader in self._readers for reading in reader.readings]
        zones = [r for r in readings if r.role is Role.TEMPERATURE and r.value is not None]
        # A zone of a source that fell silent hides none that still tells.
        told = [zone for zone in zones if self._is_fresh(zone, now_s)] or zones
        hottest = max(told, key=lambda r: r.value or 0.0, default=None)
        energies = [r for r in readings if r.role is Role.BATTERY_ENERGY]
        energy = next((r for r in energies if r.ok), energies[0] if energies else None)
        return Snapshot(
            now_s,
            tuple(readings),
            self._select_total(readings, now_s),
            hottest
            or _absent(
                "temperature", Role.TEMPERATURE, "C", now_s, "no thermal zone tells its temperature"
            ),
            energy
            or _absent("battery", Role.BATTERY_ENERGY, "J", now_s, "none tells what it holds"),
        )

    def _select_total(self, readings: list[Reading], now_s: float) -> Reading:
        """The total of one source, kept while it answers.

        Another source measures something else (the package instead of the board), so one bad
        sample must not make the governor compare the two: only a source that has been silent for
        five seconds is given up, and one only for a better one that has answered for as long.
        """
        totals = {r.source: r for r in reversed(readings) if r.role is Role.TOTAL}
        silent = [reader for reader in self._readers if not reader.answered.is_set()]
        if not totals:
            return _absent("total", Role.TOTAL, "mW", now_s, self._why_nothing(silent))
        primary = totals.get(self._primary or "")
        ordered = list(totals.values())[::-1]  # as the sources stand
        candidate = next((reading for reading in ordered if self._is_fresh(reading, now_s)), None)
        if primary is not None:
            if self._is_fresh(primary, now_s):
                self._primary_ok_s = now_s
            if candidate is None or candidate is primary:
                self._primary_best_s = now_s
            given_up = now_s - self._primary_ok_s >= _RESELECT_S
            if not given_up and now_s - self._primary_best_s < _RESELECT_S:
                return primary
        if candidate is None:
            return primary or ordered[0]
        waits = self._started_s is not None and now_s - self._started_s < _FIRST_S
        for reader in self._readers if waits else ():
            if reader.owns(candidate):
                break
            if reader in silent:  # a better one may answer yet
                why = f"{reader.name} has not answered yet"
                return _absent("total", Role.TOTAL, "mW", now_s, why)
        self._primary = candidate.source
        self._primary_ok_s = self._primary_best_s = now_s
        return candidate

    def _is_fresh(self, reading: Reading, now_s: float) -> bool:
        """Whether it has a value, and its source has not fallen silent since."""
        return reading.ok and reading.age_s(now_s) < _RESELECT_S + 2.0 * self.effective_interval_s

    def _why_nothing(self, silent: list[Reader]) -> str:
        if self._started_s is None and len(silent) == len(self._readers) > 0:
            return "the sampler was not started: call start(), or use it in a with statement"
        waiting = [f"{reader.name} has not answered" for reader in silent]
        missing = [why for reader in self._readers for why in reader.missing.values()]
        return "; ".join(waiting + missing) or "no power sensor"

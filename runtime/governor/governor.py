"""`Governor`: what `Localizer(k="auto", budget=...)` asks before every query.

In: the artifact's measured profile, a budget or a preset, telemetry, and the latency of every
query. Out: k and tokens, and one sentence that says why. C decides (`binding`); this joins it to
sensors, to a clock and to the threads of a `Localizer`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.governor.binding import (
    CGovernor,
    Figures,
    GovernorCore,
    Inputs,
    Preference,
    Reason,
)
from tatvpr_edge.runtime.governor.budget import Budget, Kind
from tatvpr_edge.runtime.governor.explain import Said, explain
from tatvpr_edge.runtime.governor.ladder import ladder_from_profile
from tatvpr_edge.runtime.governor.level import Level, nearest_level
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.telemetry import Condition, Reading, Role, Sampler, Snapshot
from tatvpr_edge.runtime.telemetry.sampler import SLOWEST_S
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.values import choice, flag, instance, wrong

PRESETS = {"turbo": Preference.TURBO, "battery-saver": Preference.SAVER}
STEP_S = 0.25
#: C forgets what it measured where its steps are further apart.
_PAUSE_S = 10.0
_NEEDS_SENSORS = (Kind.POWER, Kind.TEMPERATURE, Kind.BATTERY)
_GAUGED = (Role.BATTERY_ENERGY, Role.BATTERY_CHARGE)
#: Of a gauge: it has no such figure, or its battery is being filled, not drained.
_TELLS_NO_POWER = (Condition.ABSENT, Condition.PENDING, Condition.CHARGING)
#: So long a gauge that has told its power is waited for: the total is of something else.
_GAUGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting for the next query."""

    k: float
    tokens: float
    reason: str
    """Name of the rule that decided; `Governor.why` says it in a sentence."""


def check_preset(preset: str | None) -> str | None:
    """The preset itself, where it is one or None; else UsageError."""
    return None if preset is None else choice(preset, PRESETS, "preset")


def check_governed(budget: Budget | None, preset: str | None) -> None:
    """Raise UsageError where neither says what ``k="auto"`` is to hold."""
    if budget is None and preset is None:
        raise UsageError(
            'k="auto" needs a budget such as "5W", "0.2J", "40ms", "70C" or "battery:2h", '
            f"or a preset ({', '.join(PRESETS)})"
        )


class Governor(Closing, OneProcess):
    """Chooses k and tokens for the next query.

    Args:
        core: the governor's part of the artifact's library.
        profile: the manifest's ``profile``, or None where there is none.
        budget: the limit to hold, as a `Budget` or in its written form ("5W").
        preset: "turbo" or "battery-saver". With a budget: use it to the last percent, or aim a
            fifth below it. Without one: always the largest, or always the smallest setting.
        safe_k: the k without telemetry; the smallest measured k by default.
        telemetry: a sampler; where the budget needs one and none is given, one is started here
            and belongs to this object.
        k_range: the k for which the artifact was built; others are never chosen.
        pays_below: the k from which on, up to 1, less k saves nothing on this processor
            (`Library.pays_below`).
        busy_profile: take figures that were measured beside other programs, which a profile marks.
        clock: monotonic seconds, the same as the sampler's.

    Raises:
        UsageError: neither budget nor preset, or an argument outside its range.
        ArtifactError: the profile is malformed.
    """

    _elsewhere = "hand on the Localizer, which makes its own there"

    def __init__(
        self,
        core: GovernorCore,
        profile: Mapping[str, Any] | None = None,
        budget: Budget | str | None = None,
        preset: str | None = None,
        safe_k: float | None = None,
        telemetry: Sampler | None = None,
        k_range: tuple[float, float] = (0.0, 1.0),
        busy_profile: bool = False,
        pays_below: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_preset(preset)
        budget = Budget.of(budget)
        check_governed(budget, preset)
        self.budget = budget
        self.preset = preset
        kind = Kind.NONE if budget is None else budget.kind
        flag(busy_profile, "busy_profile")
        self.ladder = ladder_from_profile(core, profile, k_range, kind, busy_profile, pays_below)
        self.levels = self.ladder.levels
        self._core = core
        self._c = CGovernor(
            core,
            self.levels,
            kind,
            0.0 if budget is None else budget.limit,
            safe=0 if safe_k is None else nearest_level(self.levels, safe_k),
            preference=PRESETS.get(preset or "", Preference.BALANCED),
        )
        if telemetry is not None:
            instance(telemetry, Sampler, "telemetry", "a Sampler, or None")
            if kind in _NEEDS_SENSORS and telemetry.interval_s > SLOWEST_S:
                meaning = f"so seldom that no budget is held: at most {SLOWEST_S:g} s"
                raise wrong(telemetry.interval_s, "the sampler's interval_s", meaning)
        self._clock = clock
        self._lock = threading.Lock()
        self._owned = telemetry is None and kind in _NEEDS_SENSORS
        self.telemetry = Sampler(clock=clock) if self._owned else telemetry
        if self._owned and self.telemetry is not None:
            self.telemetry.start()
        self._queries = 0
        self._busy_ms = self._search_ms = 0.0
        self._next_s = self._gauge_s = -math.inf
        self._last = Inputs(0.0)
        self._began_s: float | None = None  # of C's first step: a battery's time counts from there
        self._reading: Reading | None = None
        self._choice = self._chosen()
        tell_children(self)

    def _after_fork(self) -> None:
        """A child's own lock; the sampler starts its thread anew."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stops the sampler that this object started."""
        if self._owned and self.telemetry is not None:
            self.telemetry.stop()

    @property
    def safe(self) -> Level:
        """The setting without telemetry."""
        return self.levels[self._c.safe]

    @property
    def reason(self) -> Reason:
        """The rule that decided last."""
        return self._c.reason

    def choose(self, now_s: float | None = None) -> Choice:
        """The setting for the next query; decided anew four times a second, else the last one."""
        now_s = self._clock() if now_s is None else now_s
        if 0.0 <= self._next_s - now_s <= STEP_S:  # not so far ahead that the clock went back
            return self._choice
        with self._lock:
            if 0.0 <= self._next_s - now_s <= STEP_S:  # another thread has just decided
                return self._choice
            self._catch_up(now_s)
            self._next_s = now_s + STEP_S
            self._step(self._inputs(now_s))
            self._choice = self._chosen()
            return self._choice

    def resume(self) -> None:
        """Begins to choose again where others chose for a while: what their queries drew then would
        be taken for other loads."""
        with self._lock:
            self._next_s = -math.inf

    def observe(
        self, latency_ms: float, k: float, tokens: float = 1.0, search_ms: float = 0.0
    ) -> None:
        """Tells what a query took, from frame to descriptor and in the search that followed.

        What was made at another setting is taken as the profile says it would take at this one.
        """
        for what, value_ms in (("latency", latency_ms), ("search", search_ms)):
            if not (math.isfinite(value_ms) and value_ms >= 0):
                raise UsageError(f"a {what} of {value_ms} ms: give a finite number from 0 up")
        with self._lock:
            level = self.levels[self._c.level]
            if k != level.k or tokens != level.tokens:
                latency_ms = self._as_at(level, latency_ms, k, tokens)
            self._queries += 1
            self._busy_ms += latency_ms
            self._search_ms += search_ms

    def figures(self) -> Figures:
        """What was measured and predicted, as numbers; NaN where it is not known."""
        with self._lock:
            return self._c.look(self._last.now_s)

    def why(self) -> str:
        """One paragraph: the choice, the budget, what was measured, what a higher level needs."""
        with self._lock:
            now_s = self._last.now_s
            figures = self._c.look(now_s)
            return explain(
                Said(
                    sentence=self._core.why(self._c.reason),
                    figures=figures,
                    ladder=self.ladder,
                    budget=self.budget,
                    preset=self.preset,
                    reading=self._reading,
                    now_s=now_s,
                    running_s=0.0 if self._began_s is None else now_s - self._began_s,
                    most_switches=self._core.max_switches,
                )
            )

    def _as_at(self, level: Level, latency_ms: float, k: float, tokens: float) -> float:
        """A latency seen at another setting, scaled to the present one by the profile."""
        for other in self.levels:
            if other.k == k and other.tokens == tokens:
                scaled = latency_ms * level.p50_ms / other.p50_ms
                return scaled if math.isfinite(scaled) else latency_ms
        return latency_ms

    def _chosen(self) -> Choice:
        level = self.levels[self._c.level]
        return Choice(level.k, level.tokens, self._c.reason.name.lower().replace("_", "-"))

    def _step(self, inputs: Inputs) -> None:
        self._last = inputs
        self._began_s = inputs.now_s if self._began_s is None else self._began_s
        self._queries = 0
        self._busy_ms = self._search_ms = 0.0
        self._c.step(inputs)

    def _catch_up(self, now_s: float) -> None:
        """For a robot that asks seldom: the steps since the last one by the power that the sampler
        kept meanwhile, as if they had been made then."""
        sampler = self.telemetry if self._c.kind is Kind.POWER else None
        begun = self._next_s > -math.inf
        if sampler is None or not begun or now_s - self._last.now_s <= _PAUSE_S:
            return
        for point in sampler.history():
            at_s = point.time_s
            if point.power_mw is not None and self._last.now_s + STEP_S <= at_s < now_s:
                inputs = self._demand(at_s)
                inputs.power_mw = point.power_mw
                self._step(inputs)

    def _demand(self, now_s: float) -> Inputs:
        """The queries since the last step."""
        return Inputs(
            now_s,
            queries=float(self._queries),
            busy_ms=self._busy_ms,
            search_ms=self._search_ms,
        )

    def _inputs(self, now_s: float) -> Inputs:
        inputs = self._demand(now_s)
        if self.telemetry is None:
            return inputs
        snapshot = self.telemetry.latest()
        total, hottest = self._power(snapshot, now_s), snapshot.hottest
        self._reading = hottest if self._c.kind is Kind.TEMPERATURE else total
        if total.value is not None:
            inputs.power_mw, inputs.power_age_s = total.value, total.age_s(now_s)
        if hottest.value is not None:
            inputs.temperature_c = hottest.value
            inputs.temperature_age_s = hottest.age_s(now_s)
        joules, age_s = self._battery(snapshot.battery_energy, snapshot.readings, now_s)
        inputs.battery_mj, inputs.battery_age_s = joules * 1000.0, age_s
        if self._c.kind is Kind.BATTERY and math.isnan(joules):
            self._reading = self._unknown_energy(snapshot)
        return inputs

    def _power(self, snapshot: Snapshot, now_s: float) -> Reading:
        """The total; for a battery's budget what it gives, motors and all, if it tells."""
        if self._c.kind is not Kind.BATTERY:
            return snapshot.total
        gauges = {one.source for one in snapshot.readings if one.role in _GAUGED}
        given = (r for r in snapshot.readings if r.role is Role.TOTAL and r.source in gauges)
        gauge = next((r for r in given if r.condition not in _TELLS_NO_POWER), None)
        if gauge is None:
            return snapshot.total
        if gauge.ok or gauge.condition is Condition.STUCK:
            self._gauge_s = gauge.taken_s
        return gauge if abs(now_s - self._gauge_s) < _GAUGE_S else snapshot.total

    def _unknown_energy(self, snapshot: Snapshot) -> Reading:
        """The battery's energy, which is not known, and what to do where its percentage is."""
        energy = snapshot.battery_energy
        percent = any(one.role is Role.BATTERY_CHARGE and one.ok for one in snapshot.readings)
        if energy.condition is not Condition.ABSENT or not percent:
            return energy
        remedy = 'the gauge tells percent only: give its size, as in "battery:2h@50Wh"'
        return energy.without_value(energy.condition, remedy)

    def _battery(
        self, energy: Reading, readings: tuple[Reading, ...], now_s: float
    ) -> tuple[float, float]:
        """Joules left: as the gauge says, or its percentage of the size that the user gave."""
        if energy.value is not None:
            return energy.value, energy.age_s(now_s)
        if self.budget is not None and self.budget.battery_wh is not None:
            for reading in readings:
                if reading.role is Role.BATTERY_CHARGE and reading.value is not None:
                    size_j = self.budget.battery_wh * 3600.0
                    return reading.value / 100.0 * size_j, reading.age_s(now_s)
        return math.nan, 0.0

"""`Governor`: what `Localizer(k="auto", budget=...)` asks before every query.

In: the artifact's measured profile, a budget or a preset, telemetry, and the latency of every
query. Out: k and tokens, and one sentence that says why. The decisions are `Policy`'s; this joins
them to sensors, to a clock and to the threads of a `Localizer`.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tatvpr_edge.runtime.governor.budget import Budget, Kind
from tatvpr_edge.runtime.governor.ladder import Level, ladder_from_profile, nearest_level
from tatvpr_edge.runtime.governor.policy import Inputs, Policy, Reason, Tuning
from tatvpr_edge.runtime.telemetry import Reading, Sampler
from tatvpr_edge.spec.errors import UsageError

__all__ = ["PRESETS", "Choice", "Governor"]

PRESETS = ("turbo", "battery-saver")
STEP_S = 0.25
_NEEDS_SENSORS = (Kind.POWER, Kind.TEMPERATURE, Kind.BATTERY)


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting for the next query."""

    k: float
    tokens: float
    reason: str
    """Name of the rule that decided; `Governor.why` says it in a sentence."""


class Governor:
    """Chooses k and tokens for the next query.

    Args:
        profile: the manifest's ``profile``, or None where there is none.
        budget: the limit to hold, as a `Budget` or in its written form ("5W").
        preset: "turbo" or "battery-saver". With a budget: use it to the last percent, or aim a
            fifth below it. Without one: always the largest, or always the smallest setting.
        safe_k: the k without telemetry; the smallest measured k by default.
        telemetry: a sampler; where the budget needs one and none is given, one is started here
            and belongs to this object.
        k_range: the k for which the artifact was built; others are never chosen.
        clock: monotonic seconds, the same as the sampler's.

    Raises:
        UsageError: neither budget nor preset, or an argument outside its range.
        ArtifactError: the profile is malformed.
    """

    def __init__(
        self,
        profile: Mapping[str, Any] | None = None,
        budget: Budget | str | None = None,
        preset: str | None = None,
        safe_k: float | None = None,
        telemetry: Sampler | None = None,
        k_range: tuple[float, float] = (0.0, 1.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if preset is not None and preset not in PRESETS:
            raise UsageError(f"preset {preset!r} is unknown: choose {' or '.join(PRESETS)}")
        if isinstance(budget, str):
            budget = Budget.parse(budget)
        if budget is None and preset is None:
            raise UsageError(
                'k="auto" needs a budget such as "5W", "0.2J", "40ms", "70C" or "battery:2h", '
                f"or a preset ({', '.join(PRESETS)})"
            )
        self.budget = budget
        self.preset = preset
        self.levels, self.measured = ladder_from_profile(profile, k_range)
        safe = 0 if safe_k is None else nearest_level(self.levels, safe_k)
        kind = Kind.NONE if budget is None else budget.kind
        self._policy = Policy(
            self.levels,
            kind,
            0.0 if budget is None else budget.limit,
            safe=safe,
            preset=len(self.levels) - 1 if preset == "turbo" else 0,
            tuning=_tuning(preset),
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._owned = telemetry is None and kind in _NEEDS_SENSORS
        self.telemetry = Sampler(clock=clock) if self._owned else telemetry
        if self._owned and self.telemetry is not None:
            self.telemetry.start()
        self._queries = 0
        self._busy_ms = 0.0
        self._next_s = -math.inf
        self._last = Inputs(0.0)
        self._reading: Reading | None = None
        self._choice = self._chosen()
        _LIVE.add(self)

    def __enter__(self) -> Governor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the sampler that this object started."""
        if self._owned and self.telemetry is not None:
            self.telemetry.stop()

    @property
    def safe(self) -> Level:
        """The setting without telemetry."""
        return self.levels[self._policy.safe]

    @property
    def reason(self) -> Reason:
        """The rule that decided last."""
        return self._policy.reason

    def choose(self, now_s: float | None = None) -> Choice:
        """The setting for the next query; decided anew four times a second, else the last one."""
        now_s = self._clock() if now_s is None else now_s
        if 0.0 <= self._next_s - now_s <= STEP_S:  # not so far ahead that the clock went back
            return self._choice
        with self._lock:
            if 0.0 <= self._next_s - now_s <= STEP_S:  # another thread has just decided
                return self._choice
            self._next_s = now_s + STEP_S
            self._last = self._inputs(now_s)
            self._queries, self._busy_ms = 0, 0.0
            self._policy.step(self._last)
            self._choice = self._chosen()
            return self._choice

    def observe(self, latency_ms: float, k: float, tokens: float = 1.0) -> None:
        """Tells what a query took. Queries made at another setting count as demand only."""
        if not (math.isfinite(latency_ms) and latency_ms >= 0):
            raise UsageError(f"a latency of {latency_ms} ms: give a finite number from 0 up")
        with self._lock:
            level = self.levels[self._policy.level]
            if k != level.k or tokens != level.tokens:
                latency_ms = self._as_at(level, latency_ms, k, tokens)
            self._queries += 1
            self._busy_ms += latency_ms

    def why(self) -> str:
        """One paragraph: the choice, the budget, what was measured, what a higher k would need."""
        with self._lock:
            return _explain(self)

    def _as_at(self, level: Level, latency_ms: float, k: float, tokens: float) -> float:
        """A latency seen at another setting, scaled to the present one by the profile."""
        for other in self.levels:
            if other.k == k and other.tokens == tokens:
                scaled = latency_ms * level.p50_ms / other.p50_ms
                return scaled if math.isfinite(scaled) else latency_ms
        return latency_ms

    def _chosen(self) -> Choice:
        level = self.levels[self._policy.level]
        return Choice(level.k, level.tokens, self._policy.reason.name.lower().replace("_", "-"))

    def _inputs(self, now_s: float) -> Inputs:
        inputs = Inputs(now_s, queries=float(self._queries), busy_ms=self._busy_ms)
        if self.telemetry is None:
            return inputs
        snapshot = self.telemetry.latest()
        total, hottest = snapshot.total, snapshot.hottest
        self._reading = hottest if self._policy.kind is Kind.TEMPERATURE else total
        if total.value is not None:
            inputs.power_mw, inputs.power_age_s = total.value, total.age_s(now_s)
        if hottest.value is not None:
            inputs.temperature_c = hottest.value
            inputs.temperature_age_s = hottest.age_s(now_s)
        joules, age_s = self._battery(snapshot.battery_energy, snapshot.readings, now_s)
        inputs.battery_mj, inputs.battery_age_s = joules * 1000.0, age_s
        return inputs

    def _battery(
        self, energy: Reading, readings: tuple[Reading, ...], now_s: float
    ) -> tuple[float, float]:
        """Joules left: as the gauge says, or its percentage of the size that the user gave."""
        if energy.value is not None:
            return energy.value, energy.age_s(now_s)
        if self.budget is not None and self.budget.battery_wh is not None:
            for reading in readings:
                if reading.role.value == "battery-charge" and reading.value is not None:
                    size_j = self.budget.battery_wh * 3600.0
                    return reading.value / 100.0 * size_j, reading.age_s(now_s)
        return math.nan, 0.0


_LIVE: weakref.WeakSet[Governor] = weakref.WeakSet()


def _after_fork() -> None:
    # A thread of the parent may have held the lock, and holds it for ever here. The sampler
    # starts its own thread anew.
    for governor in list(_LIVE):
        governor._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _tuning(preset: str | None) -> Tuning:
    if preset == "turbo":
        return replace(Tuning(), margin=0.01, up_wait_s=2.0)
    if preset == "battery-saver":
        return replace(Tuning(), margin=0.2, up_wait_s=15.0)
    return Tuning()


_SAID = {
    Reason.START: "starting: not enough has been measured yet",
    Reason.WITHIN: "within budget, and the next higher setting would not fit",
    Reason.BEST: "within budget at the highest setting",
    Reason.ROOM: "raised, because the budget has room",
    Reason.OVER: "lowered, because the budget was exceeded",
    Reason.IMPOSSIBLE: "the budget cannot be held: even the smallest setting exceeds it",
    Reason.NO_TELEMETRY: "no telemetry: this is the stated safe setting",
    Reason.SWITCH_LIMIT: "another setting would be better, but the last minute had its switches",
    Reason.SETTLING: "just switched: waiting for the sensors to see it",
    Reason.WAITING: "a higher setting would fit: waiting until that is sure",
    Reason.PRESET: "by preset, without a budget",
    Reason.NO_COST: "an energy budget needs measured energies, which the profile lacks: this is "
    "the stated safe setting",
}


def _explain(governor: Governor) -> str:
    policy = governor._policy
    level = governor.levels[policy.level]
    parts = [f"{level.text()}: {_SAID[policy.reason]}"]
    if governor.budget is not None:
        parts.append(f"budget {governor.budget}")
    elif governor.preset is not None:
        parts.append(f"preset {governor.preset}")
    if policy.kind is Kind.BATTERY and policy.started and policy.reason is not Reason.NO_TELEMETRY:
        parts.append(f"which leaves {policy.limit / 1000:.2f} W")
    parts += _measured(governor)
    higher = policy.level + 1
    if policy.reason in (Reason.WITHIN, Reason.WAITING, Reason.SWITCH_LIMIT) and higher < policy.n:
        parts += _next_level(governor, higher)
    if policy.kind is not Kind.NONE:
        count = policy.recent_switches(governor._last.now_s)
        parts.append(f"{count} of at most 6 switches in the last minute")
    if not governor.measured:
        parts.append(
            "the artifact carries no measured profile (run 'tatvpr-edge profile'): "
            "settings are found by trial, one step at a time"
        )
    return "; ".join(parts)


def _measured(governor: Governor) -> list[str]:
    policy, last, reading = governor._policy, governor._last, governor._reading
    if policy.kind is Kind.LATENCY:
        if policy.sum_seen <= 0:
            return ["no query seen yet"]
        mean = f"measured {policy.sum_seen_ms / policy.sum_seen:.1f} ms a query"
        if policy.latencies_known:
            return [f"{mean}, {policy.ratio:.2f} times the profile"]
        return [mean]
    if policy.kind is Kind.ENERGY:
        energy_mj = policy.cost_mj[policy.level] * policy.gain
        return [f"{energy_mj:.0f} mJ a query by the profile"] if math.isfinite(energy_mj) else []
    if policy.kind is Kind.NONE:
        return []
    if reading is None:
        return ["no sensor"]
    if reading.value is None:
        return [f"{reading.source} {reading.name} is {reading.text()}"]
    said = [
        f"measured {reading.text()} ({reading.source} {reading.name}, {reading.covers or 'zone'}"
        f", {reading.age_s(last.now_s):.1f} s old)"
    ]
    if policy.kind is not Kind.TEMPERATURE and policy.costs_known:
        said.append(
            f"of which queries {policy.query_mw(policy.level) / 1000:.2f} W "
            f"at {policy.rate_hz():.1f} a second"
        )
    return said


def _next_level(governor: Governor, higher: int) -> list[str]:
    policy = governor._policy
    text = governor.levels[higher].text()
    if governor._last.now_s < policy.block_until_s and higher >= policy.block_level:
        left_s = policy.block_until_s - governor._last.now_s
        return [f"{text} was tried and failed, and is barred for {left_s:.0f} s"]
    load = policy.peak()
    if policy.kind is Kind.TEMPERATURE or not math.isfinite(load):
        return []
    value = policy.predicted(higher, load)
    if not math.isfinite(value):
        return []
    if policy.kind is Kind.LATENCY:
        return [f"{text} would need {value:.1f} ms"]
    if policy.kind is Kind.ENERGY:
        return [f"{text} would need {value:.0f} mJ"]
    return [f"{text} would need {value / 1000:.2f} W"]

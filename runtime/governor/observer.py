"""What the governor knows: its state, how measurements change it, and what they predict.

Mirrors ``runtime/core/governor/tatvpr_governor_observer.c``; the decisions are in ``policy.py``,
whose text explains the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tatvpr_edge.runtime.governor.budget import Kind
from tatvpr_edge.runtime.governor.ladder import MAX_LEVELS, Level
from tatvpr_edge.spec.errors import UsageError

__all__ = ["MAX_SWITCHES", "PEAKS", "Inputs", "Observer", "Reason", "Tuning"]

NAN = math.nan
PEAKS = 6
MAX_SWITCHES = 6  # in a minute, for any reason; the last one is kept for the safe level
SWITCH_WINDOW_S = 60.0


class Reason(IntEnum):
    """Why the level is what it is, numbered as in tatvpr_governor.h."""

    START = 0  # not enough seen yet
    WITHIN = 1  # the budget holds and a higher level would not fit
    BEST = 2  # the highest level, and the budget holds
    ROOM = 3  # went up
    OVER = 4  # went down
    IMPOSSIBLE = 5  # the smallest level exceeds the budget
    NO_TELEMETRY = 6  # the safe level
    SWITCH_LIMIT = 7  # would switch, but has done so too often in the last minute
    SETTLING = 8  # waits for the sensors to see the last switch
    WAITING = 9  # a higher level would fit; waits until that is sure
    PRESET = 10  # no budget: the preset's level
    NO_COST = 11  # an energy budget without measured energies: the safe level


@dataclass(frozen=True, slots=True)
class Tuning:
    """Every constant of the policy, in the order of tatvpr_governor_tuning."""

    margin: float = 0.03  # aims this share below the limit
    fast_over: float = 1.08  # filtered power above this multiple of the limit: down at once
    stale_s: float = 2.0  # older power and temperature are no telemetry
    battery_stale_s: float = 90.0  # fuel gauges are slow
    settle_s: float = 2.0  # sensors lag at most this long behind a switch
    up_wait_s: float = 5.0
    step_wait_s: float = 15.0  # the same where the effect cannot be predicted
    peak_hold_s: float = 30.0
    quick_tau_s: float = 0.5
    power_tau_s: float = 1.5  # long enough to even out single queries
    slow_tau_s: float = 6.0
    most_stretch: float = 6.0  # the filters above are at most this much longer for rare queries
    rate_tau_s: float = 8.0
    debt_down_s: float = 0.6  # a debt of this many seconds of the budget: down
    debt_cap_s: float = 3.0
    debt_repay_s: float = 30.0
    fail_window_s: float = 90.0  # an up-move undone within this was a mistake
    step_fail_window_s: float = 600.0
    block_s: float = 30.0
    block_cap_s: float = 3600.0
    lead_s: float = 10.0  # temperature is judged this far ahead
    hysteresis_c: float = 3.0
    cool_wait_s: float = 8.0  # between two steps down for temperature
    gap_s: float = 10.0  # a longer pause between steps forgets the filters
    battery_floor_s: float = 60.0  # the last minute is not divided by less than this


@dataclass(slots=True)
class Inputs:
    """What was measured since the last step; NaN stands for "no such reading"."""

    now_s: float
    power_mw: float = NAN
    power_age_s: float = 0.0
    temperature_c: float = NAN
    temperature_age_s: float = 0.0
    battery_mj: float = NAN
    battery_age_s: float = 0.0
    queries: float = 0.0
    busy_ms: float = 0.0


class Observer:
    """State, filters and predictions; see `Policy` for arguments and errors."""

    def __init__(
        self,
        levels: Sequence[Level],
        kind: Kind,
        limit: float,
        safe: int = 0,
        preset: int = 0,
        tuning: Tuning | None = None,
    ) -> None:
        n = len(levels)
        if not 1 <= n <= MAX_LEVELS:
            raise UsageError(f"a governor has 1 to {MAX_LEVELS} levels, not {n}")
        if kind is not Kind.NONE and not (math.isfinite(limit) and limit > 0):
            raise UsageError(f"a limit of {limit}: give a finite number above 0")
        if not (0 <= safe < n and 0 <= preset < n):
            raise UsageError(f"safe level {safe} and preset level {preset} lie outside 0..{n - 1}")
        self.t = tuning or Tuning()
        self.n = n
        self.kind = kind
        self.budget = limit
        self.safe = safe
        self.preset = preset
        self.cost_mj = [level.energy_mj for level in levels]
        self.p50_ms = [level.p50_ms for level in levels]
        self.p95_ms = [level.p95_ms for level in levels]
        self.costs_known = all(math.isfinite(x) for x in self.cost_mj)
        self.latencies_known = all(
            math.isfinite(x) and math.isfinite(y)
            for x, y in zip(self.p50_ms, self.p95_ms, strict=True)
        )
        self.level = safe
        self.reason = Reason.START
        self.started = False
        self.start_s = 0.0
        self.last_s = 0.0
        self.limit = 0.0 if kind == Kind.BATTERY else limit  # a battery's changes with time
        # Demand: decayed sums of queries, busy time and seconds.
        self.sum_queries = 0.0
        self.sum_busy_ms = 0.0
        self.sum_s = 0.0
        # Latency against the profile: decayed sums of seen and expected.
        self.sum_seen_ms = 0.0
        self.sum_expected_ms = 0.0
        self.sum_seen = 0.0
        self.ratio = 1.0
        # Power: decayed sums of three speeds.
        self.seen_s = -math.inf
        self.temperature_seen_s = -math.inf
        self.battery_seen_s = -math.inf
        self.battery_mj = 0.0
        self.stretch = 1.0
        self.quick_sum = 0.0
        self.quick_s = 0.0
        self.fast_sum = 0.0
        self.fast_s = 0.0
        self.slow_sum = 0.0
        self.slow_s = 0.0
        self.quick = NAN
        self.filtered = NAN
        self.slow = NAN
        self.debt = 0.0
        self.gain = 1.0
        self.moved_s = -math.inf  # when power last moved by itself
        # Temperature: two decayed means, whose difference is the slope.
        self.heat_fast = NAN
        self.heat_slow = NAN
        self.ahead_c = NAN
        # Highest base (or latency ratio) of the last half minute.
        self.peaks = [-math.inf] * PEAKS
        self.peak_at = 0
        self.peak_until_s = 0.0
        # Switching.
        self.switches = [-math.inf] * MAX_SWITCHES
        self.switch_at = 0
        self.settle_until_s = -math.inf
        self.up_since_s = NAN
        self.fresh = True
        self.raised_s = -math.inf
        self.raised_to = -1
        self.fails = 0
        self.block_level = n
        self.block_until_s = -math.inf
        self.learning = False
        self.before_mw = 0.0
        self.before_query_mw = 0.0

    # -- predictions --------------------------------------------------------------------------

    def rate_hz(self) -> float:
        """Queries a second, over the last seconds."""
        return self.sum_queries / self.sum_s if self.sum_s > 0 else 0.0

    def query_mw(self, level: int) -> float:
        """Power that queries draw at a level, by the profile and the learned gain."""
        return self.gain * self._rate_at(level) * self.cost_mj[level]

    def predicted(self, level: int, load: float) -> float:
        """The governed quantity at a level, under a load (base power or latency ratio)."""
        if self.kind == Kind.LATENCY:
            return load * self.p95_ms[level]
        if self.kind == Kind.ENERGY:
            return load * self.cost_mj[level]
        return load + self.query_mw(level)

    def peak(self) -> float:
        """The highest load of the last half minute."""
        highest = self.peaks[0]
        for i in range(1, PEAKS):
            if self.peaks[i] > highest:
                highest = self.peaks[i]
        return highest

    def recent_switches(self, now_s: float) -> int:
        """Switches in the last minute."""
        count = 0
        for i in range(MAX_SWITCHES):
            if now_s - self.switches[i] < SWITCH_WINDOW_S:
                count += 1
        return count

    def limit_now(self) -> float:
        """The limit in force: a battery's follows from what is left in it."""
        return self.limit if self.kind == Kind.BATTERY else self.budget

    def _highest(self, load: float, target: float) -> int:
        """The highest level whose prediction fits; 0 where none does."""
        for level in range(self.n - 1, 0, -1):
            if self.predicted(level, load) <= target:
                return level
        return 0

    def _rate_at(self, level: int) -> float:
        """Queries a second if the level were another: a saturated board is limited by latency."""
        rate = self.rate_hz()
        if not self.latencies_known or self.sum_s <= 0.0:
            return rate
        busy = self.sum_busy_ms / (1000.0 * self.sum_s)
        if busy > 0.9:
            return rate * self.p50_ms[self.level] / self.p50_ms[level]
        most = 1000.0 / (self.p50_ms[level] * self.ratio)
        return most if rate > most else rate

    # -- taking in ----------------------------------------------------------------------------

    def _advance(self, now_s: float) -> float:
        if not self.started:
            self.started = True
            self.start_s = now_s
            self.last_s = now_s
            return 0.0
        dt = now_s - self.last_s
        self.last_s = now_s
        if dt < 0.0:
            # The clock went back: every remembered time is worthless. Switches of the last minute
            # are counted as if made just now, so that the bound holds whatever the clock does.
            for i in range(MAX_SWITCHES):
                if self.switches[i] > -math.inf:
                    self.switches[i] = now_s
            self.start_s += dt
            self.settle_until_s = -math.inf
            self.raised_s = -math.inf
            self.block_until_s = now_s
            self.seen_s = -math.inf
            self.temperature_seen_s = -math.inf
            self.battery_seen_s = -math.inf
            self._forget(now_s)
            return 0.0
        if dt > self.t.gap_s:
            self._forget(now_s)
            return 0.0
        return dt

    def _forget(self, now_s: float) -> None:
        """Filters start anew: what they hold is about another time."""
        self.quick_sum = self.quick_s = 0.0
        self.fast_sum = self.fast_s = self.slow_sum = self.slow_s = 0.0
        self.quick = self.filtered = self.slow = NAN
        self.heat_fast = self.heat_slow = NAN
        self.up_since_s = NAN
        self.learning = False
        self.fresh = True
        for i in range(PEAKS):
            self.peaks[i] = -math.inf
        self.peak_until_s = now_s

    def _take_demand(self, x: Inputs, dt: float) -> None:
        keep = self.t.rate_tau_s / (self.t.rate_tau_s + dt)
        self.sum_queries = self.sum_queries * keep + x.queries
        self.sum_busy_ms = self.sum_busy_ms * keep + x.busy_ms
        self.sum_s = self.sum_s * keep + dt
        if x.queries > 0.0:
            # Latency decays by queries, not by time: three queries are three queries.
            keep = 1.0 / (1.0 + x.queries / 8.0)
            self.sum_seen_ms = self.sum_seen_ms * keep + x.busy_ms
            self.sum_seen = self.sum_seen * keep + x.queries
            if self.latencies_known:
                self.sum_expected_ms = (
                    self.sum_expected_ms * keep + x.queries * self.p50_ms[self.level]
                )
                self.ratio = self.sum_seen_ms / self.sum_expected_ms

    def _take_power(self, x: Inputs, dt: float) -> None:
        fit = math.isfinite(x.power_mw) and x.power_mw >= 0.0 and x.power_age_s <= self.t.stale_s
        if not fit:
            return
        if self.kind == Kind.POWER or self.kind == Kind.BATTERY:
            self.debt += (x.power_mw - self.limit) * dt
            cap = self.t.debt_cap_s * self.limit
            if self.debt < 0.0:
                self.debt = 0.0
            if self.debt > cap:
                self.debt = cap
        self.seen_s = x.now_s - x.power_age_s
        if x.now_s < self.settle_until_s:
            return
        # Where queries are rare, the filters have to be long enough to even them out.
        rate, stretch = self.rate_hz(), 1.0
        if rate > 0.0 and 2.0 / rate > self.t.power_tau_s:
            stretch = 2.0 / (rate * self.t.power_tau_s)
            if stretch > self.t.most_stretch:
                stretch = self.t.most_stretch
        self.stretch = stretch
        tau_s = self.t.quick_tau_s * stretch
        keep = tau_s / (tau_s + dt)
        self.quick_sum = self.quick_sum * keep + x.power_mw * dt
        self.quick_s = self.quick_s * keep + dt
        tau_s = self.t.power_tau_s * stretch
        keep = tau_s / (tau_s + dt)
        self.fast_sum = self.fast_sum * keep + x.power_mw * dt
        self.fast_s = self.fast_s * keep + dt
        tau_s = self.t.slow_tau_s * stretch
        keep = tau_s / (tau_s + dt)
        self.slow_sum = self.slow_sum * keep + x.power_mw * dt
        self.slow_s = self.slow_s * keep + dt
        if self.fast_s > 0.0:
            self.quick = self.quick_sum / self.quick_s
            self.filtered = self.fast_sum / self.fast_s
            self.slow = self.slow_sum / self.slow_s
            if abs(self.filtered - self.slow) > 0.05 * self.slow:
                self.moved_s = x.now_s

    def _take_temperature(self, x: Inputs, dt: float) -> None:
        if not math.isfinite(x.temperature_c) or x.temperature_age_s > self.t.stale_s:
            return
        self.temperature_seen_s = x.now_s - x.temperature_age_s
        if not math.isfinite(self.heat_fast):
            self.heat_fast = self.heat_slow = x.temperature_c
        self.heat_fast += (x.temperature_c - self.heat_fast) * (dt / (3.0 + dt))
        self.heat_slow += (x.temperature_c - self.heat_slow) * (dt / (12.0 + dt))
        # A mean with time constant tau lags a ramp by tau times its slope.
        slope = (self.heat_fast - self.heat_slow) / 9.0
        self.ahead_c = self.heat_fast + slope * (3.0 + self.t.lead_s)

    def _take_battery(self, x: Inputs) -> None:
        if self.kind != Kind.BATTERY:
            return
        if math.isfinite(x.battery_mj) and x.battery_mj >= 0.0:
            self.battery_seen_s = x.now_s - x.battery_age_s
            self.battery_mj = x.battery_mj
        left_s = self.start_s + self.budget - x.now_s
        if left_s > 0.0:  # afterwards, the last limit stays
            floor_s = self.t.battery_floor_s
            self.limit = self.battery_mj / (left_s if left_s > floor_s else floor_s)

    def _note_peak(self, now_s: float, load: float) -> None:
        if now_s >= self.peak_until_s:
            self.peak_at = (self.peak_at + 1) % PEAKS
            self.peaks[self.peak_at] = -math.inf
            self.peak_until_s = now_s + self.t.peak_hold_s / PEAKS
        if load > self.peaks[self.peak_at]:
            self.peaks[self.peak_at] = load

    def _learn(self) -> None:
        """The gain from a switch that nothing else disturbed: measured over expected change."""
        self.learning = False
        expected = self._rate_at(self.level) * self.cost_mj[self.level] - self.before_query_mw
        if abs(expected) < 0.05 * self.slow:
            return
        seen = (self.slow - self.before_mw) / expected
        if seen < 0.5:
            seen = 0.5
        if seen > 2.0:
            seen = 2.0
        self.gain += 0.5 * (seen - self.gain)

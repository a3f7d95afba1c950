"""The governor's decisions as pure logic: numbers in, a level out.

`Policy.step` is called a few times a second with what was measured since the last call. It knows
no sensor, no clock and no thread, allocates nothing, and is the same, operation by operation in
IEEE double, as ``runtime/core/governor/tatvpr_governor.c``; one table of inputs and decisions
tests both.

How a power budget is held. With the profile's energy per query ``E(level)``, the measured rate of
queries ``r`` and the filtered power ``P``, everything else that draws power is
``base = P - gain * r * E(level)``, and a level's power is predicted as ``base + gain * r * E``
(feed-forward). ``base`` follows the measurement and ``gain`` is learned from calm switches
(feedback). Going down is immediate and goes straight to the level that fits. Going up needs the
highest base of the last 30 s to fit, for several seconds; a level that was tried and failed is
barred for a time that doubles. Switches are counted: never more than six in a minute, of which
going up may use four. Energy beyond the budget is a debt that is paid back before going up.

Temperature, and power without a profile, are held by single steps with the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tatvpr_edge.runtime.governor.budget import Kind
from tatvpr_edge.runtime.governor.ladder import MAX_LEVELS, Level
from tatvpr_edge.spec.errors import UsageError

__all__ = ["Inputs", "Policy", "Reason", "Tuning"]

NAN = math.nan
PEAKS = 6
MAX_SWITCHES = 6  # in a minute, for any reason; the last one is kept for the safe level
URGENT_SWITCHES = 5
UP_SWITCHES = 4
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


class Policy:
    """Chooses a level; see the module's text for the rules.

    Args:
        levels: 1 to 16 levels in ascending cost.
        kind: what ``limit`` bounds.
        limit: mW, mJ, ms, degrees, or seconds from the first step, by ``kind``.
        safe: the level without telemetry.
        preset: the level where there is no budget.

    Raises:
        UsageError: levels, limit or an index outside their range.
    """

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

    # -- what the outside calls ---------------------------------------------------------------

    def step(self, x: Inputs) -> int:
        """Takes in what was measured, and returns the level from now on."""
        dt = self._advance(x.now_s)
        self._take_demand(x, dt)
        self._take_battery(x)
        self._take_power(x, dt)
        self._take_temperature(x, dt)
        if self.kind == Kind.NONE:
            self.level = self.preset
            self.reason = Reason.PRESET
        elif self._lost(x.now_s):
            self._go_safe(x.now_s)
        elif self.kind == Kind.ENERGY and not self.costs_known:
            self._switch(self.safe, x.now_s, MAX_SWITCHES)
            self.reason = Reason.NO_COST
        elif x.now_s < self.settle_until_s:
            self.reason = Reason.SETTLING
        elif self.kind == Kind.TEMPERATURE:
            self._hold_temperature(x.now_s)
        elif self.kind == Kind.LATENCY:
            self._hold_latency(x.now_s)
        elif self.kind == Kind.ENERGY:
            self._hold_energy(x.now_s)
        else:
            self._hold_power(x.now_s)
        return self.level

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

    # -- deciding -----------------------------------------------------------------------------

    def _lost(self, now_s: float) -> bool:
        if self.kind == Kind.TEMPERATURE:
            return now_s - self.temperature_seen_s > self.t.stale_s
        if self.kind == Kind.BATTERY and now_s - self.battery_seen_s > self.t.battery_stale_s:
            return True
        if self.kind == Kind.POWER or self.kind == Kind.BATTERY:
            return now_s - self.seen_s > self.t.stale_s
        return False

    def _go_safe(self, now_s: float) -> None:
        self._forget(now_s)
        self.debt = 0.0
        self.reason = Reason.NO_TELEMETRY
        if not self._switch(self.safe, now_s, MAX_SWITCHES):
            self.reason = Reason.SWITCH_LIMIT

    def _hold_power(self, now_s: float) -> None:
        t = self.t
        if self.fast_s < 0.9 * self.stretch or (self.fresh and self.sum_s < 1.5):
            self.reason = Reason.START if self.fresh else Reason.SETTLING
            return
        # A single query may exceed the budget while it runs: that alone is no debt.
        allowed = t.debt_down_s * self.limit
        single = self.cost_mj[self.level] if self.costs_known else 0.0
        over = self.filtered > t.fast_over * self.limit or self.debt > allowed + single
        may_rise = self.debt <= 0.3 * allowed + single
        if not self.costs_known:
            self._step_by_step(now_s, over, self.filtered < 0.88 * self.limit and may_rise)
            return
        if self.learning and (over or self.slow_s >= 3.0 * self.stretch):
            self._learn()
        load = self.filtered - self.query_mw(self.level)
        if load < 0.0:
            load = 0.0
        self._note_peak(now_s, load)
        if over and self.quick - self.query_mw(self.level) > load:
            load = self.quick - self.query_mw(self.level)  # the filter lags behind a new load
        repay = self.debt / t.debt_repay_s
        if repay > 0.1 * self.limit:
            repay = 0.1 * self.limit
        target = self.limit * (1.0 - t.margin)
        self._choose(now_s, over, load, target - repay, target, may_rise)

    def _hold_latency(self, now_s: float) -> None:
        if self.sum_seen < 3.0:
            self.reason = Reason.START
            return
        target = self.budget * (1.0 - self.t.margin)
        if not self.latencies_known:
            mean_ms = self.sum_seen_ms / self.sum_seen
            self._step_by_step(now_s, mean_ms > self.budget, mean_ms < 0.6 * self.budget)
            return
        self._note_peak(now_s, self.ratio)
        over = self.ratio * self.p95_ms[self.level] > self.budget
        self._choose(now_s, over, self.ratio, target, target, True)

    def _hold_energy(self, now_s: float) -> None:
        if self.learning and self.slow_s >= 3.0 * self.stretch:
            self._learn()
        self._note_peak(now_s, self.gain)
        target = self.budget * (1.0 - self.t.margin)
        over = self.gain * self.cost_mj[self.level] > self.budget
        self._choose(now_s, over, self.gain, target, target, True)

    def _hold_temperature(self, now_s: float) -> None:
        t = self.t
        over = self.ahead_c > self.budget
        hot = now_s - self.switches[(self.switch_at + MAX_SWITCHES - 1) % MAX_SWITCHES]
        if over and hot < t.cool_wait_s:
            self.reason = Reason.SETTLING
            return
        self._step_by_step(now_s, over, self.ahead_c < self.budget - t.hysteresis_c)

    def _choose(
        self,
        now_s: float,
        over: bool,
        load: float,
        down_target: float,
        up_target: float,
        may_rise: bool,
    ) -> None:
        """Goes to the level that the prediction names, by the rules of switching."""
        if self.fresh:
            # After a start or a gap there is nothing to wait for: go where the prediction says.
            self.fresh = False
            best = self._highest(load, up_target)
            if best != self.level:
                self._go(best, now_s, Reason.ROOM if best > self.level else Reason.OVER, True)
                return
        if over:
            self.up_since_s = NAN
            if self.level == 0:
                self.reason = Reason.IMPOSSIBLE
                return
            best = self._highest(load, down_target)
            if best > self.level - 1:
                best = self.level - 1
            self._note_failure(now_s, self.t.fail_window_s)
            self._go(best, now_s, Reason.OVER, True)
            return
        best = self._highest(self.peak(), up_target)
        if now_s < self.block_until_s and best >= self.block_level:
            best = self.block_level - 1
        if best <= self.level or not may_rise:
            self.up_since_s = NAN
            self._stay(load)
            return
        self._rise(best, now_s, self.t.up_wait_s)

    def _step_by_step(self, now_s: float, over: bool, room: bool) -> None:
        """One level at a time, where the effect of a level is not known beforehand."""
        self.fresh = False
        if over:
            self.up_since_s = NAN
            if self.level == 0:
                self.reason = Reason.IMPOSSIBLE
                return
            self._note_failure(now_s, self.t.step_fail_window_s)
            self._go(self.level - 1, now_s, Reason.OVER, True)
            return
        best = self.level + 1
        blocked = now_s < self.block_until_s and best >= self.block_level
        if best >= self.n or not room or blocked:
            self.up_since_s = NAN
            self.reason = Reason.BEST if best >= self.n else Reason.WITHIN
            return
        self._rise(best, now_s, self.t.step_wait_s)

    def _rise(self, best: int, now_s: float, wait_s: float) -> None:
        if not math.isfinite(self.up_since_s):
            self.up_since_s = now_s
        if now_s - self.up_since_s < wait_s:
            self.reason = Reason.WAITING
            return
        self._go(best, now_s, Reason.ROOM, False)

    def _stay(self, load: float) -> None:
        if self.level == self.n - 1:
            self.reason = Reason.BEST
        elif self.level == 0 and self.predicted(0, load) > self.limit_now():
            self.reason = Reason.IMPOSSIBLE
        else:
            self.reason = Reason.WITHIN

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

    # -- switching ----------------------------------------------------------------------------

    def _go(self, level: int, now_s: float, reason: Reason, urgent: bool) -> None:
        rising = level > self.level
        most = URGENT_SWITCHES if urgent else UP_SWITCHES
        if not rising and self.recent_switches(now_s) == most - 1:
            level = 0  # the last switch down that this minute allows has to be enough
        if not self._switch(level, now_s, most):
            self.reason = Reason.SWITCH_LIMIT
            return
        self.reason = reason
        if rising:
            self.raised_s = now_s
            self.raised_to = self.level

    def _switch(self, level: int, now_s: float, most: int) -> bool:
        """Changes the level if the last minute had fewer than ``most`` switches."""
        if level == self.level:
            return True
        if self.recent_switches(now_s) >= most:
            return False
        calm = now_s - self.moved_s > self.t.slow_tau_s and self.slow_s > 2.0 * self.stretch
        self.learning = calm and self.costs_known
        if self.learning:
            self.before_mw = self.slow
            self.before_query_mw = self._rate_at(self.level) * self.cost_mj[self.level]
        self.level = level
        self.switches[self.switch_at] = now_s
        self.switch_at = (self.switch_at + 1) % MAX_SWITCHES
        self.settle_until_s = now_s + self.t.settle_s
        self.up_since_s = NAN
        self.quick_sum = self.quick_s = 0.0
        self.fast_sum = self.fast_s = self.slow_sum = self.slow_s = 0.0
        self.moved_s = -math.inf
        if not self.latencies_known:  # the old level's latencies say nothing about the new one
            self.sum_seen_ms = self.sum_seen = 0.0
        return True

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

    def _note_failure(self, now_s: float, window_s: float) -> None:
        """A level that was tried and had to be left is barred, each time for twice as long."""
        held_s = now_s - self.raised_s
        if self.level != self.raised_to:
            return
        if held_s > window_s:
            self.fails = 0
            return
        settled_s = self.raised_s + self.t.settle_s + 3.0
        power = self.kind == Kind.POWER or self.kind == Kind.BATTERY
        if power and self.costs_known and self.moved_s > settled_s:
            return  # another load came: the move itself was right
        if self.fails < 20:
            self.fails += 1
        bar_s = self.t.block_s
        for _ in range(self.fails - 1):
            bar_s *= 2.0
        if bar_s > self.t.block_cap_s:
            bar_s = self.t.block_cap_s
        self.block_level = self.level
        self.block_until_s = now_s + bar_s

    def _note_peak(self, now_s: float, load: float) -> None:
        if now_s >= self.peak_until_s:
            self.peak_at = (self.peak_at + 1) % PEAKS
            self.peaks[self.peak_at] = -math.inf
            self.peak_until_s = now_s + self.t.peak_hold_s / PEAKS
        if load > self.peaks[self.peak_at]:
            self.peaks[self.peak_at] = load

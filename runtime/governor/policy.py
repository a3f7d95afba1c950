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

from tatvpr_edge.runtime.governor.budget import Kind
from tatvpr_edge.runtime.governor.observer import (
    MAX_SWITCHES,
    NAN,
    Inputs,
    Observer,
    Reason,
    Tuning,
)

__all__ = ["Inputs", "Policy", "Reason", "Tuning"]

URGENT_SWITCHES = MAX_SWITCHES - 1
UP_SWITCHES = MAX_SWITCHES - 2


class Policy(Observer):
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

"""What to measure, and one run of it: its queries, the machine before and after, its validity."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tatvpr_edge.runtime.profiling.statistics import drift_of
from tatvpr_edge.runtime.telemetry import Conditions, Reading
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.limits import check_fraction

_MAX_DRIFT = 1.25
_MAX_CLOCK_LOSS = 0.10
_MAX_OTHERS = 0.2  # of all cores


@dataclass(frozen=True, order=True)
class Setting:
    """One k and tokens to measure."""

    k: float
    tokens: float = 1.0

    def text(self) -> str:
        """For people."""
        return f"k={self.k:g}" if self.tokens == 1.0 else f"k={self.k:g}, tokens={self.tokens:g}"


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Args:
        settings: what to measure, in this order.
        warmup: queries before the first that counts, at every setting.
        repeats: queries that count, at least.
        seconds: and for at least this long;
        power_seconds: the same where power is readable, because sensors are slow; a run lasts
            longer, to 100 s, where power is read so seldom that this were too few readings.
        idle_s: as long, or longer as runs do, the idle board is watched, before and after, where
            power is readable.
        attempts: how often a setting is tried whose run was throttled or disturbed.
        layers: whether one traced query a setting tells the time of every layer.

    Raises:
        UsageError: a number outside its range.
    """

    settings: tuple[Setting, ...] = (Setting(1.0), Setting(0.6), Setting(0.4), Setting(0.2))
    warmup: int = 10
    repeats: int = 100
    seconds: float = 0.0
    power_seconds: float = 5.0
    idle_s: float = 3.0
    attempts: int = 3
    layers: bool = True

    def __post_init__(self) -> None:
        if not self.settings:
            raise UsageError("nothing to profile: give at least one k")
        if len(set(self.settings)) != len(self.settings):
            raise UsageError("a setting to profile is named twice: give each k and tokens once")
        for setting in self.settings:
            check_fraction(setting.k, "k")
            check_fraction(setting.tokens, "tokens")
        for name, low, high in (
            ("warmup", 0, 10_000),
            ("repeats", 1, 100_000),
            ("seconds", 0, 100),
            ("power_seconds", 0, 100),
            ("idle_s", 0, 60),
            ("attempts", 1, 10),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}: give {low} to {high}")


@dataclass
class Run:
    """Queries of one attempt: their times, and the machine before and after."""

    start_s: float
    end_s: float
    starts_s: list[float]
    latencies_ms: list[float]
    before: Conditions
    after: Conditions
    hot_before: Reading
    hot_after: Reading
    others_cores: float | None
    """How many cores other programs kept busy meanwhile."""

    def busy(self) -> bool:
        """Whether other programs used the processor, and nothing worse happened."""
        return bool(self._others()) and not self._spoilt()

    def invalid(self) -> str:
        """Why this run does not count; empty if it does."""
        return "; ".join([*self._spoilt(), *self._others(), *self._drifted()])

    def _others(self) -> list[str]:
        cores = os.cpu_count() or 1
        if self.others_cores is None or self.others_cores <= _MAX_OTHERS * cores:
            return []
        return [f"other programs used {self.others_cores:.1f} of {cores} cores"]

    def _drifted(self) -> list[str]:
        drift = drift_of(self.latencies_ms)
        if drift <= _MAX_DRIFT:
            return []
        return [
            f"latency rose by {100 * (drift - 1):.0f} % within the run "
            "(throttled, or another program ran)"
        ]

    def _spoilt(self) -> list[str]:
        """What makes the figures those of another machine: throttling, another mode or clock."""
        reasons = []
        counts = self.before.throttle_count, self.after.throttle_count
        if counts[0] is not None and counts[1] is not None and counts[1] > counts[0]:
            reasons.append(f"{counts[1] - counts[0]} thermal throttle events")
        reasons += self.after.throttled_now
        if self.before.clock_mhz and self.after.clock_mhz:
            first, last = max(self.before.clock_mhz), max(self.after.clock_mhz)
            if last < (1.0 - _MAX_CLOCK_LOSS) * first:
                reasons.append(f"the clock fell from {first:.0f} to {last:.0f} MHz")
        if self.before.power_mode != self.after.power_mode:
            reasons.append(
                f"the power mode changed from {self.before.power_mode} to {self.after.power_mode}"
            )
        return reasons

"""What the governor's rules are tried on: a governor and its clock, and worlds around it.

Used by the rules of `governor_rules` and `governor_rules_switching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from governor_scenarios import NAN, PROFILE

from tatvpr_edge.runtime.governor import (
    CGovernor,
    GovernorCore,
    Inputs,
    Kind,
    Level,
    Preference,
    Reason,
)

LEVELS = PROFILE  # what the scenarios are played with
STEP_S = 0.25
TEN = tuple(Level((i + 1) / 10.0, 1.0) for i in range(10))
World = Callable[[int], dict[str, float]]
Rule = Callable[[GovernorCore], None]
RULES: list[Rule] = []
#: What is done to every governor before it begins: nothing, or one of its constants is changed.
TAMPER: Callable[[CGovernor], object] = str


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


class Bench:
    """A governor and its clock; a world says what is measured at a level, once a step."""

    def __init__(
        self,
        core: GovernorCore,
        kind: Kind,
        limit: float,
        levels: Sequence[Level] = LEVELS,
        safe: int = 0,
        preference: Preference = Preference.BALANCED,
        step_s: float = STEP_S,
    ) -> None:
        self.governor = CGovernor(core, levels, kind, limit, safe, preference)
        TAMPER(self.governor)
        self.now_s = 1000.0
        self.step_s = step_s
        self.log: list[tuple[float, int, Reason]] = []

    def run(self, seconds: float, world: World) -> list[tuple[float, int, Reason]]:
        """Steps for a while; what was decided, as (seconds from here, level, reason)."""
        begin_s, at = self.now_s, len(self.log)
        for _ in range(round(seconds / self.step_s)):
            self.now_s += self.step_s
            level = self.governor.step(Inputs(self.now_s, **world(self.governor.level)))
            self.log.append((self.now_s, level, self.governor.reason))
        return [(now_s - begin_s, level, reason) for now_s, level, reason in self.log[at:]]

    def until(self, level: int, world: World, most_s: float) -> float:
        """Seconds until the governor takes a level, at most ``most_s``."""
        begin_s = self.now_s
        while self.level != level and self.now_s - begin_s < most_s:
            self.run(self.step_s, world)
        return self.now_s - begin_s

    @property
    def level(self) -> int:
        return self.governor.level


def power(base_mw: float, gain: float = 1.0, levels: Sequence[Level] = LEVELS) -> World:
    """Four queries a second beside a base load; the sensor is exact."""
    return lambda level: {
        "power_mw": base_mw + gain * 4.0 * levels[level].energy_mj,
        "queries": 1.0,
        "busy_ms": levels[level].p50_ms,
    }


def blind(world: World) -> World:
    return lambda level: world(level) | {"power_mw": NAN, "temperature_c": NAN}


def latency(ratio: float = 1.0, search_ms: float = 0.0) -> World:
    return lambda level: {
        "queries": 1.0,
        "busy_ms": LEVELS[level].p50_ms * ratio,
        "search_ms": search_ms,
    }


def switches(log: Sequence[tuple[float, int, Reason]], first: int) -> list[tuple[float, int]]:
    """(when, to which level) of every change."""
    levels = [first, *(level for _, level, _ in log)]
    return [
        (row[0], row[1]) for row, before in zip(log, levels[:-1], strict=True) if row[1] != before
    ]


def near(value: float, wanted: float, by: float) -> bool:
    return wanted - by <= value <= wanted + by


def heat(degrees_c: float) -> World:
    return lambda _: {"temperature_c": degrees_c, "queries": 1.0, "busy_ms": 30.0}

"""Situations that are played through on the host and on an emulated microcontroller.

The worlds answer to what is decided, so that the host plays first: `table()` writes its inputs with
the level and reason that were decided, and `governor_table.c` checks that another processor decides
the same. Whether the decisions are right is not said here (`governor_rules` does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

from tatvpr_edge.runtime.governor import (
    CGovernor,
    GovernorCore,
    Inputs,
    Kind,
    Level,
    Preference,
)

NAN = math.nan

PROFILE = (
    Level(0.2, 1.0, 20.0, 22.0, 120.0),
    Level(0.4, 1.0, 30.0, 33.0, 190.0),
    Level(0.6, 1.0, 40.0, 44.0, 260.0),
    Level(1.0, 1.0, 60.0, 66.0, 400.0),
)
UNMEASURED = tuple(Level(level.k, 1.0) for level in PROFILE)


@dataclass(frozen=True)
class Scenario:
    """A governor, and what happens to it: ``world(level, i)`` gives the inputs of step i."""

    name: str
    kind: Kind
    limit: float
    world: Callable[[int, int], Inputs]
    steps: int = 160
    levels: tuple[Level, ...] = PROFILE
    safe: int = 1
    preference: Preference = Preference.BALANCED

    def rows(self, core: GovernorCore) -> Iterator[tuple[Inputs, int, int]]:
        """Inputs, and the level and reason that are decided here."""
        governor = CGovernor(core, self.levels, self.kind, self.limit, self.safe, self.preference)
        for i in range(self.steps):
            inputs = self.world(governor.level, i)
            yield inputs, governor.step(inputs), int(governor.reason)


STEP_S = 0.5
RATE_HZ = 4.0


def wobble(i: int) -> float:
    """Noise that needs no generator: the same in every language."""
    return ((i * 7919) % 101 - 50) / 50.0


def board(level: int, i: int, load_mw: float, slow: float = 1.0, gain: float = 1.0) -> Inputs:
    """A board whose sensor tells the power of now, with 2 % of noise."""
    queries = RATE_HZ * STEP_S
    at = PROFILE[level]
    power_mw = (load_mw + gain * RATE_HZ * at.energy_mj) * (1.0 + 0.02 * wobble(i))
    return Inputs(
        now_s=i * STEP_S,
        power_mw=round(power_mw, 1),
        power_age_s=0.1,
        temperature_c=50.0,
        queries=queries,
        busy_ms=queries * at.p50_ms * slow,
        search_ms=queries * 1.5,
    )


def steps_of_load(level: int, i: int) -> Inputs:
    return board(level, i, 1000.0 if i < 60 or i > 110 else 2400.0)


def wrong_profile(level: int, i: int) -> Inputs:
    return board(level, i, 1500.0, gain=1.35)


def telemetry_goes(level: int, i: int) -> Inputs:
    inputs = board(level, i, 1000.0)
    if 50 <= i < 80:
        inputs.power_mw = NAN
    if 100 <= i < 120:
        inputs.power_age_s = (i - 99) * STEP_S  # the same old sample, ever older
    if 120 <= i < 130:
        inputs.power_mw = -300.0
    return inputs


def telemetry_flaps(level: int, i: int) -> Inputs:
    inputs = board(level, i, 1000.0)
    if i // 8 % 2:
        inputs.power_mw = NAN
    return inputs


def clock_jumps(level: int, i: int) -> Inputs:
    inputs = board(level, i, 1000.0 if i < 70 else 2000.0)
    inputs.now_s += 1000.0 - (900.0 if i > 60 else 0.0) + (40.0 if i > 120 else 0.0)
    return inputs


def slowing_down(level: int, i: int) -> Inputs:
    return board(level, i, 1000.0, slow=1.0 if i < 50 else 1.6 if i < 110 else 0.9)


def few_queries(level: int, i: int) -> Inputs:
    inputs = board(level, i, 1000.0)
    if i % 20:
        inputs.queries = inputs.busy_ms = inputs.search_ms = 0.0
    return inputs


class Heating:
    """A thermal mass: the state is kept per run, so that a scenario can run twice."""

    def __init__(self) -> None:
        self.degrees_c = 40.0

    def __call__(self, level: int, i: int) -> Inputs:
        if i == 0:
            self.degrees_c = 40.0
        inputs = board(level, i, 3000.0)
        power_w = 3.0 + RATE_HZ * PROFILE[level].energy_mj / 1000.0
        self.degrees_c += (power_w * 8.0 + 25.0 - self.degrees_c) * STEP_S / 25.0
        inputs.temperature_c = round(self.degrees_c, 1)
        if 200 <= i < 220:
            inputs.temperature_c = NAN
        return inputs


class Battery:
    """Joules that go down with the power; the gauge counts in tens."""

    def __init__(self, start_mj: float) -> None:
        self.start_mj = self.left_mj = start_mj

    def __call__(self, level: int, i: int) -> Inputs:
        if i == 0:
            self.left_mj = self.start_mj
        inputs = board(level, i, 1000.0 if i < 100 else 1500.0)
        self.left_mj -= inputs.power_mw * STEP_S
        inputs.battery_mj = math.floor(self.left_mj / 10_000.0) * 10_000.0
        return inputs


SCENARIOS = (
    Scenario("power: loads step up and down", Kind.POWER, 3000.0, steps_of_load, 240),
    Scenario("power: the profile is a third too low", Kind.POWER, 3200.0, wrong_profile, 400),
    Scenario("power: impossible", Kind.POWER, 1200.0, steps_of_load, 80),
    Scenario("power: room for all", Kind.POWER, 9000.0, steps_of_load, 80),
    Scenario("power: telemetry goes and returns", Kind.POWER, 3000.0, telemetry_goes),
    Scenario("power: telemetry flaps", Kind.POWER, 3000.0, telemetry_flaps, 240),
    Scenario("power: the clock jumps", Kind.POWER, 3000.0, clock_jumps),
    Scenario("power: nothing measured", Kind.POWER, 3000.0, steps_of_load, 300, UNMEASURED),
    Scenario("power: few queries", Kind.POWER, 1500.0, few_queries),
    Scenario("energy: 0.3 J a query", Kind.ENERGY, 300.0, steps_of_load, 60),
    Scenario("energy: nothing measured", Kind.ENERGY, 300.0, steps_of_load, 20, UNMEASURED),
    Scenario("latency: the board slows down", Kind.LATENCY, 60.0, slowing_down, 200),
    Scenario("latency: impossible", Kind.LATENCY, 10.0, slowing_down, 40),
    Scenario("latency: nothing measured", Kind.LATENCY, 45.0, slowing_down, 300, UNMEASURED),
    Scenario("temperature: heat", Kind.TEMPERATURE, 58.0, Heating(), 600),
    Scenario("battery: an hour", Kind.BATTERY, 3600.0, Battery(8_000_000.0), 240),
    Scenario("battery: the last seconds", Kind.BATTERY, 30.0, Battery(100_000.0), 120),
    Scenario("preset: turbo", Kind.NONE, 0.0, steps_of_load, 10, preference=Preference.TURBO),
)


def cell(value: float) -> str:
    """Shortest text that reads back as the same double."""
    return "nan" if math.isnan(value) else repr(float(value)).removesuffix(".0")


def table(core: GovernorCore) -> Iterator[str]:
    """Lines: G a governor, L its levels, S a step with its decision."""
    for scenario in SCENARIOS:
        head = [scenario.name, int(scenario.kind), cell(scenario.limit), scenario.safe]
        yield ",".join(map(str, ["G", *head, int(scenario.preference), len(scenario.levels)]))
        for level in scenario.levels:
            yield ",".join(["L", *map(cell, astuple(level))])
        for inputs, chosen, reason in scenario.rows(core):
            values = [cell(getattr(inputs, name)) for name, _ in Inputs._fields_]
            yield ",".join(["S", *values, str(chosen), str(reason)])

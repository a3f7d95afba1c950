"""A simulated board for the governor: queries, other loads, heat, a battery and a bad sensor.

Not a model of one board: a family of boards with the properties that matter to control, so that
the governor meets more of them in a minute than a laboratory has in a year. Everything that it
yields is synthetic and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tatvpr_edge.runtime.governor import CGovernor, Inputs, Kind, Level

STEP_S = 0.25


@dataclass(frozen=True)
class Plant:
    """One board and what happens to it.

    ``levels`` is what the profile says; the board itself costs ``energy_gain`` times the profile's
    energy and ``latency_ratio`` times its latency. ``load_mw`` and ``rate_hz`` give, for every
    step of 0.25 s, the power of everything but queries and the queries asked for.
    """

    levels: tuple[Level, ...]
    load_mw: np.ndarray  # [steps]
    rate_hz: np.ndarray  # [steps]
    energy_gain: float = 1.0
    latency_ratio: float = 1.0
    sensor_delay_s: float = 0.0
    sensor_tau_s: float = 0.3
    sensor_noise: float = 0.0
    """Standard deviation of one sample, as a share of the power."""
    blind: np.ndarray | None = None  # [steps] bool: no telemetry
    ambient_c: float = 25.0
    resistance_c_per_w: float = 4.0
    heat_capacity_j_per_c: float = 20.0
    battery_j: float = 200_000.0
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of steps of 0.25 s."""
        return len(self.load_mw)

    def query_mj(self, level: int) -> float:
        """What one query really costs."""
        return self.levels[level].energy_mj * self.energy_gain

    def held_at_smallest(self, limit_mw: float) -> np.ndarray:
        """[steps] bool: whether the smallest level, at least, keeps the power within the limit."""
        rate = np.minimum(self.rate_hz, 1000.0 / (self.levels[0].p50_ms * self.latency_ratio))
        return np.asarray(self.load_mw + rate * self.query_mj(0) <= limit_mw)


class Controller(Protocol):
    """Whatever chooses a level from what was measured."""

    def step(self, inputs: Inputs) -> int:
        """The level from now on."""


@dataclass(frozen=True)
class FixedRule:
    """Always the same level, whatever happens."""

    level: int

    def step(self, inputs: Inputs) -> int:
        """The fixed level."""
        return self.level


@dataclass
class ThresholdRule:
    """What one writes first: above the limit one level down, below nine tenths one level up."""

    levels: int
    limit_mw: float
    level: int = 0
    next_s: float = 0.0

    def step(self, inputs: Inputs) -> int:
        """Once a second, by the last sample alone."""
        if math.isfinite(inputs.power_mw) and inputs.now_s >= self.next_s:
            self.next_s = inputs.now_s + 1.0
            if inputs.power_mw > self.limit_mw:
                self.level = max(0, self.level - 1)
            elif inputs.power_mw < 0.9 * self.limit_mw:
                self.level = min(self.levels - 1, self.level + 1)
        return self.level


@dataclass
class Trace:
    """What happened, one row a step."""

    time_s: np.ndarray
    power_mw: np.ndarray
    """True mean power of the step."""
    sensed_mw: np.ndarray
    """What the sensor said; NaN where it was blind."""
    level: np.ndarray
    queries: np.ndarray
    temperature_c: np.ndarray
    battery_j: np.ndarray
    reason: list[int] = field(default_factory=list)

    def worst_minute(self, limit_mw: float, within: np.ndarray | None = None) -> float:
        """Highest energy of any minute over the limit's; minutes outside ``within`` do not count.

        NaN where no minute counts.
        """
        width = round(60.0 / STEP_S)
        if len(self.power_mw) < width:
            return math.nan
        total = np.concatenate([[0.0], np.cumsum(self.power_mw)])
        minutes = (total[width:] - total[:-width]) / width / limit_mw
        if within is not None:
            count = np.concatenate([[0], np.cumsum(~within)])
            minutes = minutes[(count[width:] - count[:-width]) == 0]
        return float(minutes.max()) if len(minutes) else math.nan

    def switch_times_s(self) -> np.ndarray:
        """When the level changed."""
        return self.time_s[1:][np.diff(self.level) != 0]

    def most_switches_in_a_minute(self) -> int:
        """Most switches in any 60 s, both ends counted once."""
        times = self.switch_times_s()
        return max(
            (int(np.sum((times >= start) & (times < start + 60.0))) for start in times), default=0
        )


def simulate(plant: Plant, controller: Controller) -> Trace:
    """Runs a controller on a plant, one step of 0.25 s after the other."""
    random = np.random.default_rng(plant.seed)
    noise = (1.0 + plant.sensor_noise * random.standard_normal(plant.steps)).tolist()
    loads, rates = plant.load_mw.tolist(), plant.rate_hz.tolist()
    blind = plant.blind.tolist() if plant.blind is not None else [False] * plant.steps
    cost_mj = [plant.query_mj(i) for i in range(len(plant.levels))]
    latency_ms = [level.p50_ms * plant.latency_ratio for level in plant.levels]
    lag = round(plant.sensor_delay_s / STEP_S)
    smooth = STEP_S / (STEP_S + plant.sensor_tau_s)
    sensed_by_now: list[float] = []
    averaged = loads[0]
    temperature_c = plant.ambient_c + plant.resistance_c_per_w * loads[0] / 1000.0
    battery_j = plant.battery_j
    waiting = 0.0
    rows: list[tuple[float, ...]] = []
    reasons: list[int] = []
    level = controller.step(Inputs(now_s=0.0))
    for i in range(plant.steps):
        now_s = (i + 1) * STEP_S
        waiting = min(waiting + rates[i] * STEP_S, 2.0 + STEP_S * 1000.0 / latency_ms[level])
        done = min(math.floor(waiting + 1e-9), max(1, int(STEP_S * 1000.0 / latency_ms[level])))
        waiting -= done
        alive = battery_j > 0.0
        if not alive:
            done = 0
        power_mw = (loads[i] + done * cost_mj[level] / STEP_S) if alive else 0.0
        battery_j = max(0.0, battery_j - power_mw / 1000.0 * STEP_S)
        flow_w = power_mw / 1000.0 - (temperature_c - plant.ambient_c) / plant.resistance_c_per_w
        temperature_c += flow_w * STEP_S / plant.heat_capacity_j_per_c
        averaged += smooth * (power_mw - averaged)
        sensed_by_now.append(averaged)
        sensed_mw = sensed_by_now[max(0, i - lag)] * noise[i]
        seen = not blind[i]
        rows.append(
            (
                now_s,
                power_mw,
                sensed_mw if seen else math.nan,
                level,
                done,
                temperature_c,
                battery_j,
            )
        )
        level = controller.step(
            Inputs(
                now_s=now_s,
                power_mw=max(0.0, sensed_mw) if seen else math.nan,
                temperature_c=temperature_c if seen else math.nan,
                battery_mj=battery_j * 1000.0 if seen else math.nan,
                queries=done,
                busy_ms=done * latency_ms[level],
            )
        )
        reasons.append(int(getattr(controller, "reason", -1)))
    table = np.array(rows)
    return Trace(
        time_s=table[:, 0],
        power_mw=table[:, 1],
        sensed_mw=table[:, 2],
        level=table[:, 3].astype(int),
        queries=table[:, 4].astype(int),
        temperature_c=table[:, 5],
        battery_j=table[:, 6],
        reason=reasons,
    )


def typical_levels(random: np.random.Generator) -> tuple[Level, ...]:
    """Levels of an invented board: a fixed part, and a part in proportion to k."""
    fixed = random.uniform(0.15, 0.5)
    full_ms = random.uniform(10.0, 200.0)
    busy_w = random.uniform(1.0, 15.0)
    levels = []
    for k in (0.2, 0.4, 0.6, 1.0):
        p50_ms = full_ms * (fixed + (1.0 - fixed) * k)
        levels.append(
            Level(
                k,
                1.0,
                p50_ms=p50_ms,
                p95_ms=p50_ms * random.uniform(1.02, 1.3),
                energy_mj=p50_ms * busy_w,
            )
        )
    return tuple(levels)


def random_plant(seed: int, duration_s: float = 240.0, steady: bool = False) -> tuple[Plant, float]:
    """A board at random, and a power limit in mW that makes it think.

    Other loads step up and down at random times (never when ``steady``); energy and latency differ
    from the profile; the sensor lags, smooths and is noisy.
    """
    random = np.random.default_rng(seed)
    steps = round(duration_s / STEP_S)
    levels = typical_levels(random)
    most_hz = 1000.0 / levels[-1].p50_ms
    rate_hz = np.full(steps, random.uniform(0.2, 0.8) * min(most_hz, 10.0))
    query_mw = float(rate_hz[0]) * levels[-1].energy_mj
    quiet_mw = query_mw * random.uniform(0.2, 2.0)
    load_mw = np.full(steps, quiet_mw)
    if not steady:
        at = 0
        while at < steps:
            length = round(random.exponential(40.0) / STEP_S) + 4
            load_mw[at : at + length] = quiet_mw * random.uniform(0.5, 1.6)
            at += length
    load_mw = load_mw * (1.0 + 0.01 * random.standard_normal(steps))
    limit_mw = float(np.median(load_mw)) + query_mw * random.uniform(0.1, 1.2)
    plant = Plant(
        levels=levels,
        load_mw=load_mw,
        rate_hz=rate_hz,
        energy_gain=random.uniform(0.75, 1.3),
        latency_ratio=random.uniform(0.8, 1.2),
        sensor_delay_s=random.uniform(0.0, 1.0),
        sensor_tau_s=random.uniform(0.05, 0.7),
        sensor_noise=random.uniform(0.0, 0.04),
        seed=seed,
    )
    return plant, limit_mw


def governor_for(plant: Plant, limit: float, kind: Kind = Kind.POWER, safe: int = 0) -> CGovernor:
    """The governor on this plant's profile: the C that runs on devices, compiled for here."""
    from tatvpr_edge.compilers.governor import host_governor

    return CGovernor(host_governor(), plant.levels, kind, limit, safe=safe)

"""``Governor.why()``: the choice, the budget, what was measured and what more would need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tatvpr_edge.runtime.governor.binding import Figures, Reason
from tatvpr_edge.runtime.governor.budget import Budget, Kind
from tatvpr_edge.runtime.governor.ladder import Ladder
from tatvpr_edge.runtime.telemetry import Reading

_MEASURED_LATENCIES = 2  # bit of Figures.measured
_MEASURED_ENERGIES = 1


@dataclass(frozen=True)
class Said:
    """What is explained, as of one moment."""

    sentence: str
    figures: Figures
    ladder: Ladder
    budget: Budget | None
    preset: str | None
    reading: Reading | None
    now_s: float
    running_s: float
    most_switches: int

    @property
    def kind(self) -> Kind:
        """What is bounded."""
        return Kind.NONE if self.budget is None else self.budget.kind


def explain(said: Said) -> str:
    """One paragraph, its parts separated by semicolons."""
    figures, ladder = said.figures, said.ladder
    parts = [f"{ladder.levels[figures.level].text()}: {said.sentence}"]
    if said.budget is not None:
        parts.append(f"budget {said.budget}")
    elif said.preset is not None:
        parts.append(f"preset {said.preset}")
    if said.kind is Kind.BATTERY and figures.reason not in (Reason.START, Reason.NO_TELEMETRY):
        leaves = f"which leaves {figures.limit / 1000:.2f} W"
        assert said.budget is not None and said.budget.battery_until_s is not None
        if said.running_s >= said.budget.battery_until_s:
            leaves = f"whose time is over: {leaves} until it is set anew"
        parts.append(leaves)
    parts += _measured(said)
    if figures.reason in (Reason.WITHIN, Reason.WAITING, Reason.SWITCH_LIMIT):
        parts += _next_level(said)
    if said.kind is not Kind.NONE:
        parts.append(
            f"{figures.switches} of at most {said.most_switches} switches in the last minute"
        )
    if ladder.note:
        parts.append(ladder.note)
    if not ladder.measured and said.kind not in (Kind.NONE, Kind.ENERGY):
        parts.append("settings are found by trial, one step at a time")
    return "; ".join(parts)


def _measured(said: Said) -> list[str]:
    figures, reading = said.figures, said.reading
    if said.kind is Kind.LATENCY:
        if not math.isfinite(figures.query_ms):
            return ["no query seen yet"]
        mean = f"measured {figures.query_ms:.1f} ms a query"
        if figures.search_ms > 0.0:
            mean += f", of which search {figures.search_ms:.1f}"
        if figures.measured & _MEASURED_LATENCIES:
            return [f"{mean}, {figures.latency_ratio:.2f} times the profile"]
        return [mean]
    if said.kind is Kind.ENERGY:
        known = math.isfinite(figures.query_mj)
        return [f"{figures.query_mj:.0f} mJ a query by the profile"] if known else []
    if said.kind is Kind.NONE:
        return []
    if reading is None:
        return ["no sensor"]
    if reading.value is None:
        of = "" if reading.source == "none" else f"{reading.source} "
        return [f"{of}{reading.name} is {reading.text()}"]
    parts = [
        f"measured {reading.text()} ({reading.source} {reading.name}, {reading.covers or 'zone'}"
        f", {reading.age_s(said.now_s):.1f} s old)"
    ]
    if said.kind is not Kind.TEMPERATURE and figures.measured & _MEASURED_ENERGIES:
        parts.append(
            f"of which queries {figures.query_mw / 1000:.2f} W at {figures.rate_hz:.1f} a second"
        )
    return parts


def _next_level(said: Said) -> list[str]:
    figures, levels = said.figures, said.ladder.levels
    if figures.level + 1 >= len(levels):
        return []
    text = levels[figures.level + 1].text()
    if figures.next_barred_s > 0.0:
        return [f"{text} was tried and failed, and is barred for {figures.next_barred_s:.0f} s"]
    if not math.isfinite(figures.next_needs):
        return []
    if said.kind is Kind.LATENCY:
        return [f"{text} would need {figures.next_needs:.1f} ms"]
    if said.kind is Kind.ENERGY:
        return [f"{text} would need {figures.next_needs:.0f} mJ"]
    return [f"{text} would need {figures.next_needs / 1000:.2f} W"]

"""Batteries: ``/sys/class/power_supply/*``; all that feed the system are one supply.

``power_now`` is in uW, or the product of ``voltage_now`` (uV) and ``current_now`` (uA); drivers
disagree about its sign, so ``status`` decides. Energy left is ``energy_now`` (uWh), or
``charge_now`` (uAh) times the voltage; ``capacity`` is in percent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import total_reading
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

_MAX_MW = 500_000.0
_MAX_ENERGY_J = 36_000_000.0  # 10 kWh
_NONE = "no battery under /sys/class/power_supply"


class BatterySource(TreeSource):
    """Every battery that feeds the system (not a mouse's), summed."""

    name = "battery"

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._cells = _cells(tree)

    @classmethod
    def find(cls, tree: Tree) -> BatterySource | str:
        """The board's batteries, or the line that says why there are none."""
        made = cls(tree)
        return made if made._cells else _NONE

    def describe(self) -> str:
        """The batteries' names, for people."""
        return ", ".join(cell.name for cell in self._cells)

    def read(self, now_s: float) -> list[Reading]:
        """Power drawn, energy left in J, and charge in percent, of the batteries in now."""
        self._cells = _cells(self._tree)
        return [
            total_reading(
                *(self.describe() or self.name, self.name, now_s, self._valued(self._power_mw)),
                covers="everything that the battery feeds",
                ceiling_mw=_MAX_MW,
                repeat_limit_s=300.0,  # fuel gauges update once in ten seconds to a minute
            ),
            Reading(
                "energy left",
                Role.BATTERY_ENERGY,
                "J",
                self.name,
                now_s,
                *self._valued(lambda: sum(cell.energy_j() for cell in self._cells)),
                ceiling=_MAX_ENERGY_J,
            ),
            Reading(
                "charge",
                Role.BATTERY_CHARGE,
                "%",
                self.name,
                now_s,
                *self._valued(self._charge_percent),
                ceiling=100.0,
            ),
        ]

    def _valued(self, measure: Callable[[], float]) -> tuple[float | None, Condition, str]:
        """A reading's value, condition and detail."""
        if not self._cells:
            return None, Condition.ABSENT, _NONE
        try:
            return measure(), Condition.OK, ""
        except ReadFault as fault:
            return None, fault.condition, fault.detail

    def _power_mw(self) -> float:
        """What the batteries give together; a bay that rests gives nothing."""
        states = [(cell, cell.status()) for cell in self._cells]
        giving = [cell for cell, status in states if status.lower() == "discharging"]
        filled = [cell for cell, status in states if status.lower() == "charging"]
        if filled or not giving:
            said = ", ".join(f"{cell.name} is {status}" for cell, status in states)
            raise ReadFault(Condition.CHARGING, f"no battery's power is the board's: {said}")
        return sum(cell.power_mw() for cell in giving)

    def _charge_percent(self) -> float:
        """Percent of all batteries together, each by its size."""
        if len(self._cells) == 1:
            return self._cells[0].percent()
        sizes_j = [cell.full_j() for cell in self._cells]
        left_j = sum(
            size_j * cell.percent() / 100.0
            for size_j, cell in zip(sizes_j, self._cells, strict=True)
        )
        return 100.0 * left_j / sum(sizes_j)


def _cells(tree: Tree) -> list[_Battery]:
    """The batteries that are in now: bays are filled and emptied while a robot runs."""
    found = []
    for folder in tree.glob("/sys/class/power_supply/*"):
        kind = tree.optional_text(folder / "type")
        looks = kind == "Battery" or (kind is None and os.path.exists(folder / "capacity"))
        here = tree.optional_text(folder / "present") != "0"  # an empty bay
        if looks and here and tree.optional_text(folder / "scope") != "Device":
            found.append(_Battery(tree, folder))
    return found


class _Battery:
    """One battery's files; every figure raises ReadFault where it cannot be had or meant."""

    def __init__(self, tree: Tree, folder: Path) -> None:
        self._tree = tree
        self._folder = folder
        self.name = folder.name

    def status(self) -> str:
        return self._tree.optional_text(self._folder / "status") or "unknown"

    def power_mw(self) -> float:
        if os.path.exists(self._folder / "power_now"):
            microwatts = self._number("power_now")
        else:
            microwatts = self._number("voltage_now") * self._number("current_now") / 1e6
        return _within(abs(microwatts) / 1000.0, _MAX_MW, "mW")

    def energy_j(self) -> float:
        return self._stored_j("now")

    def full_j(self) -> float:
        joules = self._stored_j("full")
        if joules <= 0.0:
            raise ReadFault(Condition.ABSURD, f"{self.name} holds {joules:.0f} J when full")
        return joules

    def percent(self) -> float:
        return _within(self._number("capacity"), 100.0, "%", Condition.ABSURD)

    def _stored_j(self, what: str) -> float:
        if os.path.exists(self._folder / f"energy_{what}"):
            joules = self._number(f"energy_{what}") * 3600e-6
        else:
            # Charge is in uAh at the present voltage in uV: 1e-12 to VAh, 3600 to joules.
            joules = self._number(f"charge_{what}") * self._number("voltage_now") * 3600e-12
        return _within(joules, _MAX_ENERGY_J, "J")

    def _number(self, name: str) -> float:
        return self._tree.number(self._folder / name)


def _within(
    value: float, most: float, unit: str, negative: Condition = Condition.NEGATIVE
) -> float:
    if value < 0:
        raise ReadFault(negative, f"{value:.0f} {unit}")
    if value > most:
        raise ReadFault(Condition.ABSURD, f"{value:.3g} {unit}")
    return value

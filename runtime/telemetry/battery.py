"""Batteries: ``/sys/class/power_supply/*``.

``power_now`` is in uW, or the product of ``voltage_now`` (uV) and ``current_now`` (uA); drivers
disagree about its sign, so ``status`` decides. Energy left is ``energy_now`` (uWh), or
``charge_now`` (uAh) times the voltage; ``capacity`` is in percent.
"""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree

__all__ = ["BatterySource"]

_MAX_MW = 500_000.0
_MAX_ENERGY_J = 36_000_000.0  # 10 kWh


class BatterySource:
    """The first battery that feeds the system (not a mouse's)."""

    name = "battery"

    def __init__(self, tree: Tree, folder: Path) -> None:
        self._tree = tree
        self._folder = folder

    @classmethod
    def find(cls, tree: Tree) -> BatterySource | str:
        """The board's battery, or the line that says why there is none."""
        for folder in tree.glob("/sys/class/power_supply/*"):
            kind = tree.optional_text(folder / "type")
            scope = tree.optional_text(folder / "scope")
            looks = kind == "Battery" or (kind is None and (folder / "capacity").exists())
            if looks and scope != "Device":
                return cls(tree, folder)
        return "no battery under /sys/class/power_supply"

    def describe(self) -> str:
        """The battery's name, for people."""
        return self._folder.name

    def read(self, now_s: float) -> list[Reading]:
        """Power drawn, energy left in J, and charge in percent."""
        return [self._power(now_s), self._energy(now_s), self._charge(now_s)]

    def close(self) -> None:
        """Nothing is held open between readings."""

    def _number(self, name: str) -> float:
        return self._tree.number(self._folder / name)

    def _power(self, now_s: float) -> Reading:
        def reading(value: float | None, condition: Condition, detail: str) -> Reading:
            return Reading(
                self._folder.name,
                Role.TOTAL,
                "mW",
                self.name,
                now_s,
                value,
                condition,
                detail,
                covers="everything that the battery feeds",
                ceiling=_MAX_MW,
                repeat_limit_s=300.0,  # fuel gauges update once in ten seconds to a minute
            )

        status = self._tree.optional_text(self._folder / "status") or "unknown"
        if status.lower() != "discharging":
            return reading(None, Condition.CHARGING, f"the battery's status is {status}")
        try:
            if (self._folder / "power_now").exists():
                microwatts = self._number("power_now")
            else:
                microwatts = self._number("voltage_now") * self._number("current_now") / 1e6
        except ReadFault as fault:
            return reading(None, fault.condition, fault.detail)
        milliwatts = abs(microwatts) / 1000.0
        if milliwatts > _MAX_MW:
            return reading(None, Condition.ABSURD, f"{milliwatts:.0f} mW")
        return reading(milliwatts, Condition.OK, "")

    def _energy(self, now_s: float) -> Reading:
        def reading(value: float | None, condition: Condition, detail: str) -> Reading:
            return Reading(
                "energy left",
                Role.BATTERY_ENERGY,
                "J",
                self.name,
                now_s,
                value,
                condition,
                detail,
                ceiling=_MAX_ENERGY_J,
            )

        try:
            if (self._folder / "energy_now").exists():
                joules = self._number("energy_now") * 3600e-6
            else:
                # charge_now is in uAh at the present voltage in uV: 1e-12 to VAh, 3600 to joules.
                joules = self._number("charge_now") * self._number("voltage_now") * 3600e-12
        except ReadFault as fault:
            return reading(None, fault.condition, fault.detail)
        if joules < 0:
            return reading(None, Condition.NEGATIVE, f"{joules:.0f} J")
        if joules > _MAX_ENERGY_J:
            return reading(None, Condition.ABSURD, f"{joules:.3g} J")
        return reading(joules, Condition.OK, "")

    def _charge(self, now_s: float) -> Reading:
        def reading(value: float | None, condition: Condition, detail: str) -> Reading:
            return Reading(
                "charge",
                Role.BATTERY_CHARGE,
                "%",
                self.name,
                now_s,
                value,
                condition,
                detail,
                ceiling=100.0,
            )

        try:
            percent = self._number("capacity")
        except ReadFault as fault:
            return reading(None, fault.condition, fault.detail)
        if not 0 <= percent <= 100:
            return reading(None, Condition.ABSURD, f"{percent:g} %")
        return reading(percent, Condition.OK, "")

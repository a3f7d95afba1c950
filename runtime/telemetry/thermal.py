"""Thermal zones: ``/sys/devices/virtual/thermal/thermal_zone*/{type,temp}`` in milli-degrees."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

MAX_C = 150.0  # silicon is no longer working above
MIN_C = -55.0
_OFFLINE_C = -256.0  # what NVIDIA's driver answers for a powered-down zone, in degrees or raw


def temperature_reading(name: str, degrees_c: float, source: str, now_s: float) -> Reading:
    """A zone's temperature, or the condition that its number stands for."""

    def reading(value: float | None, condition: Condition, detail: str) -> Reading:
        return Reading(
            name, Role.TEMPERATURE, "C", source, now_s, value, condition, detail, ceiling=MAX_C
        )

    if degrees_c in (_OFFLINE_C, _OFFLINE_C / 1000.0):
        return reading(None, Condition.OFFLINE, "the zone is powered down")
    if name.upper().startswith("PMIC"):
        # Tegra's PMIC zone is a constant (50 or 100 degrees), made up by its driver.
        return reading(None, Condition.STUCK, "the driver's constant, not a measurement")
    if not MIN_C <= degrees_c <= MAX_C:
        return reading(None, Condition.ABSURD, f"{degrees_c:g} C")
    return reading(degrees_c, Condition.OK, "")


class ThermalSource(TreeSource):
    """Every thermal zone of the board."""

    name = "thermal"

    def __init__(self, tree: Tree, zones: list[tuple[str, Path]]) -> None:
        self._tree = tree
        self._zones = zones

    @classmethod
    def find(cls, tree: Tree) -> ThermalSource | str:
        """The board's zones, or the line that says why there are none."""
        zones: dict[str, Path] = {}
        for pattern in (
            "/sys/devices/virtual/thermal/thermal_zone*",
            "/sys/class/thermal/thermal_zone*",
        ):
            for folder in tree.glob(pattern):
                zones.setdefault(folder.name, folder)
        if not zones:
            return "no thermal zone under /sys/devices/virtual/thermal"
        named = [
            (tree.optional_text(folder / "type") or name, folder / "temp")
            for name, folder in zones.items()
        ]
        return cls(tree, named)

    def describe(self) -> str:
        """Zones, for people."""
        return ", ".join(name for name, _ in self._zones)

    def read(self, now_s: float) -> list[Reading]:
        """Every zone."""
        readings = []
        for name, path in self._zones:
            try:
                raw = self._tree.number(path)
            except ReadFault as fault:
                about = name, Role.TEMPERATURE, "C", self.name, now_s
                readings.append(Reading(*about, None, fault.condition, fault.detail))
                continue
            readings.append(temperature_reading(name, raw / 1000.0, self.name, now_s))
        return readings

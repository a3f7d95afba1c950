"""Generic hardware monitors: ``/sys/class/hwmon/hwmon*/power*_input`` in uW."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import rail_reading, total_reading
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

_MAX_MW = 2_000_000.0
_NOT_OURS = ("ina3221", "ina3221x", "ina238")  # read with their labels by another source
_BATTERIES = ("BAT", "bms")  # a battery's hwmon face repeats what power_supply says


class HwmonSource(TreeSource):
    """Every hwmon power sensor; its total is stated only where there is exactly one sensor."""

    name = "hwmon"

    def __init__(self, tree: Tree, sensors: list[tuple[str, Path]]) -> None:
        self._tree = tree
        self._sensors = sensors

    @classmethod
    def find(cls, tree: Tree) -> HwmonSource | str:
        """The board's power sensors, or the line that says why there are none."""
        sensors = []
        for path in tree.glob("/sys/class/hwmon/hwmon*/power*_input"):
            chip = tree.optional_text(path.parent / "name") or path.parent.name
            if chip in _NOT_OURS or chip.startswith(_BATTERIES):
                continue
            stem = path.name.removesuffix("_input")
            label = tree.optional_text(path.parent / f"{stem}_label") or stem
            sensors.append((f"{chip} {label}", path))
        if not sensors:
            return "no power*_input under /sys/class/hwmon"
        return cls(tree, sensors)

    def describe(self) -> str:
        """Sensors, for people."""
        return ", ".join(name for name, _ in self._sensors)

    def read(self, now_s: float) -> list[Reading]:
        """Every sensor, and a total where there is only one."""
        rails = [self._rail(name, path, now_s) for name, path in self._sensors]
        if len(rails) == 1:
            only = rails[0]
            value, condition, detail = only.value, only.condition, only.detail
        else:
            value, condition = None, Condition.UNKNOWN_RAIL
            detail = "several sensors: which of them contain each other is not known"
        name, said = rails[0].name if len(rails) == 1 else "total", (value, condition, detail)
        covers = "what this sensor measures"
        total = total_reading(name, self.name, now_s, said, covers=covers, ceiling_mw=_MAX_MW)
        return [*rails, total]

    def _rail(self, name: str, path: Path, now_s: float) -> Reading:
        power: float | ReadFault
        try:
            power = self._tree.number(path) / 1000.0
        except ReadFault as fault:
            power = fault
        return rail_reading(name, self.name, now_s, power, covers="one sensor", ceiling_mw=_MAX_MW)

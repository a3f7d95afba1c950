"""x86 RAPL energy counters: ``/sys/class/powercap/intel-rapl:N/energy_uj``.

The counters count microjoules and wrap at ``max_energy_range_uj``; power is their difference over
time. Since 2020 kernels let only root read them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import rail_reading, total_reading
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

_MAX_PACKAGE_MW = 1_000_000.0
_MIN_STEP_S = 0.02  # the counter moves once a millisecond: shorter steps are mostly rounding


@dataclass
class _Zone:
    name: str
    folder: Path
    is_package: bool
    last_uj: float | None = None
    last_s: float = 0.0
    power: Reading | None = None


class RaplSource(TreeSource):
    """Packages (and the whole platform, where there is a psys zone) of an x86 machine."""

    name = "rapl"

    def __init__(self, tree: Tree, zones: list[_Zone]) -> None:
        self._tree = tree
        self._zones = zones

    @classmethod
    def find(cls, tree: Tree) -> RaplSource | str:
        """The machine's counters, or the line that says why there are none."""
        zones = []
        for folder in tree.glob("/sys/class/powercap/intel-rapl:*"):
            if not os.path.isdir(folder):
                continue
            index = folder.name.partition(":")[2]
            label = tree.optional_text(folder / "name") or f"package-{index}"
            zones.append(_Zone(label, folder, is_package=":" not in index))
        if not zones:
            return "no RAPL counter under /sys/class/powercap"
        return cls(tree, zones)

    def describe(self) -> str:
        """Zones, for people."""
        return ", ".join(zone.name for zone in self._zones)

    def read(self, now_s: float) -> list[Reading]:
        """Power of every zone since the last reading, and the machine's total."""
        rails = [self._power(zone, now_s) for zone in self._zones]
        return [*rails, self._total(rails, now_s)]

    def _total(self, rails: list[Reading], now_s: float) -> Reading:
        """The platform zone, or the sum of the packages (sub-zones are parts of them)."""
        platform = [r for r in rails if r.name.startswith("psys")]
        packages = platform or [
            rail
            for rail, zone in zip(rails, self._zones, strict=True)
            if zone.is_package and not zone.name.startswith("psys")
        ]
        covers = "platform" if platform else "CPU package only (no memory, disk or board)"
        bad = next((rail for rail in packages if rail.value is None), None)
        value = None if bad else sum(r.value for r in packages if r.value is not None)
        condition, detail = Condition.OK, ""
        if not packages:
            value, condition, detail = None, Condition.ABSENT, "no package zone"
        elif bad is not None:
            condition, detail = bad.condition, bad.detail
        return total_reading(
            "CPU package" if not platform else "psys",
            self.name,
            min((r.taken_s for r in packages), default=now_s),
            (value, condition, detail),
            covers=covers,
            ceiling_mw=_MAX_PACKAGE_MW,
            repeat_limit_s=30.0,
        )

    def _power(self, zone: _Zone, now_s: float) -> Reading:
        def reading(power: float | ReadFault) -> Reading:
            return rail_reading(
                *(zone.name, self.name, now_s, power),
                covers="one RAPL zone",
                ceiling_mw=_MAX_PACKAGE_MW,
            )

        if zone.power is not None and 0 <= now_s - zone.last_s < _MIN_STEP_S:
            return zone.power
        try:
            energy_uj = self._tree.number(zone.folder / "energy_uj")
            last_uj, step_s = zone.last_uj, now_s - zone.last_s
            zone.last_uj, zone.last_s = energy_uj, now_s
            if last_uj is None:
                return reading(ReadFault(Condition.PENDING, "the first of two readings"))
            used_uj = energy_uj - last_uj
            if used_uj < 0:
                range_uj = self._tree.number(zone.folder / "max_energy_range_uj")
                used_uj += range_uj
        except ReadFault as fault:
            zone.last_uj = None
            hint = (
                "; run as root, or let this user read it"
                if fault.condition is (Condition.DENIED)
                else ""
            )
            return reading(ReadFault(fault.condition, fault.detail + hint))
        if step_s <= 0:
            return reading(ReadFault(Condition.PENDING, "the clock stood still"))
        milliwatts = used_uj / step_s / 1000.0
        if milliwatts < 0 or milliwatts > _MAX_PACKAGE_MW:
            return reading(ReadFault(Condition.ABSURD, f"{used_uj:.0f} uJ in {step_s:.3f} s"))
        zone.power = reading(milliwatts)
        return zone.power

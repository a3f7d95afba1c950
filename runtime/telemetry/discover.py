"""Finds, by itself, what a board can tell about its power and temperature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tatvpr_edge.runtime.telemetry.battery import BatterySource
from tatvpr_edge.runtime.telemetry.hwmon import HwmonSource
from tatvpr_edge.runtime.telemetry.ina import InaSource
from tatvpr_edge.runtime.telemetry.pmic import PmicSource
from tatvpr_edge.runtime.telemetry.rapl import RaplSource
from tatvpr_edge.runtime.telemetry.reading import Reading
from tatvpr_edge.runtime.telemetry.tegrastats import TegrastatsSource
from tatvpr_edge.runtime.telemetry.thermal import ThermalSource
from tatvpr_edge.runtime.telemetry.tree import Tree


class Source(Protocol):
    """One family of sensors. `read` never raises for what a sensor does; it states a condition."""

    @property
    def name(self) -> str:
        """Short name, which its readings carry as their source."""

    def describe(self) -> str:
        """What was found, for people."""

    def read(self, now_s: float) -> list[Reading]:
        """Present readings, taken at ``now_s`` unless they say otherwise."""

    def close(self) -> None:
        """Gives back what reading holds open."""


@dataclass(frozen=True)
class Discovery:
    """Sources in order of preference for the total, and why the others are not there."""

    sources: list[Source] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Closes every source."""
        for source in self.sources:
            source.close()


class Found(NamedTuple):
    """A family's source, if there is one, and why what was looked for is not there."""

    source: Source | None
    missing: dict[str, str]


@dataclass(frozen=True)
class Family:
    """Ways to read the same sensors, the best first; the first that is there is taken."""

    name: str
    finders: tuple[tuple[str, Callable[[Tree], Source | str]], ...]

    def find(self, tree: Tree) -> Found:
        """Looks for each way in turn."""
        missing: dict[str, str] = {}
        taken: Source | None = None
        for name, find in self.finders:
            if taken is not None:
                missing[name] = "not needed: the same monitors are read from sysfs"
                continue
            result = find(tree)
            if isinstance(result, str):
                missing[name] = result
            else:
                taken = result
        return Found(taken, missing)


#: In order of trust in a total: monitors at the board's input, then what the battery gives, then a
#: part of the machine (RAPL), then a single unlabelled sensor.
FAMILIES = (
    Family("ina", (("ina", InaSource.find), ("tegrastats", TegrastatsSource.find))),
    Family("pmic", (("pmic", PmicSource.find),)),
    Family("battery", (("battery", BatterySource.find),)),
    Family("rapl", (("rapl", RaplSource.find),)),
    Family("hwmon", (("hwmon", HwmonSource.find),)),
    Family("thermal", (("thermal", ThermalSource.find),)),
)


def discover(tree: Tree | None = None) -> Discovery:
    """Every source of the board under ``tree`` (this machine's own by default)."""
    tree = Tree() if tree is None else tree
    found = Discovery()
    for family in FAMILIES:
        source, missing = family.find(tree)
        if source is not None:
            found.sources.append(source)
        found.missing.update(missing)
    return found

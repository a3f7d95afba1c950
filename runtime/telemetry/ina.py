"""INA3221 and INA238 power monitors of Jetson modules, read from sysfs.

Layouts (root in front of all):

- JetPack 5 and later: ``/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon*/`` with
  ``in{n}_label``, ``in{n}_input`` (mV), ``curr{n}_input`` (mA), ``curr{n}_crit`` (mA);
- JetPack 4: ``/sys/bus/i2c/drivers/ina3221x/1-0040/iio:device*/`` with ``rail_name_{n}``,
  ``in_voltage{n}_input`` (mV), ``in_current{n}_input`` (mA), ``in_power{n}_input`` (mW);
- either below ``/sys/bus/i2c/devices/*``, found by the device's ``name``;
- Jetson Thor adds an INA238 (hwmon, ``power1_input`` in uW) whose label VIN is the total.

NVML is never used: on Tegra it initialises and then answers "not supported".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import (
    MAX_BOARD_MW,
    is_not_connected,
    rail_reading,
    total_of_rails,
)
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

_CHIPS = ("ina3221", "ina3221x", "ina238")
_CHANNELS = (1, 2, 3)  # channel 7 of the hwmon layout is the sum of shunt voltages: not a rail


@dataclass(frozen=True)
class _Channel:
    """Where one rail's files lie; a path is None where the layout has no such file."""

    label: str
    volts: Path | None  # mV
    amperes: Path | None  # mA
    power: Path | None
    power_per_mw: float  # units of the power file in one mW
    ceiling_mw: float


class InaSource(TreeSource):
    """All INA monitors of a module, as one source with rails and a total in mW."""

    name = "ina"

    def __init__(self, tree: Tree, channels: list[_Channel], chips: list[str]) -> None:
        self._tree = tree
        self._channels = channels
        self._chips = chips

    @classmethod
    def find(cls, tree: Tree) -> InaSource | str:
        """The module's monitors, or the line that says why there are none."""
        channels: list[_Channel] = []
        chips: list[str] = []
        for folder, chip in _chip_folders(tree):
            found = _channels(tree, folder, chip)
            if found:
                channels += found
                chips.append(f"{chip.rstrip('x')} at {folder.name}")
        if not channels:
            return "no INA3221 or INA238 with a connected rail under /sys/bus/i2c"
        return cls(tree, channels, chips)

    def describe(self) -> str:
        """Chips and rails, for people."""
        rails = ", ".join(channel.label for channel in self._channels)
        return f"{' and '.join(self._chips)}: {rails}"

    def read(self, now_s: float) -> list[Reading]:
        """Every rail and their total."""
        rails = [self._read_channel(channel, now_s) for channel in self._channels]
        return [*rails, total_of_rails(rails, self.name, now_s)]

    def _read_channel(self, channel: _Channel, now_s: float) -> Reading:
        power: float | ReadFault
        try:
            power = self._milliwatts(channel)
        except ReadFault as fault:
            power = fault
        return rail_reading(channel.label, self.name, now_s, power, ceiling_mw=channel.ceiling_mw)

    def _milliwatts(self, channel: _Channel) -> float:
        if channel.volts is not None and channel.amperes is not None:
            return self._tree.number(channel.volts) * self._tree.number(channel.amperes) / 1000.0
        if channel.power is not None:
            return self._tree.number(channel.power) / channel.power_per_mw
        raise ReadFault(Condition.ABSENT, f"{channel.label}: no voltage, current or power file")


def _chip_folders(tree: Tree) -> list[tuple[Path, str]]:
    """I2C devices that are power monitors, each once, however many links lead to it."""
    found: dict[str, tuple[Path, str]] = {}
    for chip in _CHIPS:
        for folder in tree.glob(f"/sys/bus/i2c/drivers/{chip}/*"):
            if os.path.isdir(folder) and "-" in folder.name:  # "1-0040", not "module" or "bind"
                found.setdefault(folder.name, (folder, chip))
    for name_file in tree.glob("/sys/bus/i2c/devices/*/name"):
        said = (tree.optional_text(name_file) or "").lower()
        if said in _CHIPS:
            found.setdefault(name_file.parent.name, (name_file.parent, said))
    return [found[address] for address in sorted(found)]


def _channels(tree: Tree, folder: Path, chip: str) -> list[_Channel]:
    channels: list[_Channel] = []
    for hwmon in [*sorted(folder.glob("hwmon/hwmon*")), *sorted(folder.glob("hwmon*"))]:
        if hwmon.name == "hwmon":
            continue
        channels += _hwmon_238(tree, hwmon) if chip == "ina238" else _hwmon_3221(tree, hwmon)
    for iio in sorted(folder.glob("iio:device*")):
        channels += _iio(tree, iio)
    return channels


def _hwmon_3221(tree: Tree, folder: Path) -> list[_Channel]:
    channels = []
    for n in _CHANNELS:
        volts, amperes = folder / f"in{n}_input", folder / f"curr{n}_input"
        label = tree.optional_text(folder / f"in{n}_label")
        if label is None and not (os.path.exists(volts) and os.path.exists(amperes)):
            continue
        if label is not None and is_not_connected(label):
            continue
        channels.append(
            _Channel(
                label or f"channel {n}", volts, amperes, None, 1.0, _ceiling_mw(tree, folder, n)
            )
        )
    return channels


def _ceiling_mw(tree: Tree, folder: Path, n: int) -> float:
    """Half as much again as the rail's critical current, or the whole board's limit.

    The comparator's limit is configurable and may be far too low (0, or a boot default), so it is
    believed only when it allows at least a watt more than the rail draws right now.
    """
    critical_ma = tree.optional_number(folder / f"curr{n}_crit")
    volts_mv = tree.optional_number(folder / f"in{n}_input")
    now_ma = tree.optional_number(folder / f"curr{n}_input")
    if not critical_ma or not volts_mv or now_ma is None:
        return MAX_BOARD_MW
    ceiling = 1.5 * critical_ma * volts_mv / 1000.0
    if ceiling < 1000.0 + now_ma * volts_mv / 1000.0:
        return MAX_BOARD_MW
    return min(ceiling, MAX_BOARD_MW)


def _hwmon_238(tree: Tree, folder: Path) -> list[_Channel]:
    """INA238 has one channel: bus voltage in1 (mV), curr1 (mA), power1 (uW)."""
    label = next(
        (
            text
            for stem in ("power1_label", "in1_label", "curr1_label", "label")
            if (text := tree.optional_text(folder / stem)) is not None
        ),
        "ina238",
    )
    if is_not_connected(label):
        return []
    power = folder / "power1_input"
    if os.path.exists(power):
        return [_Channel(label, None, None, power, 1000.0, MAX_BOARD_MW)]
    return [_Channel(label, folder / "in1_input", folder / "curr1_input", None, 1.0, MAX_BOARD_MW)]


def _iio(tree: Tree, folder: Path) -> list[_Channel]:
    """JetPack 4: channels are numbered from 0."""
    channels = []
    for n in (0, *_CHANNELS):
        label = tree.optional_text(folder / f"rail_name_{n}")
        if label is None or is_not_connected(label):
            continue
        volts, amperes = folder / f"in_voltage{n}_input", folder / f"in_current{n}_input"
        power = folder / f"in_power{n}_input"
        both = os.path.exists(volts) and os.path.exists(amperes)
        channels.append(
            _Channel(
                label,
                volts if both or not os.path.exists(power) else None,
                amperes if both or not os.path.exists(power) else None,
                power if os.path.exists(power) else None,
                1.0,
                MAX_BOARD_MW,
            )
        )
    return channels

"""Raspberry Pi 5: rails of its PMIC, from ``vcgencmd pmic_read_adc``.

Lines are ``VDD_CORE_A current(7)=0.94657990A`` and ``VDD_CORE_V volt(15)=0.72097620V``; a rail's
power is the product of its pair. ``EXT5V_V`` and ``BATT_V`` have no current and are left out. What
hangs on the USB ports is not seen.
"""

from __future__ import annotations

import re
from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import rail_reading, total_reading
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree, TreeSource

_LINE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+(?:\.\d+)?)([AV])\s*$")
_MAX_BOARD_MW = 40_000.0  # its supply gives 5 V at 5 A

# Published fit of the board's input power against the sum of its rails, in watts.
_FIT_SLOPE, _FIT_OFFSET_W = 1.1451, 0.5879


def parse_pmic(text: str, now_s: float, source: str = "pmic") -> list[Reading]:
    """Every paired rail in mW, and the whole board by the published fit."""
    pairs: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match[2] == match[4]:
            pairs.setdefault(match[1], {})[match[2]] = float(match[3])
    rails = []
    for name, pair in pairs.items():
        if "A" not in pair or "V" not in pair:
            continue
        power = pair["A"] * pair["V"] * 1000.0
        rails.append(rail_reading(name, source, now_s, power, ceiling_mw=_MAX_BOARD_MW))
    bad = [rail.name for rail in rails if rail.value is None]
    alone = [
        name for name, pair in pairs.items() if "A" in pair and "V" not in pair
    ]  # a current whose voltage is missing is a rail that we cannot add
    value, condition, detail = None, Condition.ABSENT, "vcgencmd printed no pair of A and V"
    if bad or (alone and rails):
        condition, detail = Condition.INCOMPLETE, f"no power for {', '.join([*bad, *alone])}"
    elif rails:
        sum_w = sum(rail.value for rail in rails if rail.value is not None) / 1000.0
        value, condition = (_FIT_SLOPE * sum_w + _FIT_OFFSET_W) * 1000.0, Condition.OK
        detail = ""
    said = value, condition, detail
    covers = "board without USB loads, by a published fit over the rails"
    total = total_reading("board", source, now_s, said, covers=covers, ceiling_mw=_MAX_BOARD_MW)
    return [*rails, total]


class PmicSource(TreeSource):
    """The Pi 5's PMIC."""

    name = "pmic"

    def __init__(self, tree: Tree, command: Path) -> None:
        self._tree = tree
        self._command = command

    @classmethod
    def find(cls, tree: Tree) -> PmicSource | str:
        """The board's PMIC, or the line that says why there is none."""
        command = tree.command("vcgencmd")
        if command is None:
            return "no vcgencmd command (Raspberry Pi)"
        try:
            said = tree.run(command, ["pmic_read_adc"])
        except ReadFault as fault:
            return f"{fault.detail} (the group video may ask it: usermod -aG video USER)"
        if parse_pmic(said, 0.0)[-1].condition is Condition.ABSENT:
            return "vcgencmd knows no PMIC (only the Raspberry Pi 5 has one that measures)"
        return cls(tree, command)

    def describe(self) -> str:
        """The command, for people."""
        return "vcgencmd pmic_read_adc"

    def read(self, now_s: float) -> list[Reading]:
        """Every rail, and the board."""
        try:
            return parse_pmic(self._tree.run(self._command, ["pmic_read_adc"]), now_s)
        except ReadFault as fault:
            about = "board", Role.TOTAL, "mW", self.name, now_s
            return [Reading(*about, None, fault.condition, fault.detail)]

"""What the rails of NVIDIA's boards mean: which is the total, which may be summed.

One table for sysfs and tegrastats, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.tree import ReadFault

# The largest module's power mode is 130 W (Jetson Thor); twice that is no longer a measurement.
MAX_BOARD_MW = 260_000.0

# Rails that measure the whole module at its input.
_TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")

# Boards without a total: the complete sets whose sum is the module's power.
_COMPLETE_SETS = (
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}),  # AGX Orin
    frozenset({"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),  # AGX Xavier
)


def is_not_connected(label: str) -> bool:
    """Whether a channel's label says that nothing is soldered to it ("NC", "NC_1")."""
    return "NC" in label.upper().replace("-", "_").split("_") or label.upper() == "NC"


def rail_reading(
    name: str,
    source: str,
    now_s: float,
    power: float | ReadFault,
    *,
    covers: str = "one rail",
    ceiling_mw: float = MAX_BOARD_MW,
) -> Reading:
    """One rail's power in mW, or why it is not known; less than nothing is no power."""
    value, condition, detail = None, Condition.OK, ""
    if isinstance(power, ReadFault):
        condition, detail = power.condition, power.detail
    elif power < 0:
        condition, detail = Condition.NEGATIVE, f"{power:.0f} mW"
    else:
        value = power
    return Reading(
        name,
        Role.RAIL,
        "mW",
        source,
        now_s,
        value,
        condition,
        detail,
        covers=covers,
        ceiling=ceiling_mw,
        repeat_limit_s=300.0,  # an unused rail may rest on one step of its converter
    )


def total_reading(
    name: str,
    source: str,
    taken_s: float,
    said: tuple[float | None, Condition, str],
    *,
    covers: str,
    ceiling_mw: float = MAX_BOARD_MW,
    repeat_limit_s: float = 60.0,
) -> Reading:
    """A source's whole power in mW; ``said``: its value, or the condition in its place and why."""
    about = name, Role.TOTAL, "mW", source, taken_s
    return Reading(*about, *said, covers=covers, ceiling=ceiling_mw, repeat_limit_s=repeat_limit_s)


def total_of_rails(rails: Sequence[Reading], source: str, now_s: float) -> Reading:
    """The module's power from its rails: the input rail where there is one, else their sum.

    A sum is stated only for a set of rails that the table knows to be complete: an unknown label
    may be a renamed total, and adding it to its own parts would double the board's power.
    """

    def total(
        value: float | None,
        condition: Condition,
        detail: str,
        name: str,
        ceiling_mw: float = MAX_BOARD_MW,
    ) -> Reading:
        taken_s = min((r.taken_s for r in rails), default=now_s)
        said = value, condition, detail
        covers = "whole module"
        return total_reading(name, source, taken_s, said, covers=covers, ceiling_mw=ceiling_mw)

    by_label = {rail.name: rail for rail in rails}
    for label in _TOTALS:
        if label in by_label:
            rail = by_label[label]
            return total(rail.value, rail.condition, rail.detail, label, rail.ceiling)
    labels = frozenset(by_label)
    if not labels:
        return total(None, Condition.ABSENT, "no connected rail", "total")
    for complete in _COMPLETE_SETS:
        if labels == complete:
            parts = [rail.within_ceiling() for rail in rails]
            bad = [rail for rail in parts if rail.value is None]
            if bad:
                said = "; ".join(f"{rail.name}: {rail.text()}" for rail in bad)
                return total(None, Condition.INCOMPLETE, said, "sum of rails")
            value = sum(rail.value for rail in parts if rail.value is not None)
            return total(value, Condition.OK, "", "sum of rails")
    for complete in _COMPLETE_SETS:
        if labels < complete:
            said = f"rails missing: {', '.join(sorted(complete - labels))}"
            return total(None, Condition.INCOMPLETE, said, "sum of rails")
    said = f"rails {', '.join(sorted(labels))} hold no known total and are no known complete set"
    return total(None, Condition.UNKNOWN_RAIL, said, "total")

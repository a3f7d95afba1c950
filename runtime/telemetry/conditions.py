"""What a measurement was taken under: power mode, clocks, throttling.

These are states, not powers; the profiler records them before and after, and marks a run invalid
when they moved.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass, field

from tatvpr_edge.runtime.telemetry.tree import ReadFault, Tree

_MODE = re.compile(r"NV Power Mode\s*:\s*(\S.*)", re.IGNORECASE)
# vcgencmd get_throttled: what is happening now (bits 0-3); bits 16-19 say "since boot".
_THROTTLED_NOW = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}


def parse_nvpmodel(text: str) -> str:
    """The mode that ``nvpmodel -q`` names; "not set" or "unknown" where it names none."""
    match = _MODE.search(text)
    if match:
        return match[1].strip()
    return "not set" if "not set" in text.lower() else "unknown"


def parse_throttled(text: str) -> list[str] | None:
    """What ``vcgencmd get_throttled`` says is happening now; None where it says nothing."""
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", text)
    if match is None:
        return None
    bits = int(match[1], 16)
    return [said for bit, said in _THROTTLED_NOW.items() if bits >> bit & 1]


@dataclass(frozen=True)
class Conditions:
    """The machine's state at one moment; what cannot be read is None or empty, never invented."""

    machine: str
    processor: str
    power_mode: str | None
    scaling_governor: str | None
    clock_mhz: tuple[float, ...] = ()
    """Present clock of every core that tells."""
    throttle_count: int | None = None
    """x86 thermal throttle events since boot, over all cores."""
    throttled_now: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, object]:
        """For manifests and reports."""
        return {
            **asdict(self),
            "clock_mhz": list(self.clock_mhz),
            "throttled_now": list(self.throttled_now),
        }


def read_conditions(tree: Tree) -> Conditions:
    """The state of the board under ``tree``."""
    clock_mhz = _clocks_mhz(tree)  # first: they fall while a command is waited for
    return Conditions(
        machine=tree.optional_text(tree.path("/proc/device-tree/model")) or platform.machine(),
        processor=_processor(tree),
        power_mode=_power_mode(tree),
        scaling_governor=tree.optional_text(
            tree.path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        ),
        clock_mhz=clock_mhz,
        throttle_count=_throttle_count(tree),
        throttled_now=_throttled_now(tree),
    )


def busy_core_s(tree: Tree) -> float | None:
    """Seconds that all cores together have been busy since boot; None where not told."""
    line = (tree.optional_text(tree.path("/proc/stat")) or "").partition("\n")[0]
    fields = line.split()
    if len(fields) < 9 or fields[0] != "cpu" or not all(x.isdigit() for x in fields[1:9]):
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _processor(tree: Tree) -> str:
    try:
        with open(tree.path("/proc/cpuinfo"), encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model", "Hardware"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _power_mode(tree: Tree) -> str | None:
    command = tree.command("nvpmodel")
    if command is None:
        return None
    try:
        return parse_nvpmodel(tree.run(command, ["-q"]))
    except ReadFault as fault:
        return f"unknown ({fault.detail})"


def _clocks_mhz(tree: Tree) -> tuple[float, ...]:
    clocks = [
        khz / 1000.0
        for path in tree.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
        if (khz := tree.optional_number(path)) is not None
    ]
    if clocks:
        return tuple(clocks)
    try:
        text = tree.path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE))


def _throttle_count(tree: Tree) -> int | None:
    counts = [
        tree.optional_number(path)
        for path in tree.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    ]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def _throttled_now(tree: Tree) -> tuple[str, ...]:
    command = tree.command("vcgencmd")
    if command is None:
        return ()
    try:
        return tuple(parse_throttled(tree.run(command, ["get_throttled"])) or ())
    except ReadFault:
        return ()

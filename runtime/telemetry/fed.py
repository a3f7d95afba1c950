"""Power, charge and heat that a program measures itself, and feeds.

For boards whose sensors only a program of the robot's can read: a flight controller's battery
(MAVLink ``BATTERY_STATUS``), a current sensor on the program's own bus, a charger with a protocol::

    source = FedSource("mavlink", covers="the whole robot")
    with Sampler([source]) as sampler:
        localizer = Localizer(k="auto", budget="20W", telemetry=sampler)
        ...
        source.feed(power_w=status.voltage * status.current, battery_percent=status.remaining)

What was fed grows old as any reading does: a program that stops feeding is a sensor that was lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.thermal import MAX_C, MIN_C
from tatvpr_edge.spec.values import number, wrong

_FIELDS = (
    ("power_w", "power", Role.TOTAL, "mW", 1000.0),
    ("temperature_c", "temperature", Role.TEMPERATURE, "C", 1.0),
    ("battery_j", "energy left", Role.BATTERY_ENERGY, "J", 1.0),
    ("battery_percent", "charge", Role.BATTERY_CHARGE, "%", 1.0),
)
#: What a field may be, where that is less than any finite number from 0 up.
_RANGES = {"temperature_c": (MIN_C, MAX_C), "battery_percent": (0.0, 100.0)}


class FedSource:
    """A source of a `Sampler` that says what it was last told. Safe to feed from any thread.

    Args:
        name: for people and logs.
        covers: what the power includes.
        clock: monotonic seconds, the same as the sampler's.
    """

    def __init__(
        self,
        name: str = "program",
        covers: str = "what the program measures",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._covers = covers
        self._clock = clock
        self._fed: dict[str, tuple[float, float]] = {}  # field: (value, when)

    def feed(
        self,
        *,
        power_w: float | None = None,
        temperature_c: float | None = None,
        battery_j: float | None = None,
        battery_percent: float | None = None,
    ) -> None:
        """Tells what was measured just now; what is left out keeps its last value and its age.

        Raises:
            UsageError: a number that is not finite, negative where only heat may be, or one that
                no sensor means: a charge above 100 %, heat outside of what thermal zones tell.
        """
        given = {
            "power_w": power_w,
            "temperature_c": temperature_c,
            "battery_j": battery_j,
            "battery_percent": battery_percent,
        }
        now_s = self._clock()
        fresh: dict[str, tuple[float, float]] = {}
        for field, value in given.items():
            if value is None:
                continue
            meaning = "feed a finite number from 0 up, or leave it out"
            given_value = number(value, field, meaning)
            low, high = _RANGES.get(field, (0.0, math.inf))
            if not math.isfinite(given_value) or given_value < low or given_value > high:
                if high < math.inf:
                    meaning = f"feed a number from {low:g} to {high:g}, or leave it out"
                raise wrong(value, field, meaning)
            fresh[field] = (given_value, now_s)
        self._fed = {**self._fed, **fresh}

    def describe(self) -> str:
        """For people."""
        return f"fed by a program: {self._covers}"

    def read(self, now_s: float) -> list[Reading]:
        """What was fed, with the time at which it was; the total is always named."""
        fed = self._fed
        readings = [
            Reading(
                name,
                role,
                unit,
                self.name,
                fed[field][1],
                fed[field][0] * scale,
                covers=self._covers if role is Role.TOTAL else "",
            )
            for field, name, role, unit, scale in _FIELDS
            if field in fed
        ]
        if "power_w" not in fed:
            why = "the program has not fed a power yet"
            readings.append(
                Reading("power", Role.TOTAL, "mW", self.name, now_s, None, Condition.PENDING, why)
            )
        return readings

    def close(self) -> None:
        """Nothing is held."""

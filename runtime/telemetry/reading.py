"""One measured value, or the stated reason why there is none.

Every source produces `Reading`s. A reading is either OK and carries a value, or carries a
`Condition` other than OK and **no value**: nothing downstream can mistake an unread sensor for a
sensor that reads zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum


class Condition(str, Enum):
    """Why a reading has no value; OK is the only condition with one."""

    OK = "ok"
    ABSENT = "absent"  # no such file, command or sensor
    DENIED = "denied"  # EACCES, EPERM
    IO_ERROR = "io-error"  # EIO, EAGAIN, ENXIO: the driver answered with an error
    UNREADABLE = "unreadable"  # empty, "N/A", not a number, not finite
    NEGATIVE = "negative"  # a power below zero
    ABSURD = "absurd"  # beyond what the sensor or the board can mean
    JUMP = "jump"  # ten-fold in one sample, not yet confirmed
    STUCK = "stuck"  # the same value for longer than this sensor can honestly repeat it
    OFFLINE = "offline"  # a thermal zone that is powered down
    INCOMPLETE = "incomplete"  # a total of which a part is unknown
    UNKNOWN_RAIL = "unknown-rail"  # a total that cannot be told: a rail's label is not in the table
    PENDING = "pending"  # an energy counter needs two readings
    CHARGING = "charging"  # a battery that is being filled does not tell what the board draws


class Role(str, Enum):
    """What a reading is about; consumers select by it."""

    TOTAL = "total"  # power of everything that the source covers
    RAIL = "rail"  # power of a part
    TEMPERATURE = "temperature"
    BATTERY_ENERGY = "battery-energy"
    BATTERY_CHARGE = "battery-charge"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value with its unit, source and time, or the condition that stands in its place.

    ``value`` is None unless ``condition`` is OK. ``taken_s`` is on the monotonic clock of whoever
    asked for the reading. ``covers`` says what a power includes ("whole board", "CPU package").
    """

    name: str
    role: Role
    unit: str
    source: str
    taken_s: float
    value: float | None = None
    condition: Condition = Condition.OK
    detail: str = ""
    covers: str = ""
    ceiling: float = math.inf
    """The largest value that this sensor can honestly report, in ``unit``."""
    repeat_limit_s: float = math.inf
    """The longest time for which this sensor can honestly repeat one value."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.condition is Condition.OK):
            raise ValueError(f"{self.name}: a reading has a value exactly when it is OK")

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.condition is Condition.OK

    def age_s(self, now_s: float) -> float:
        """Seconds since the value was taken; never negative, even if the clock went back."""
        return max(0.0, now_s - self.taken_s)

    def without_value(self, condition: Condition, detail: str) -> Reading:
        """This reading with its value replaced by a condition."""
        return replace(self, value=None, condition=condition, detail=detail)

    def within_ceiling(self) -> Reading:
        """This reading, without its value where that is above its ceiling."""
        if self.value is None or self.value <= self.ceiling:
            return self
        said = f"{self.value:.0f} {self.unit} is above {self.ceiling:.0f}"
        return self.without_value(Condition.ABSURD, said)

    def text(self) -> str:
        """The value with its unit, or the condition, for people."""
        if self.value is None:
            return f"{self.condition.value}: {self.detail}" if self.detail else self.condition.value
        if self.unit == "mW":
            return f"{self.value / 1000:.3f} W"
        if self.unit == "text":
            return self.detail
        return f"{self.value:.1f} {self.unit}"

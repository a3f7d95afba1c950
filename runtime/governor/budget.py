"""What the user allows: exactly one of watts, joules a query, milliseconds, degrees, a duration."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from enum import IntEnum

from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.values import shown

_FORMS = '"5W", "800mW", "0.2J", "50mJ", "40ms", "70C", "battery:2h" or "battery:90min@50Wh"'
_VALUE = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z°]+)\s*$")
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)\s*(h|min|m|s)")
_MOST_LETTERS = 100  # the patterns take the cube of a long row of digits
_SECONDS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}


class Kind(IntEnum):
    """Kinds of budget, numbered as in tatvpr_governor.h."""

    NONE = 0
    POWER = 1
    ENERGY = 2
    LATENCY = 3
    TEMPERATURE = 4
    BATTERY = 5


@dataclass(frozen=True)
class Budget:
    """One limit for the governor to hold.

    Exactly one of the first five is given; ``battery_until_s`` counts from the governor's start.
    ``battery_wh`` is the size of a battery whose gauge tells percent only.

    Raises:
        UsageError: none or several are given, or one is not finite and positive.
    """

    power_w: float | None = None
    energy_j_per_query: float | None = None
    latency_ms: float | None = None
    temperature_c: float | None = None
    battery_until_s: float | None = None
    battery_wh: float | None = None

    def __post_init__(self) -> None:
        given = {
            item.name: value
            for item in fields(self)
            if (value := getattr(self, item.name)) is not None
        }
        for name, value in given.items():
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise UsageError(f"budget {name} is {shown(value)}: give a number")
            if not math.isfinite(value) or value <= 0:
                raise UsageError(f"budget {name} is {value}: give a finite number above 0")
        limits = [name for name in given if name != "battery_wh"]
        if len(limits) != 1:
            said = ", ".join(limits) or "none"
            raise UsageError(
                f"a budget holds exactly one limit, not {said}: give one such as {_FORMS}"
            )
        if self.battery_wh is not None and self.battery_until_s is None:
            raise UsageError("battery_wh belongs to battery_until_s: give both, or neither")

    @property
    def kind(self) -> Kind:
        """Which of the limits is given."""
        if self.power_w is not None:
            return Kind.POWER
        if self.energy_j_per_query is not None:
            return Kind.ENERGY
        if self.latency_ms is not None:
            return Kind.LATENCY
        if self.temperature_c is not None:
            return Kind.TEMPERATURE
        return Kind.BATTERY

    @property
    def limit(self) -> float:
        """The limit in the policy's units: mW, mJ, ms, degrees or seconds."""
        if self.power_w is not None:
            return self.power_w * 1000.0
        if self.energy_j_per_query is not None:
            return self.energy_j_per_query * 1000.0
        for value in (self.latency_ms, self.temperature_c, self.battery_until_s):
            if value is not None:
                return value
        raise AssertionError("a Budget always has one limit")

    def __str__(self) -> str:
        """As `parse` reads it."""
        for value, unit in (
            (self.power_w, "W"),
            (self.energy_j_per_query, "J"),
            (self.latency_ms, "ms"),
            (self.temperature_c, "C"),
        ):
            if value is not None:
                return f"{value:.12g} {unit}"
        size = "" if self.battery_wh is None else f"@{self.battery_wh:.12g}Wh"
        return f"battery:{self.battery_until_s:.12g}s{size}"

    @classmethod
    def of(cls, given: Budget | str | None) -> Budget | None:
        """A budget that may be given in its written form; None: none.

        Raises:
            UsageError: it is neither, or not understood.
        """
        return given if given is None or isinstance(given, Budget) else cls.parse(given)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads ``5W``, ``800mW``, ``0.2J``, ``50mJ``, ``40ms``, ``70C`` or ``battery:2h30min``.

        Raises:
            UsageError: the text has none of these forms.
        """
        wrong = UsageError(f"budget {shown(text)} is not understood: write {_FORMS}")
        if not isinstance(text, str) or len(text) > _MOST_LETTERS:
            raise wrong
        head, colon, rest = text.strip().partition(":")
        if colon:
            if head.strip().lower() != "battery":
                raise wrong
            span, at, size = rest.partition("@")
            battery_wh = None
            if at:
                match = _VALUE.match(size)
                if not match or match[2].lower() != "wh":
                    raise wrong
                battery_wh = float(match[1])
            return cls(battery_until_s=_duration_s(span, wrong), battery_wh=battery_wh)
        match = _VALUE.match(text)
        if not match:
            raise wrong
        value, unit = float(match[1]), match[2]
        if unit == "W":
            return cls(power_w=value)
        if unit == "mW":
            return cls(power_w=value / 1000.0)
        if unit == "J":
            return cls(energy_j_per_query=value)
        if unit == "mJ":
            return cls(energy_j_per_query=value / 1000.0)
        if unit == "ms":
            return cls(latency_ms=value)
        if unit == "s":
            return cls(latency_ms=value * 1000.0)
        if unit in ("C", "°C"):
            return cls(temperature_c=value)
        raise wrong


def _duration_s(text: str, wrong: UsageError) -> float:
    span = text.strip()
    parts = _DURATION.findall(span)
    if not parts or _DURATION.sub("", span).strip():
        raise wrong
    return sum(float(amount) * _SECONDS[unit] for amount, unit in parts)

"""Which fresh readings are believed: ceilings, ten-fold jumps, stuck values.

Sources say what a sensor printed; this says whether it can be meant.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role

_LEAST_BOARD_MW = 10.0  # whatever runs this draws more: the sensor has failed
_JUMP_FACTOR = 10.0
_JUMP_FLOOR_MW = 1000.0  # below a watt, a rail that wakes up may well draw ten times as much
_CONFIRM_S = 1.0
_CONFIRM_SAMPLES = 3
_STUCK_SAMPLES = 20
_HISTORY = 9


@dataclass
class _Channel:
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    last_value: float | None = None
    last_taken_s: float = 0.0
    same_since_s: float = 0.0
    same_samples: int = 0
    jump_since_s: float = 0.0
    jump_samples: int = 0


class Plausibility:
    """A filter with a memory of a few samples per sensor."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str, Role], _Channel] = {}

    def judge(self, reading: Reading) -> Reading:
        """The reading itself, or the same without its value and with the reason."""
        if reading.value is None:
            return reading
        channel = self._channels.setdefault(
            (reading.source, reading.name, reading.role), _Channel()
        )
        value = reading.value
        if not math.isfinite(value):
            return reading.without_value(Condition.UNREADABLE, f"{value} is no number")
        if value > reading.ceiling:
            return reading.within_ceiling()
        if reading.role is Role.TOTAL and value < _LEAST_BOARD_MW:
            return reading.without_value(
                Condition.ABSURD, f"{value:.0f} {reading.unit} from a board that runs"
            )
        if reading.role not in (Role.TOTAL, Role.RAIL):
            return reading
        if reading.taken_s == channel.last_taken_s and value == channel.last_value:
            # One sample handed over twice (tegrastats between its lines) tells nothing new.
            return self._stuck(reading, channel) or reading
        stuck = self._remember(reading, channel)
        if reading.role is Role.TOTAL and self._jumped(reading, channel):
            median = sorted(channel.recent)[len(channel.recent) // 2]
            return reading.without_value(
                Condition.JUMP, f"{value:.0f} {reading.unit} after {median:.0f}"
            )
        channel.recent.append(value)
        return stuck or reading

    def _remember(self, reading: Reading, channel: _Channel) -> Reading | None:
        if reading.value == channel.last_value:
            channel.same_samples += 1
        else:
            channel.same_samples = 1
            channel.same_since_s = reading.taken_s
        channel.last_value = reading.value
        channel.last_taken_s = reading.taken_s
        return self._stuck(reading, channel)

    @staticmethod
    def _stuck(reading: Reading, channel: _Channel) -> Reading | None:
        same_s = reading.taken_s - channel.same_since_s
        if channel.same_samples >= _STUCK_SAMPLES and same_s > reading.repeat_limit_s:
            return reading.without_value(
                Condition.STUCK, f"{reading.value:.0f} {reading.unit} for {same_s:.0f} s"
            )
        return None

    @staticmethod
    def _jumped(reading: Reading, channel: _Channel) -> bool:
        """Whether this sample is ten times its past and has not yet been confirmed.

        A real load step repeats itself within a second and is then believed; a glitch does not. A
        change of unit is a thousand-fold and ends at the ceiling.
        """
        value = reading.value
        if value is None or len(channel.recent) < 3:
            return False
        median = sorted(channel.recent)[len(channel.recent) // 2]
        up = value > _JUMP_FACTOR * median and value > _JUMP_FLOOR_MW
        down = value * _JUMP_FACTOR < median and median > _JUMP_FLOOR_MW
        if not (up or down):
            channel.jump_samples = 0
            return False
        if channel.jump_samples == 0:
            channel.jump_since_s = reading.taken_s
        channel.jump_samples += 1
        if (
            channel.jump_samples >= _CONFIRM_SAMPLES
            and reading.taken_s - channel.jump_since_s >= _CONFIRM_S
        ):
            channel.jump_samples = 0
            channel.recent.clear()
            return False
        return True

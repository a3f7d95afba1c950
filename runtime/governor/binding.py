"""The governor in C (``runtime/core/governor``), through ctypes: the one place that decides.

It is part of every artifact's library; ``GovernorCore`` is that part of a library that is loaded
already. Nothing here chooses: structures, their units and their order are ``tatvpr_governor.h``'s.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from enum import IntEnum

from tatvpr_edge.runtime.cfields import DOUBLE, INT32, POINTER, SIZE, UINT32, c_fields
from tatvpr_edge.runtime.governor.budget import Kind
from tatvpr_edge.runtime.governor.level import Level
from tatvpr_edge.spec.errors import ArtifactError, UsageError

_VERSION = 2  # TATVPR_GOVERNOR_VERSION
_MAX_LEVELS = 16
_MAX_SWITCHES = 6  # in a minute, TATVPR_GOVERNOR_SWITCHES


class Reason(IntEnum):
    """Why the level is what it is, numbered as in tatvpr_governor.h."""

    START = 0  # not enough seen yet
    WITHIN = 1  # the budget holds and a higher level would not fit
    BEST = 2  # the highest level, and the budget holds
    ROOM = 3  # went up
    OVER = 4  # went down
    IMPOSSIBLE = 5  # the smallest level exceeds the budget
    NO_TELEMETRY = 6  # the safe level
    SWITCH_LIMIT = 7  # would switch, but has done so too often in the last minute
    SETTLING = 8  # waits for the sensors to see the last switch
    WAITING = 9  # a higher level would fit; waits until that is sure
    PRESET = 10  # no budget: the preset's level
    NO_COST = 11  # an energy budget without measured energies: the safe level


class Preference(IntEnum):
    """How a budget is used, numbered as in tatvpr_governor.h."""

    BALANCED = 0
    TURBO = 1  # to the last percent; without a budget, the costliest level
    SAVER = 2  # a fifth below it; without a budget, the cheapest level


class Inputs(ctypes.Structure):
    """What was measured since the last step; NaN stands for "no such reading"."""

    now_s: float
    power_mw: float
    power_age_s: float
    temperature_c: float
    temperature_age_s: float
    battery_mj: float
    battery_age_s: float
    queries: float
    busy_ms: float
    search_ms: float
    _fields_ = c_fields(
        (DOUBLE, "now_s power_mw power_age_s temperature_c temperature_age_s"),
        (DOUBLE, "battery_mj battery_age_s queries busy_ms search_ms"),
    )

    def __init__(self, now_s: float, **measured: float) -> None:
        unknown = {"power_mw": math.nan, "temperature_c": math.nan, "battery_mj": math.nan}
        super().__init__(now_s, **(unknown | measured))


class Figures(ctypes.Structure):
    """What the governor sees; NaN where it does not know. Units as in tatvpr_governor.h."""

    level: int
    reason: int
    switches: int
    measured: int
    limit: float
    rate_hz: float
    query_ms: float
    search_ms: float
    latency_ratio: float
    query_mw: float
    query_mj: float
    next_needs: float
    next_barred_s: float
    _fields_ = c_fields(
        (INT32, "level reason switches measured"),
        (DOUBLE, "limit rate_hz query_ms search_ms latency_ratio"),
        (DOUBLE, "query_mw query_mj next_needs next_barred_s"),
    )


_LEVEL_FIELDS = tuple(field.name for field in fields(Level))


class _Level(ctypes.Structure):
    _fields_ = c_fields((DOUBLE, " ".join(_LEVEL_FIELDS)))


_LEVELS = ctypes.POINTER(_Level)
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "bytes": (SIZE, [UINT32]),
    "frontier": (INT32, [_LEVELS, INT32, ctypes.c_int]),
    "init": (
        ctypes.c_int,
        [
            *(POINTER, _LEVELS, INT32, ctypes.c_int, DOUBLE),
            *(INT32, INT32, POINTER),
        ],
    ),
    "prefer": (None, [POINTER, ctypes.c_int]),
    "step": (INT32, [POINTER, ctypes.POINTER(Inputs)]),
    "look": (None, [POINTER, DOUBLE, ctypes.POINTER(Figures)]),
    "why": (ctypes.c_char_p, [INT32]),
}


class GovernorCore:
    """The governor's part of a loaded library.

    Raises:
        ArtifactError: the library was built with another version of the governor.
    """

    max_levels = _MAX_LEVELS
    max_switches = _MAX_SWITCHES

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {}
        try:
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, f"tatvpr_governor_{name}")
                function.restype, function.argtypes = result, arguments
                self._functions[name] = function
        except AttributeError:
            raise _another_version() from None
        self.state_bytes = int(self._functions["bytes"](_VERSION))
        if self.state_bytes == 0:
            raise _another_version()

    def frontier(self, points: Sequence[Level], kind: Kind) -> list[Level]:
        """The points that are worth having under a kind of budget, in ascending cost, at most 16.

        Raises:
            UsageError: no point, or a k or tokens outside (0, 1].
        """
        table = _table(points)
        count = self._functions["frontier"](table, len(points), int(kind))
        if count < 1:
            raise UsageError("levels need at least one point with k and tokens above 0, at most 1")
        return [Level(*(getattr(row, name) for name in _LEVEL_FIELDS)) for row in table[:count]]

    def why(self, reason: Reason) -> str:
        """One line of English."""
        text: bytes = self._functions["why"](int(reason))
        return text.decode()


class CGovernor:
    """One governor: numbers in, a level out. It knows no sensor, no clock and no thread.

    Args:
        levels: 1 to 16 in ascending cost, as `GovernorCore.frontier` orders them.
        kind: what ``limit`` bounds.
        limit: mW, mJ, ms, degrees, or seconds from the first step, by ``kind``.
        safe: the level without telemetry.
        preference: how the budget is used; without one, which end of the levels is taken.

    Raises:
        UsageError: levels, limit or an index outside their range.
    """

    def __init__(
        self,
        core: GovernorCore,
        levels: Sequence[Level],
        kind: Kind,
        limit: float,
        safe: int = 0,
        preference: Preference = Preference.BALANCED,
    ) -> None:
        self.kind = kind
        self.safe = safe
        self._functions = core._functions
        self._state = (DOUBLE * -(-core.state_bytes // 8))()
        status = self._functions["init"](
            self._state, _table(levels), len(levels), int(kind), limit, safe, 0, None
        )
        if status != 0:
            raise UsageError(
                f"a governor of {len(levels)} levels (1 to {_MAX_LEVELS}), safe level {safe} and "
                f"limit {limit}: a number is outside its range"
            )
        self._functions["prefer"](self._state, int(preference))
        self._first = ctypes.cast(self._state, ctypes.POINTER(INT32))

    @property
    def level(self) -> int:
        """The level in force; leads the structure."""
        return int(self._first[0])

    @property
    def reason(self) -> Reason:
        """The rule that decided last."""
        return Reason(self._first[1])

    def step(self, inputs: Inputs) -> int:
        """Takes in what was measured, and returns the level from now on."""
        level: int = self._functions["step"](self._state, inputs)
        return level

    def look(self, now_s: float) -> Figures:
        """What it sees at a time on the clock of the steps."""
        figures = Figures()
        self._functions["look"](self._state, now_s, figures)
        return figures


def _table(levels: Sequence[Level]) -> ctypes.Array[_Level]:
    return (_Level * max(1, len(levels)))(*(_Level(*astuple(level)) for level in levels))


def _another_version() -> ArtifactError:
    return ArtifactError(
        "this artifact's library holds another version of the governor than this runtime binds: "
        "build the artifact again"
    )

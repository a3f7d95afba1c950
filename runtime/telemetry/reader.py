"""One source with what it last said: looked for and read in whichever thread asks.

A driver may load after us, and a sensor be unplugged and come back under another number: what is
not there is looked for again now and then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tatvpr_edge.runtime.telemetry.discover import Found, Source
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role

LOOK_AGAIN_S = 30.0


class Reader:
    """A source that may still have to be found.

    Args:
        name: of the family of sensors.
        find: looks for it; may block as long as a driver does. None: it is at hand.
    """

    def __init__(self, name: str, find: Callable[[], Found] | None) -> None:
        self.name = name
        self.source: Source | None = None
        self.missing: dict[str, str] = {}
        self.readings: list[Reading] = []
        self.answered = threading.Event()
        self.cost_s = 0.0
        self._find = find
        self._looked_s: float | None = None

    @classmethod
    def of(cls, source: Source) -> Reader:
        """A source that is at hand."""
        made = cls(source.name, None)
        made.source = source
        return made

    def look(self, now_s: float) -> None:
        """Finds the source, or notes why there is none; again where nothing of it is there."""
        if self._find is None:
            return
        if self._looked_s is not None:
            gone = all(reading.condition is Condition.ABSENT for reading in self.readings)
            if not gone or 0 <= now_s - self._looked_s < LOOK_AGAIN_S:
                return
        found = self._find()
        self._looked_s = now_s  # not before: a child forked meanwhile looks for itself
        if found.source is not None or self.source is None:
            self.source, self.missing = found

    def read(self, now_s: float) -> list[Reading]:
        """What the source says. It must not raise; one that does says so in its reading."""
        if self.source is None:
            return []
        try:
            return self.source.read(now_s)
        except Exception as error:
            about = self.source.name, Role.TOTAL, "mW", self.source.name, now_s
            why = f"{type(error).__name__}: {error}"
            return [Reading(*about, None, Condition.IO_ERROR, why)]

    def owns(self, reading: Reading) -> bool:
        """Whether a reading is this source's."""
        return self.source is not None and self.source.name == reading.source

    def after_fork(self) -> None:
        """A thread of the parent may have held the event's lock."""
        was_set = self.answered.is_set()
        self.answered = threading.Event()
        if was_set:
            self.answered.set()

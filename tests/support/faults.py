"""The count of injected faults: how many there were, and how many left the old state or the new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

_INJECTED, _HELD = "faults injected in ", "faults held in "


class Faults:
    """Counts the faults of a test by area: deploy, map, build, service, telemetry."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    def count(self, area: str, held: bool, what: object) -> None:
        """One fault was injected; ``held``: it left the old state or the new one.

        Raises:
            AssertionError: it did not.
        """
        self.injected[area] += 1
        assert held, what
        self.held[area] += 1

    def record(self, record_property: Callable[[str, Any], None]) -> None:
        """Keep the counts with the test's report."""
        for area in self.injected:
            record_property(_INJECTED + area, self.injected[area])
            record_property(_HELD + area, self.held[area])


def summary(reports: list[Any]) -> str | None:
    """One line of all areas; None where no fault was injected."""
    injected: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for report in reports:
        if getattr(report, "when", "") != "teardown":
            continue  # what a test recorded is in each of its reports; the last has all of it
        for name, value in getattr(report, "user_properties", ()):
            for prefix, sums in ((_INJECTED, injected), (_HELD, held)):
                if name.startswith(prefix):
                    sums[name.removeprefix(prefix)] += value
    if not injected:
        return None
    areas = ", ".join(f"{area} {held[area]} of {injected[area]}" for area in sorted(injected))
    total = f"{sum(held.values())} of {sum(injected.values())}"
    return f"injected faults that left the old state or the new: {areas}; together {total}"

"""What a soak counts: things done, faults injected, and everything that should not have been."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

_MOST_LINES = 40


class Ledger:
    """Counts from any thread. A missed answer or an error of ours fails the soak."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.lines: list[str] = []
        self.slowest_s: dict[str, float] = {}
        self._began = time.monotonic()

    def did(self, what: str, seconds: float = 0.0, times: int = 1) -> None:
        """``what`` went as it should."""
        with self._lock:
            self.done[what] += times
            self.slowest_s[what] = max(self.slowest_s.get(what, 0.0), seconds)

    def fault(self, kind: str, times: int = 1) -> None:
        """A fault was injected."""
        with self._lock:
            self.faults[kind] += times

    def miss(self, what: str, why: str) -> None:
        """``what`` should have been answered, kept or found, and was not."""
        with self._lock:
            self.missed[what] += 1
            if len(self.lines) < _MOST_LINES:
                self.lines.append(f"{time.monotonic() - self._began:8.1f} s  {what}: {why[:300]}")

    def watch(self, what: str, work: Callable[[], None]) -> None:
        """Run a thread's whole work: where it ends by an exception, that is a miss."""
        try:
            work()
        except Exception as error:
            self.miss(what, f"it ended with {type(error).__name__}: {error}")

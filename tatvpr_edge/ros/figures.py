"""What the node counts while it runs, for its diagnostics. Safe to share between threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Answers that rates and percentiles are taken over: ten seconds of a camera.
WINDOW = 300


@dataclass(frozen=True)
class Summary:
    """The figures at one moment.

    Attributes:
        answered, accepted, failed: images so far; of the first two, those that were accepted.
        rate_hz: answers a second over the last ones; None before there are two.
        latency_p50_ms, latency_p95_ms: from an image's arrival to its answer; None before one.
        silent_s: since the last image, or since the node became active; None while it is not.
        fault: why the last image failed; None since one succeeded.
    """

    answered: int
    accepted: int
    failed: int
    rate_hz: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    silent_s: float | None
    fault: str | None


class Figures:
    """Counts images. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answered = self._accepted = self._failed = 0
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None
        self._fault: str | None = None

    def started(self) -> None:
        """The node waits for images from now on."""
        with self._lock:
            self._last = self._clock()
            self._times.clear()

    def stopped(self) -> None:
        """The node no longer waits."""
        with self._lock:
            self._last = None

    def answered(self, latency_ms: float, accepted: bool) -> None:
        """An image was answered."""
        with self._lock:
            self._last = self._clock()
            self._answered += 1
            self._accepted += accepted
            self._times.append(self._last)
            self._latencies.append(latency_ms)
            self._fault = None

    def passed_over(self) -> None:
        """An image came sooner than one is answered again."""
        with self._lock:
            self._last = self._clock()

    def failed(self, fault: str) -> bool:
        """An image could not be answered. Whether this fault is news."""
        with self._lock:
            self._last = self._clock()
            self._failed += 1
            before, self._fault = self._fault, fault
            return before != fault

    def summary(self) -> Summary:
        """All of it, now."""
        with self._lock:
            now, times, latencies = self._clock(), list(self._times), list(self._latencies)
            p50, p95 = np.percentile(latencies, (50, 95)) if latencies else (None, None)
            apart = times[-1] - times[0] if len(times) > 1 else 0.0
            return Summary(
                self._answered,
                self._accepted,
                self._failed,
                (len(times) - 1) / apart if apart > 0 else None,
                None if p50 is None else float(p50),
                None if p95 is None else float(p95),
                None if self._last is None else now - self._last,
                self._fault,
            )

"""Whether a process grows: memory in RAM, open files and threads, sampled from /proc."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

#: What a third of a soak may grow by: allocators keep pages that they were once given, and a look
#: may fall between a file that is opened and its end.
MAX_GROWN_MB = 6.0
MAX_NEW_DESCRIPTORS = 4
MAX_NEW_THREADS = 4


@dataclass(frozen=True)
class Sample:
    """A process at one moment."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int


def look(pid: int, at_s: float) -> Sample | None:
    """The process ``pid`` now; None where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as source:
            pages = int(source.read().split()[1])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError, ValueError):
        return None
    return Sample(at_s, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, threads)


@dataclass
class Trend:
    """A process over time. The first third warms up; what follows is halved and compared."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    def add(self, at_s: float) -> None:
        """Look once more."""
        sample = look(self.pid, at_s)
        if sample is not None:
            self.samples.append(sample)

    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        warm = self.samples[len(self.samples) // 3 :]
        return warm[: len(warm) // 2], warm[len(warm) // 2 :]

    def grown(self, of: Callable[[Sample], float]) -> float:
        """Median of the last third less the median of the third before it."""
        early, late = self._halves()
        if not early or not late:
            return 0.0
        return statistics.median(map(of, late)) - statistics.median(map(of, early))

    @property
    def slope_mb_per_hour(self) -> float:
        """Theil and Sen's slope of the memory in RAM after the warm-up."""
        warm = self.samples[len(self.samples) // 3 :]
        step = max(1, len(warm) // 200)
        points = warm[::step]
        slopes = [
            (b.rss_mb - a.rss_mb) / (b.at_s - a.at_s)
            for i, a in enumerate(points)
            for b in points[i + 1 :]
            if b.at_s > a.at_s
        ]
        return 3600 * statistics.median(slopes) if slopes else 0.0

    def faults(self) -> list[str]:
        """What grew beyond the limits, in words."""
        found = []
        for what, of, limit in (
            ("MB of memory", lambda s: s.rss_mb, MAX_GROWN_MB),
            ("open files", lambda s: float(s.descriptors), float(MAX_NEW_DESCRIPTORS)),
            ("threads", lambda s: float(s.threads), float(MAX_NEW_THREADS)),
        ):
            grown = self.grown(of)
            if grown > limit:
                found.append(f"{self.name} grew by {grown:.1f} {what} ({limit:g} allowed)")
        return found

    def line(self) -> str:
        """For the report."""
        if not self.samples:
            return f"{self.name}: never seen"
        last = self.samples[-1]
        most = max(sample.rss_mb for sample in self.samples)
        return (
            f"{self.name}: {last.rss_mb:.1f} MB in RAM at the end, {most:.1f} at most, "
            f"{self.grown(lambda s: s.rss_mb):+.2f} MB over the last third "
            f"({self.slope_mb_per_hour:+.1f} MB/h), {last.descriptors} files open "
            f"({self.grown(lambda s: float(s.descriptors)):+.0f}), {last.threads} threads"
        )

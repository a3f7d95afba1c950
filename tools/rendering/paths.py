"""A closed way through a map: where a robot can drive, out one way and back another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rendering.walls import Walls

Array = NDArray[np.float64]
Cell = tuple[int, int]

#: Between cells, in map units: one metre.
CELL = 32.0
#: To walls, in map units: the robot's radius and some room to turn in.
CLEARANCE = 30.0
#: Ways out and back stay so far apart, but for their ends, in map units.
APART = 224.0
#: Points that are tried as the far end of a loop.
ENDS = 12


class Ground:
    """Cells of a map that can be driven on from a start, and the ways between them.

    Args:
        walls: the map's blocking lines.
        start: a point known to be free, in map units.
        same_floor: whether the engine puts the camera at a cell, and no step leads from the other.
    """

    def __init__(
        self, walls: Walls, start: tuple[float, float], same_floor: Callable[[Cell, Cell], bool]
    ) -> None:
        self._walls, self._same_floor = walls, same_floor
        self._origin = start
        self._next: dict[Cell, list[Cell]] = {}
        self._explore((0, 0))

    @property
    def cells(self) -> list[Cell]:
        """All that can be reached."""
        return list(self._next)

    def point(self, cell: Cell) -> tuple[float, float]:
        """The middle of a cell, in map units."""
        return self._origin[0] + cell[0] * CELL, self._origin[1] + cell[1] * CELL

    def _explore(self, first: Cell) -> None:
        waiting = [first]
        self._next[first] = []
        while waiting:
            cell = waiting.pop()
            for other in _around(cell):
                if other not in self._next:
                    if not self._drivable(cell, other):
                        continue
                    self._next[other] = []
                    waiting.append(other)
                elif not self._clear(cell, other):
                    continue
                self._next[cell].append(other)
                self._next[other].append(cell)

    def _drivable(self, cell: Cell, other: Cell) -> bool:
        if self._walls.clearance(*self.point(other)) < CLEARANCE:
            return False
        return self._clear(cell, other) and self._same_floor(cell, other)

    def _clear(self, cell: Cell, other: Cell) -> bool:
        return self._walls.reach(*self.point(cell), *self.point(other))

    def shortest(
        self, start: Cell, end: Cell | None = None, barred: frozenset[Cell] = frozenset()
    ) -> tuple[dict[Cell, float], dict[Cell, Cell]]:
        """Dijkstra from ``start``, until ``end``: cells' distances and the cells before them."""
        far, before = {start: 0.0}, {}
        queue = [(0.0, start)]
        done = set()
        while queue:
            length, cell = heapq.heappop(queue)
            if cell == end:
                break
            if cell in done:
                continue
            done.add(cell)
            for other in self._next[cell]:
                if other in barred:
                    continue
                further = length + math.dist(cell, other)
                if further < far.get(other, math.inf):
                    far[other], before[other] = further, cell
                    heapq.heappush(queue, (further, other))
        return far, before

    def loop(self, rng: np.random.Generator, least: int, most: int) -> Array | None:
        """A closed way of ``least`` to ``most`` cells, float64 [N, 2] in map units: the roundest of
        some that are tried. None where there is none."""
        best, best_area = None, 0.0
        starts = [self.cells[i] for i in rng.integers(len(self._next), size=ENDS)]
        for start in starts:
            far, before = self.shortest(start)
            ends = [c for c, length in far.items() if least / 4 <= length <= most / 2]
            for i in rng.permutation(len(ends))[:ENDS]:
                found = self._there_and_back(start, ends[i], before)
                if found is None or not least <= len(found) <= most:
                    continue
                points = np.array([self.point(cell) for cell in found])
                area = _area(points)
                if area > best_area:
                    best, best_area = points, area
        return best

    def _there_and_back(
        self, start: Cell, end: Cell, before: dict[Cell, Cell]
    ) -> list[Cell] | None:
        out = _trace(before, start, end)
        reach = APART / CELL
        free = {c for c in self._next if min(math.dist(c, start), math.dist(c, end)) <= reach}
        near = int(reach)
        barred = {
            (x + dx, y + dy)
            for x, y in out
            for dx in range(-near, near + 1)
            for dy in range(-near, near + 1)
            if math.hypot(dx, dy) < reach
        } - free
        _, back = self.shortest(end, start, frozenset(barred))
        if start not in back:
            return None
        return out + _trace(back, end, start)[1:-1]


def _trace(before: dict[Cell, Cell], start: Cell, end: Cell) -> list[Cell]:
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def _around(cell: Cell) -> Iterator[Cell]:
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            if dx or dy:
                yield cell[0] + dx, cell[1] + dy


def _area(points: Array) -> float:
    """What a closed line encloses (the shoelace formula)."""
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def smooth(points: Array, spacing: float, reach: float) -> Array:
    """A closed line as one drives it: points ``spacing`` apart, averaged over ``reach`` on both
    sides. float64 [N, 2] in, float64 [M, 2] out."""
    for _ in range(2):
        points = _even(points, spacing)
        width = max(1, round(reach / spacing))
        window = np.exp(-0.5 * (np.arange(-2 * width, 2 * width + 1) / width) ** 2)
        window /= window.sum()
        wrapped = np.concatenate([points[-2 * width :], points, points[: 2 * width]])
        points = np.stack([np.convolve(wrapped[:, i], window, mode="valid") for i in (0, 1)], 1)
    return _even(points, spacing)


def _even(points: Array, spacing: float) -> Array:
    closed = np.concatenate([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0.0, along[-1], max(3, round(along[-1] / spacing)), endpoint=False)
    return np.stack([np.interp(at, along, closed[:, i]) for i in (0, 1)], 1)

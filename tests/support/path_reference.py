"""The filter of ``tatvpr_track.h`` once more, slowly, in NumPy: float32, rounded at every step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from support.geography import metres

F32 = np.float32
STEP, REVERSE, METRE, RADIAN, JUMP = map(F32, (0.03, 0.3, 0.05, 0.2, 1.0))
STEADY, LANES = 20, 8
FEWEST = 8  # rivals
Floats = NDArray[np.float32]


@dataclass
class Told:
    """What a frame says of a path."""

    place: int
    frames: int
    evidence: float
    margin: float
    still: float
    still_margin: float
    steady: int


def lead_of(scores: Floats) -> np.float32:
    """The best score less the mean one, summed in eight lanes."""
    looked = np.isfinite(scores)
    padded = np.zeros(-(-len(scores) // LANES) * LANES, np.float32)
    padded[: len(scores)] = np.where(looked, scores, 0)
    lanes = np.cumsum(padded.reshape(-1, LANES), axis=0, dtype=np.float32)[-1]
    total = np.cumsum(lanes, dtype=np.float32)[-1]
    return np.maximum(scores.max() - total / F32(looked.sum()), F32(0))


@dataclass
class Reference:
    """One path.

    Args:
        frames: over how many frames evidence is gathered.
        drives: int [places].
        xy: float64 [places, 2], NaN where unknown.
        elsewhere_m: what is elsewhere lies further; all positions known.
        yaw: float64 [places], radians; None: not known.
        geographic: ``xy`` are longitude and latitude.
    """

    frames: int
    drives: NDArray[np.int64]
    xy: NDArray[np.float64]
    elsewhere_m: float
    yaw: NDArray[np.float64] | None = None
    geographic: bool = False
    ahead: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    back: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    still: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    seen: int = 0
    rested: int = 0
    steady: int = 0
    place: int = 0
    lead: np.float32 = field(default_factory=lambda: F32(0))

    @property
    def evidence(self) -> Floats:
        """Of the best path that ends at each place, whichever way it goes."""
        return np.maximum(self.ahead, self.back)

    def step(
        self, scores: Floats | None, moved: float | None = None, turned: float | None = None
    ) -> Told:
        """Take in a frame that counts."""
        jump = F32(-np.inf)
        if scores is not None and np.isfinite(scores).any():
            self.lead = lead_of(scores)
        if self.seen:
            jump = self.evidence.max() - JUMP * self.lead
            self._move_on(jump, moved, turned)
        if scores is None or not np.isfinite(scores).any():
            self.seen = max(self.seen - 1, 0)
            self.steady = 0
            nan = float("nan")
            return Told(self.place if self.seen else -1, self.seen, nan, nan, nan, nan, 0)
        first = not self.seen
        self.seen = min(self.seen + 1, self.frames)
        share = F32(1) / F32(self.seen)
        if first:
            self.ahead, self.back, self.still = scores.copy(), scores.copy(), scores.copy()
        else:
            mean = np.maximum(self.still, jump)
            out = np.isinf(scores)
            with np.errstate(invalid="ignore"):
                self.ahead = self.ahead + share * (scores - self.ahead)
                self.back = self.back + share * (scores - self.back)
                self.still = mean + share * (scores - mean)
            self.ahead[out] = self.back[out] = self.still[out] = -np.inf
        self.rested = self.seen
        return self._told(first, 1)

    def stand(self, scores: Floats) -> Told:
        """Take in a frame that does not count, though it shows something."""
        out = np.isinf(scores)
        self.ahead[out] = self.back[out] = self.still[out] = -np.inf
        self.seen = self.rested
        if not np.isfinite(self.evidence).any():
            self.seen, self.steady, nan = 0, 0, float("nan")
            return Told(-1, 0, nan, nan, nan, nan, 0)
        told = self._told(False, 0)
        with np.errstate(invalid="ignore"):
            both = self.evidence + scores
        at = int(both.argmax())
        if both[at] > both[told.place] and not self._elsewhere(told.place)[at]:
            told.place = at
        return told

    def _told(self, first: bool, counted: int) -> Told:
        before, self.place = self.place, int(self.evidence.argmax())
        away = self._elsewhere(self.place)
        on = not first and not away[before]
        self.steady = min(self.steady + counted, STEADY) if on else 0
        rivals = away & np.isfinite(self.evidence)
        told = Told(
            self.place,
            self.seen,
            float(self.evidence[self.place]),
            float("nan"),
            float(self.still[self.place]),
            float("nan"),
            self.steady,
        )
        if rivals.sum() >= FEWEST:
            told.margin = float(self.evidence[self.place] - self.evidence[rivals].max())
            told.still_margin = float(self.still[self.place] - self.still[rivals].max())
        return told

    def _elsewhere(self, place: int) -> NDArray[np.bool_]:
        return np.asarray(metres(self.xy, self.xy[place], self.geographic) > self.elsewhere_m)

    def _move_on(self, jump: np.float32, moved: float | None, turned: float | None) -> None:
        most, price, reverse = self.evidence, STEP * self.lead, REVERSE * self.lead
        ahead, back = (
            np.maximum(np.maximum(one, other - reverse), jump)
            for one, other in ((self.ahead, self.back), (self.back, self.ahead))
        )
        for drive in dict.fromkeys(self.drives.tolist()):
            own = np.flatnonzero(self.drives == drive)
            if moved is None:
                on, off = own[1:], own[:-1]
                ahead[on] = np.maximum(ahead[on], self.ahead[off] - price)
                back[off] = np.maximum(back[off], self.back[on] - price)
            else:
                best = self._along(own, most[own], abs(moved), turned)
                ahead[own] = back[own] = np.maximum(best, jump)
        self.ahead, self.back = ahead, back

    def _along(
        self, own: NDArray[np.int64], values: Floats, moved: float, turned: float | None
    ) -> Floats:
        steps = metres(self.xy[own[1:]], self.xy[own[:-1]], self.geographic).astype(np.float32)
        along = np.concatenate([[F32(0)], np.cumsum(steps, dtype=np.float32)])
        a_metre, a_radian = float(METRE * self.lead), float(RADIAN * self.lead)
        if turned is None or self.yaw is None:
            off = np.abs(np.abs(along[:, None] - along[None]) - moved)
            return (values[None] - a_metre * off).max(axis=1).astype(np.float32)
        spread = (values[None] - a_metre * np.abs(along[:, None] - along[None])).max(axis=1)
        bends = (np.diff(self.yaw[own]) + np.pi) % (2 * np.pi) - np.pi
        bent = np.concatenate([[0.0], np.cumsum(bends)])
        best = np.full(len(own), -np.inf)
        for sign in (F32(-1), F32(1)):
            point = along + sign * F32(moved)
            low = np.clip(np.searchsorted(along, point, side="right") - 1, 0, len(own) - 1)
            for at in (low, np.minimum(low + 1, len(own) - 1)):
                worth = spread[at] - a_metre * np.abs(point - along[at])
                worth = worth - a_radian * np.abs(bent - turned - bent[at])
                best = np.maximum(best, worth)
        return best.astype(np.float32)

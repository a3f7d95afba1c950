"""What ``watch`` does with frames: asks, and tells answers to whoever shows or keeps them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tatvpr_edge.runtime import Localizer, Match, Stream, StreamFrame, Tracker

#: Seconds between two looks whether the command is to end.
_LOOK_S = 0.2
#: Seconds after which a reading of watts says nothing of now.
_STALE_S = 5.0
#: Answers that the rate is told from.
_LAST = 30


@dataclass(frozen=True)
class Answer:
    """What is known of one frame.

    Attributes:
        frame, match: the frame and its place.
        taken_s: when the frame arrived, in seconds since 1970.
        rate_hz: answers a second, of late; None for the first.
        power_w: what the board takes; None where nobody says.
        dropped: frames dropped so far.
    """

    frame: StreamFrame
    match: Match
    taken_s: float
    rate_hz: float | None
    power_w: float | None
    dropped: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "time_s": self.taken_s,
            "frame": self.frame.index,
            "name": self.frame.name or None,
            "pts_s": self.frame.pts_s,
            "dropped": self.dropped,
            "rate_hz": self.rate_hz,
            "power_w": self.power_w,
            **self.match.plain(),
        }


class Rate:
    """Counts a second, over the last few."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_LAST)

    def count(self) -> float | None:
        """One more; how many a second there are."""
        self._times.append(time.monotonic())
        took_s = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / took_s if took_s > 0 else None


#: What becomes of an answer.
Sink = Callable[[Answer], None]


def watch(
    localizer: Localizer,
    frames: Stream,
    ended: threading.Event,
    every_s: float,
    limit: int | None,
    sinks: list[Sink],
    tracker: Tracker | None = None,
) -> tuple[int, int | None]:
    """Ask for frame after frame until the source or ``limit`` ends it, or ``ended`` is set.

    Args:
        every_s: frames sooner than this after the one asked for last are passed over.
        sinks: told every answer.
        tracker: follows the camera; None: each frame is asked about by itself.

    Returns:
        How many answers, and how many of them accepted; None where the map is not calibrated.
    """
    from tatvpr_edge.mapping.recordings.picking import Picker, Picking

    asked, accepted, judged = 0, 0, False
    rate, picker = Rate(), Picker(Picking(every_s=every_s))
    opened = 1
    while not ended.is_set() and (limit is None or asked < limit):
        frame = frames.read(timeout_s=_LOOK_S)
        if frame is None:
            if frames.ended:
                break
            continue
        # A file that is not played in real time has its own clock.
        at_s = frame.time_s if frames.live or frame.pts_s is None else frame.pts_s
        if not picker.takes(round(at_s * 1e9), None):
            continue
        taken_s = time.time() - (time.monotonic() - frame.time_s)
        if tracker is not None and frame.opened != opened:
            tracker.restart()  # nobody knows where the camera went while it was away
        opened = frame.opened
        match = localizer.query(frame.image, time_s=taken_s, tracker=tracker)
        asked += 1
        accepted += match.accepted is True
        judged |= match.accepted is not None
        answer = Answer(frame, match, taken_s, rate.count(), _power_w(localizer), frames.dropped)
        for sink in sinks:
            sink(answer)
    return asked, accepted if judged else None


def _power_w(localizer: Localizer) -> float | None:
    """What the board takes, where k is "auto" and its governor has sensors."""
    governor = localizer.governor
    if governor is None or governor.telemetry is None:
        return None
    total = governor.telemetry.latest().total
    if total.value is None or total.age_s(time.monotonic()) > _STALE_S:
        return None
    return total.value / 1e3

"""Where a moving camera is: evidence over consecutive frames (``tatvpr_track.h`` in the C core).

In: the scores of every place for one frame, and how far the camera moved. Out: the place that the
last frames speak for, how sure that is, and whether the camera moved, is lost or was found again.
:class:`Path` binds the filter; :class:`Tracker` is a robot's own seat at a shared ``Localizer``.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.cfields import (
    DOUBLE,
    FLOAT,
    INT32,
    POINTER,
    SIZE,
    UINT32,
    UINT64,
    c_fields,
)
from tatvpr_edge.runtime.engine import Engine, Signatures
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.motion import Moved, Odometry, check_odometry
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.search import Pose, told_pose
from tatvpr_edge.spec.calibration import MAX_FRAMES, SequenceCalibration, at_dials
from tatvpr_edge.spec.errors import ArtifactError, UsageError
from tatvpr_edge.spec.maptypes import Band
from tatvpr_edge.spec.values import instance, whole

if TYPE_CHECKING:
    from tatvpr_edge.runtime.frame import CameraFrame
    from tatvpr_edge.runtime.localizer import Localizer
    from tatvpr_edge.runtime.match import Match
    from tatvpr_edge.runtime.placemap import PlaceMap
    from tatvpr_edge.runtime.search import Table

#: Frames of a sequence where neither the user nor the map says how many.
FRAMES = 5
#: What a track's state is called; tatvpr_track_state. None: the map does not judge sequences.
STATES = (None, "lost", "found", "moved", "here")
#: Places that a track has room for at first.
_ROOM = 1024
#: What a track takes of odometry: TATVPR_TRACK_METRES and _TURNS.
_METRES, _TURNS = 1, 2
#: A position, and a radius of 0 metres: the answer may lie anywhere.
_ANYWHERE = ((0.0, 0.0, 0.0), 0.0)

_SIGNATURES: Signatures = {
    "tatvpr_track_bytes": (SIZE, [UINT64, INT32]),
    "tatvpr_track_init": (
        ctypes.c_int,
        [POINTER, UINT32, UINT64, INT32, POINTER, SIZE],
    ),
    "tatvpr_track_move": (ctypes.c_int, [POINTER, UINT64, POINTER, SIZE]),
    "tatvpr_track_start": (ctypes.c_int, [POINTER]),
    "tatvpr_track_step": (ctypes.c_int, [POINTER] * 4),
}
#: Of libraries that know frames which say nothing new; in older ones every frame counts.
_REMEMBERS: Signatures = {"tatvpr_track_remember": (ctypes.c_int, [POINTER, POINTER, UINT32])}


class _Track(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size frames"),
        (UINT64, "room"),
        (POINTER, "evidence still along spread begins"),
        (UINT64, "known place"),
        (UINT32, "seen steady since held"),
        (FLOAT, "lead most"),
        (POINTER, "turned last"),
        (UINT32, "last_size counted"),
        (FLOAT, "last_k last_tokens owed_m owed_rad"),
        (UINT32, "swapped rested"),
    )


class _Sequence(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "frames"), (FLOAT, "precision recall threshold"), (FLOAT * 6, "weights")
    )


class _Step(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size band"),
        (POINTER, "scores sequence"),
        (FLOAT, "moved_m"),
        (UINT32, "reserved"),
        (DOUBLE * 3, "near"),
        (DOUBLE, "radius_m"),
        (FLOAT, "turned_rad"),
        (UINT32, "reserved2"),
        (POINTER, "descriptor"),
        (FLOAT, "k tokens"),
    )


class _Tracked(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size state"),
        (UINT64, "place"),
        (UINT32, "seen steady"),
        (FLOAT, "evidence margin still still_margin confidence"),
        (INT32, "accepted"),
        (DOUBLE * 7, "pose"),
    )


class Tracked(NamedTuple):
    """Where the camera is by the last frames; floats are NaN where unknown.

    Attributes:
        place: its number in the map; -1: there is no answer yet, or no longer.
        frames: how many frames it rests on.
        counted: whether this one is among them; not, where it shows what the last one that
            counted showed, as the frames of a camera that stands.
        state: "lost", "found" (again), "moved", "here"; None where the map does not judge.
        accepted: whether it is taken for right; None likewise.
        evidence: mean score along the path that ends there.
        margin: evidence less the most elsewhere.
        still, still_margin: the same without motion.
        steady: frames that the answer has gone on for.
        confidence: how probable it is that the place is right, 0..1.
        pose: of the place, NaN where unknown; None: all of it.
    """

    place: int
    frames: int
    counted: bool
    state: str | None
    accepted: bool | None
    evidence: float
    margin: float
    still: float
    still_margin: float
    steady: int
    confidence: float
    pose: Pose | None


class Path:
    """The path of one camera through a map, bounded in memory: 24 bytes and a bit a place, and a
    descriptor. One thread at a time.

    Args:
        engine: an artifact's loaded code.
        frames: over how many frames evidence is gathered.

    Raises:
        UsageError: that is no length of a sequence.
        ArtifactError: the code was built before there were sequences.
    """

    def __init__(self, engine: Engine, frames: int) -> None:
        engine.declare(_SIGNATURES)
        self._engine = engine
        self.frames = check_sequence(frames)
        self._held: object = None
        self._track = _Track(size=ctypes.sizeof(_Track))
        # What C is asked and answers with, made once.
        self._step = _Step(size=ctypes.sizeof(_Step))
        self._found = _Tracked(size=ctypes.sizeof(_Tracked))
        self._judged: tuple[SequenceCalibration, float, float] | None = None
        # Code that was built before there were turns needs no room for them, and has none.
        needed = [engine.c.tatvpr_track_bytes(_ROOM, kind) for kind in (_METRES, _TURNS)]
        self._odometry = _METRES if needed[0] == needed[1] else _TURNS
        self._make_room(_ROOM)
        self._track.counted = 1
        self._remembers = hasattr(engine.c, "tatvpr_track_remember")
        self._last = np.empty(0, np.float32)

    def _make_room(self, places: int) -> None:
        """Tables for so many places, with what they hold now."""
        c, track = self._engine.c, ctypes.byref(self._track)
        size = c.tatvpr_track_bytes(places, self._odometry)
        memory = np.empty(size, np.uint8)
        if self._track.room:
            status = c.tatvpr_track_move(track, places, memory.ctypes.data, size)
        else:
            status = c.tatvpr_track_init(
                track, self.frames, places, self._odometry, memory.ctypes.data, size
            )
        self._engine.check(status)
        self._memory = memory

    def _remember(self, numbers: int) -> None:
        """Room for a descriptor, with which the path begins anew."""
        self._engine.declare(_REMEMBERS)
        self._last = np.empty(numbers, np.float32)
        room = self._last.ctypes.data
        remember = self._engine.c.tatvpr_track_remember
        self._engine.check(remember(ctypes.byref(self._track), room, numbers))

    @property
    def memory_bytes(self) -> int:
        """Bytes of its tables."""
        return self._memory.nbytes

    def restart(self) -> None:
        """Forget what was seen: the camera was carried elsewhere."""
        self._engine.check(self._engine.c.tatvpr_track_start(ctypes.byref(self._track)))

    def step(
        self,
        held: object,
        table: Table,
        bands: Sequence[Band],
        band: int,
        scores: NDArray[np.float32] | None,
        moved_m: float | None = None,
        near: tuple[tuple[float, float, float], float] | None = None,
        turned_rad: float | None = None,
        k: float = 1.0,
        tokens: float = 1.0,
        descriptor: NDArray[np.float32] | None = None,
    ) -> Tracked:
        """Take in one frame.

        Args:
            held: what keeps its numbers of places; another one begins the path anew.
            table: the places.
            band: number of the one of ``bands`` that was searched.
            scores: float32 [places], -infinity for what is left out; None: it shows nothing.
            moved_m: since the last frame; None: not known.
            near: a position and metres around it, where the answer lies.
            turned_rad: since the last frame, counter-clockwise; None: not known.
            k, tokens: that the frame was described at.
            descriptor: of the frame, float32 [descriptor_size]; None: it counts, whatever it shows.

        Raises:
            UsageError: ``moved_m`` or ``turned_rad`` is not finite.
            ArtifactError: ``turned_rad`` is given, and the code was built before there were turns.
        """
        if turned_rad is not None and self._odometry != _TURNS:
            raise ArtifactError(
                f"{self._engine.code} follows metres alone, not turns: build it again, or give "
                "odometry in metres"
            )
        if held is not self._held:
            self.restart()
            self._held = held
        if descriptor is not None and self._remembers and descriptor.size > self._last.size:
            self._remember(descriptor.size)
        if table.size > self._track.room:
            self._make_room(max(table.size, 2 * self._track.room))
        made = calibrated_for(bands[band], self.frames)
        judged = None if made is None else (made, k, tokens)
        step, found = self._step, self._found
        step.band = band
        step.scores = None if scores is None else scores.ctypes.data
        if judged != self._judged:
            self._sequence = _sequence(None if made is None else at_dials(made, k, tokens))
            self._judged = judged
            step.sequence = None if made is None else ctypes.addressof(self._sequence)
        step.moved_m = math.nan if moved_m is None else moved_m
        step.turned_rad = math.nan if turned_rad is None else turned_rad
        step.near[:], step.radius_m = _ANYWHERE if near is None else near
        step.k, step.tokens = k, tokens
        step.descriptor = None if descriptor is None else descriptor.ctypes.data
        places, _held = table.judging(k, tokens)
        self._engine.check(
            self._engine.c.tatvpr_track_step(
                ctypes.byref(self._track),
                ctypes.byref(places),
                ctypes.byref(step),
                ctypes.byref(found),
            )
        )
        return Tracked(
            place=found.place if found.seen else -1,
            frames=found.seen,
            counted=bool(self._track.counted),
            state=STATES[found.state],
            accepted=None if found.accepted < 0 else bool(found.accepted),
            evidence=found.evidence,
            margin=found.margin,
            still=found.still,
            still_margin=found.still_margin,
            steady=found.steady,
            confidence=found.confidence,
            pose=told_pose(found.pose[:]),
        )


def calibrated_for(band: Band, frames: int) -> SequenceCalibration | None:
    """What the band says of sequences of so many frames; None: nothing."""
    made = None if band.calibration is None else band.calibration.sequence
    return made if made is not None and made.frames == frames else None


def calibrated_frames(band: Band) -> int:
    """Length of the sequences that the band judges; 0: none."""
    made = None if band.calibration is None else band.calibration.sequence
    return 0 if made is None else made.frames


def usual_frames(bands: Sequence[Band]) -> int:
    """The length of sequences that a map with these bands is followed with by itself."""
    return next(filter(None, map(calibrated_frames, bands)), FRAMES)


def _sequence(given: SequenceCalibration | None) -> _Sequence:
    if given is None:
        return _Sequence()
    return _Sequence(
        frames=given.frames,
        precision=given.precision,
        recall=given.recall,
        threshold=given.threshold,
        weights=given.weights,
    )


def check_moved(tracker: Any, odometry: Odometry | None) -> Moved | None:
    """How the camera moved since the last frame of a path; None: not known.

    Args:
        tracker: whose path it is; None: a single frame.

    Raises:
        UsageError: it is no motion, or a single frame's, or ``tracker`` is none.
    """
    moved = check_odometry(odometry)
    if tracker is not None:
        instance(tracker, Tracker, "tracker", "what localizer.track() gave")
    elif moved is not None:
        raise UsageError(
            "odometry belongs to a sequence of frames: give Localizer or Client sequence=5, or use "
            "localizer.track()"
        )
    return moved


def check_sequence(frames: Any) -> int:
    """``frames`` as a length of sequences.

    Raises:
        UsageError: it is none.
    """
    meaning = f"over how many frames evidence is gathered, 1 to {MAX_FRAMES}"
    return whole(frames, 1, "sequence", meaning, MAX_FRAMES)


class Tracker(OneProcess):
    """One robot's, or one stream's, seat at a shared ``Localizer``: ``localizer.track()``.

    Safe to share between threads (calls wait for each other), but frames of two cameras in one
    tracker are no path.
    """

    _elsewhere = "hand on its Localizer, and take localizer.track() there"

    def __init__(self, localizer: Localizer, engine: Engine, frames: int) -> None:
        self._localizer = localizer
        self._engine = engine
        self._path = Path(engine, frames)
        self._lock = threading.Lock()
        self._others: WeakKeyDictionary[PlaceMap, Path] = WeakKeyDictionary()
        tell_children(self)

    def _after_fork(self) -> None:
        """A child's own lock, and a new path where a thread of the parent was amid a step."""
        if self._lock.locked():
            self._path = Path(self._engine, self.frames)
            self._others = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def frames(self) -> int:
        """Over how many frames evidence is gathered."""
        return self._path.frames

    def query(
        self,
        frame: NDArray[np.uint8] | CameraFrame,
        bgr: bool = False,
        top: int = 1,
        *,
        odometry: Odometry | None = None,
        near: Sequence[float] | None = None,
        radius: float | None = None,
        exclude_last: int | str = 0,
        time_s: float | None = None,
        map: PlaceMap | None = None,
    ) -> Match:
        """As ``Localizer(sequence=n).query``, of this robot's frames alone."""
        return self._localizer.query(
            frame,
            bgr,
            top,
            odometry=odometry,
            near=near,
            radius=radius,
            exclude_last=exclude_last,
            time_s=time_s,
            map=map,
            tracker=self,
        )

    def restart(self) -> None:
        """Forget what was seen: the robot was carried elsewhere, or a recording begins anew."""
        with self._lock:
            self._path.restart()
            self._others.clear()

    def follow(self, *step: Any, place_map: PlaceMap | None = None) -> Tracked:
        """One :meth:`Path.step`, while no other thread takes one.

        Args:
            place_map: that a call named, which has a path of its own; None: the localizer's.
        """
        with self._lock:
            if place_map is None:
                return self._path.step(*step)
            if place_map not in self._others:
                self._others[place_map] = Path(self._engine, self.frames)
            return self._others[place_map].step(*step)

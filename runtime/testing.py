"""``FakeLocalizer``: stands in for ``Localizer`` in a robot program's own tests.

It takes the same frames and settings and refuses the same mistakes, but needs no artifact, no map
and no compiler: the test says what it answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.arguments import (
    added_at,
    check_excluded,
    check_time,
    check_top,
    refuse_ignored,
)
from tatvpr_edge.runtime.dials import Dials, is_auto
from tatvpr_edge.runtime.found import Candidate
from tatvpr_edge.runtime.frame import Frame, check_frame
from tatvpr_edge.runtime.fresh import check_watch
from tatvpr_edge.runtime.governor import Budget, check_preset
from tatvpr_edge.runtime.growth import Addition, check_terms, novelty_position
from tatvpr_edge.runtime.mapwriter import full_pose, given_frame
from tatvpr_edge.runtime.match import Match, place_of
from tatvpr_edge.runtime.motion import Odometry, check_odometry
from tatvpr_edge.runtime.search import around
from tatvpr_edge.runtime.settings import Settings
from tatvpr_edge.runtime.tracking import check_sequence
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.manifest import DEFAULTS
from tatvpr_edge.spec.maptypes import encode_tag
from tatvpr_edge.spec.values import instance, whole, wrong


class FakeLocalizer(Settings):
    """Answers ``query`` as it was told; ``describe`` gives a vector that only the pixels decide.

    Args:
        answers: a function from the frame to a :class:`Match`, or matches that are given one
            after the other (one more query than matches is an error); :meth:`match` makes them.
        descriptor_size: floats in a descriptor.
        k, tokens, budget, preset: as of ``Localizer``; nothing is chosen by them, and
            :attr:`governor` is None while k is "auto", too.

    Attributes:
        frames: every frame that was queried or described, in order.
        maps: the map of every query, in order: the one given with it, else :attr:`map`.
        added: (frame, pose, tag) of every place that was added, in order.
        confirmed: the places that were confirmed, in order.
        map: whatever is set; no map is needed, and none is looked into.
    """

    def __init__(
        self,
        answers: Callable[[Frame], Match] | Iterable[Match] = (),
        *,
        descriptor_size: int = 256,
        k: float | str = DEFAULTS.k,
        tokens: float = 1.0,
        budget: Budget | str | None = None,
        preset: str | None = None,
    ) -> None:
        self._answer: Callable[[Frame], Match] | None = answers if callable(answers) else None
        try:
            self._queue: Iterator[Match] = iter(() if callable(answers) else answers)
        except TypeError:
            raise wrong(answers, "answers", "matches, or a function that gives one") from None
        self.descriptor_size = whole(descriptor_size, 1, "descriptor_size", "floats, from 1 up")
        self.frames: list[Frame] = []
        self.maps: list[Any] = []
        self.added: list[tuple[Any, Any, str]] = []
        self.confirmed: list[int] = []
        self.map: Any = None
        self._stale = False
        self._on_stale: list[Callable[[FakeLocalizer], object]] = []
        if not is_auto(k):
            refuse_ignored(k, budget=budget, preset=preset)
        governing = {"budget": Budget.of(budget), "preset": check_preset(preset)}
        self._dials = Dials(DEFAULTS.k, DEFAULTS.tokens, governing)
        self._dials.turn(k=k, tokens=tokens)

    @staticmethod
    def match(place: int = 0, **fields: Any) -> Match:
        """A :class:`Match` of ``place``; name only the fields that the test is about."""
        known = {
            "score": 1.0,
            "tag": "",
            "pose": None,
            "accepted": None,
            "k": DEFAULTS.k,
            "tokens": 1.0,
            "latency_ms": 0.0,
            **fields,
        }
        candidate = Candidate(place, known["score"], known["tag"], known["pose"])
        return Match(place=place, **{"candidates": (candidate,), **known})

    def open_map(self, source: Any) -> Any:
        """``source`` itself."""
        return source

    def track(self, sequence: int | None = None) -> FakeLocalizer:
        """Itself: a test says what each frame of a sequence is answered."""
        if sequence is not None:
            check_sequence(sequence)
        return self

    def restart(self) -> None:
        """As ``Tracker.restart``: there is nothing to forget."""

    @property
    def stale(self) -> bool:
        """Whether a new release came: a test sets it, and the callbacks are called at once."""
        return self._stale

    @stale.setter
    def stale(self, value: bool) -> None:
        self._stale = value
        callbacks, self._on_stale = (self._on_stale, []) if value else ([], self._on_stale)
        for callback in callbacks:
            callback(self)

    def on_stale(self, callback: Callable[[FakeLocalizer], object], every_s: float = 1.0) -> None:
        """As ``Localizer.on_stale``, when the test sets :attr:`stale`."""
        self._dials.check_open()
        check_watch(callback, every_s)
        self._on_stale.append(callback)

    def describe(
        self,
        frame: Frame,
        bgr: bool = False,
        *,
        k: float | None = None,
        tokens: float | None = None,
    ) -> NDArray[np.float32]:
        """A unit vector float32 [descriptor_size]: equal pixels give equal vectors.

        Raises:
            FrameError: as ``Localizer.describe``.
        """
        for value, name in ((k, "k"), (tokens, "tokens")):
            if value is not None:
                check_fraction(value, name)
        planes = self._take(frame, bgr)
        seed = hashlib.sha256(b"".join(plane.tobytes() for plane in planes)).digest()
        random = np.random.default_rng(np.frombuffer(seed, np.uint32))
        vector = random.standard_normal(self.descriptor_size).astype(np.float32)
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit

    def query(
        self,
        frame: Frame,
        bgr: bool = False,
        top: int = 1,
        *,
        odometry: Odometry | None = None,
        near: Sequence[float] | None = None,
        radius: float | None = None,
        exclude_last: int | str = 0,
        time_s: float | None = None,
        map: Any = None,
        tracker: Any = None,
    ) -> Match:
        """What the test said.

        Raises:
            FrameError, UsageError: as ``Localizer.query``.
            MapError: no answer is left.
        """
        check_top(top)
        check_excluded(exclude_last)
        check_time(time_s)
        check_odometry(odometry)
        around(near, radius)
        if tracker is not None:
            instance(tracker, FakeLocalizer, "tracker", "what localizer.track() gave")
        self._take(frame, bgr)
        self.maps.append(self.map if map is None else map)
        if self._answer is not None:
            return self._answer(frame)
        answer = next(self._queue, None)
        if answer is None:
            raise MapError("this FakeLocalizer has no answer left: give it more matches")
        return answer

    def add(
        self,
        frame: Any,
        pose: Sequence[float] | NDArray[np.float64] | None = None,
        tag: str = "",
        *,
        match: Match | None = None,
        novelty: float | None = None,
        novelty_m: float | None = None,
        max_places: int | None = None,
        max_bytes: int | None = None,
        time_s: float | None = None,
        bgr: bool = False,
        map: Any = None,
    ) -> Addition:
        """Every place is new: it is kept in :attr:`added`, and its number there is given.

        Raises:
            FrameError, UsageError, MapError: as ``Localizer.add``, for its terms, frame and pose.
        """
        check_terms(novelty, novelty_m, max_places, max_bytes)
        self._dials.check_open()
        encode_tag(tag)
        position = full_pose(pose)
        added_at(time_s)
        if match is not None:
            instance(match, Match, "match", "what query() answered for this frame")
        given_frame(frame, bgr)
        if novelty_m is not None:
            novelty_position(position)
        self.added.append((frame, pose, tag))
        return Addition(len(self.added) - 1)

    def confirm(self, match: Match | int) -> None:
        """The place is kept in :attr:`confirmed`.

        Raises:
            MapError: it is none: the query found nothing.
        """
        place = place_of(match)
        if place < 0:
            raise MapError(f"the map has no place {place}")
        self.confirmed.append(place)

    def _take(self, frame: Frame, bgr: bool) -> tuple[NDArray[np.uint8], ...]:
        self._dials.check_open()
        planes = check_frame(frame, bgr).planes
        self.frames.append(frame)
        return planes

    def close(self) -> None:
        """Further calls are refused."""
        self._dials.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, for a test to look at."""
        return self._dials.closed

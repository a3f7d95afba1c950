"""``Localizer``: a frame goes in, a place comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.arguments import check_time, check_top, left_out, refuse_ignored
from tatvpr_edge.runtime.backends.chosen import choose_backend, engine_of
from tatvpr_edge.runtime.dials import ModelDials, is_auto
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.frame import CameraFrame, GrayNote, check_frame
from tatvpr_edge.runtime.fresh import Watch
from tatvpr_edge.runtime.match import Match, match_of, place_of
from tatvpr_edge.runtime.motion import Odometry
from tatvpr_edge.runtime.opening import open_to_run
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.search import around
from tatvpr_edge.runtime.settings import Settings
from tatvpr_edge.runtime.structure import without_structure
from tatvpr_edge.runtime.tracking import Tracker, check_moved, check_sequence, usual_frames
from tatvpr_edge.runtime.verdict import UncalibratedNote, look
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.values import instance
from tatvpr_edge.spec.values import path as check_path

if TYPE_CHECKING:
    from tatvpr_edge.runtime.governor import Budget
    from tatvpr_edge.runtime.growth import Addition
    from tatvpr_edge.runtime.telemetry import Sampler


class Localizer(Settings):
    """Describes frames and finds their places. Safe to share between threads and across fork.

    Args:
        artifact: folder of an artifact; None takes the deployed release, else what
            ``tatvpr-edge build --board host`` built, else what our wheel carries.
        map: a ``.placemap``; None takes the deployed release's, where there is one. Without a map
            ``describe`` works and ``query`` does not.
        k: fraction of activations kept, in (0, 1], or "auto": the governor chooses it within
            ``budget`` or ``preset``. None: the artifact's default. May be set at any time.
        tokens: fraction of patch tokens kept, in (0, 1]. None: the artifact's default. May be set
            at any time.
        backend: "cpu", "tensorrt", or None for the best that runs here.
        budget: for "auto": "5W", "0.2J", "40ms", "70C", "battery:2h", or a ``Budget``. Refused
            with a k that is a number, which would ignore it; :attr:`budget` sets it later.
        preset: for "auto": "turbo" or "battery-saver"; likewise.
        safe_k: for "auto": k while telemetry is absent.
        telemetry: for "auto": a ``Sampler``; by default one is started where it is needed.
        busy_profile: for "auto": take figures that were profiled beside the robot's other programs.
        kernels: a kernel variant to force; None takes the fastest.
        threads: threads of one call; 0 for the calling thread alone. Any number gives the same
            bytes.
        sequence: over how many consecutive frames of one camera :meth:`query` gathers evidence; 1:
            each frame by itself. Several cameras: :meth:`track`.
        cuda_context, cuda_stream: for "tensorrt": a caller's, of pycuda or by their handles, that
            the model's work is done in. None: what is current on this thread, else the GPU's
            primary context; a stream of our own. A copy in another process has its own.

    Raises:
        ArtifactError, SignatureError, MapError, UsageError: by name of the fault.
    """

    def __init__(
        self,
        artifact: str | Path | None = None,
        map: str | Path | None = None,
        k: float | str | None = None,
        tokens: float | None = None,
        *,
        backend: str | None = None,
        budget: Budget | str | None = None,
        preset: str | None = None,
        safe_k: float | None = None,
        telemetry: Sampler | None = None,
        busy_profile: bool = False,
        kernels: str | None = None,
        threads: int = 0,
        sequence: int = 1,
        cuda_context: Any = None,
        cuda_stream: Any = None,
    ) -> None:
        self._sequence = check_sequence(sequence)
        if not is_auto(k):
            refuse_ignored(k, budget=budget, preset=preset, safe_k=safe_k)
        path = None
        if artifact is not None:
            path = check_path(artifact, "artifact", "the folder of an artifact")
        self._watches: list[Watch] = []
        governing = {
            "budget": budget,
            "preset": preset,
            "safe_k": safe_k,
            "telemetry": telemetry,
            "busy_profile": busy_profile,
        }
        self._arguments = {
            "backend": backend,
            "kernels": kernels,
            "threads": threads,
            "sequence": self._sequence,
        }
        cuda = {"cuda_context": cuda_context, "cuda_stream": cuda_stream}
        opened = open_to_run(
            path,
            partial(choose_backend, name=backend, kernels=kernels, threads=threads, cuda=cuda),
        )
        self._origin, self.backend = opened.origin, opened.backend
        self.artifact: Artifact = opened.artifact
        defaults = self.artifact.manifest.defaults
        # No method of this object: it would be freed by the garbage collector alone.
        self._engine = partial(engine_of, self.backend, self.artifact)
        self._dials = ModelDials(self.artifact.manifest, self._engine, governing)
        self._note_gray = GrayNote()
        self._note_uncalibrated = UncalibratedNote()
        self._tracker = None if self._sequence == 1 else self.track(self._sequence)
        self.map = opened.map if map is None else map
        # Together: what is refused leaves no governor's sensors running.
        self._dials.turn(
            k=defaults.k if k is None else k,
            tokens=defaults.tokens if tokens is None else tokens,
        )

    # ---- maps ----

    @property
    def map(self) -> PlaceMap | None:
        """What queries search; None: there is no map.

        May be set at any time, to a path (also the same one, to see the places that were added
        since), to a map of :meth:`open_map`, or to None. A map that is refused changes nothing,
        and a query that runs ends on the map that it began with.

        Raises:
            MapError: as :meth:`open_map`.
        """
        return self._map

    @map.setter
    def map(self, value: str | Path | PlaceMap | None) -> None:
        self._map = None if value is None else self.open_map(value)

    def open_map(self, source: str | Path | PlaceMap) -> PlaceMap:
        """A map that is searched by this artifact's code: for ``query(map=...)``, or to be set.

        Any number of maps share one model.

        Args:
            source: a ``.placemap``, or one that was opened otherwise.

        Raises:
            MapError: by name of the fault: truncated, altered, newer, of another model.
        """
        model, engine = self.artifact.manifest.model, self._engine()
        if isinstance(source, PlaceMap):
            return source.searched_by(model, engine)
        return PlaceMap(source, model, engine)

    def _opened(self, given: Any) -> PlaceMap:
        """A map that a call names, of this model."""
        place_map = instance(given, PlaceMap, "map", "what localizer.open_map(PATH) gave")
        place_map.check_model(self.artifact.manifest.model)
        return place_map

    # ---- settings ----

    def _turn(self, **settings: Any) -> None:
        """Set any of map, k, tokens, budget and preset: together, or none where one is refused."""
        if "map" not in settings:  # which another thread may set meanwhile
            self._dials.turn(**settings)
            return
        path = settings.pop("map")
        place_map = None if path is None else self.open_map(path)
        self._dials.turn(**settings)
        self._map = place_map

    # ---- use ----

    @property
    def descriptor_size(self) -> int:
        """Floats in a descriptor."""
        return self.artifact.manifest.model.descriptor_size

    @property
    def engine(self) -> Engine:
        """The artifact's code for this machine's CPU, which searches, governs and looks whether a
        frame shows anything, whatever backend describes. Opened anew by each call where that is
        not the CPU's."""
        return self._engine()

    def describe(
        self,
        frame: NDArray[np.uint8] | CameraFrame,
        bgr: bool = False,
        *,
        k: float | None = None,
        tokens: float | None = None,
    ) -> NDArray[np.float32]:
        """Descriptor float32 [D] of unit length, for systems that keep their own index.

        Args:
            frame: uint8 [H, W, 3] of any size, uint8 [H, W] for gray, or a CameraFrame. An array
                on the GPU (``__cuda_array_interface__``: pycuda, CuPy, torch) is taken too.
            bgr: the channels are blue, green, red (OpenCV's order).
            k, tokens: for this call alone; None: as set. Work that the governor does not choose is
                to it as any other program's.

        Raises:
            FrameError: another type or shape; the text says what to do.
        """
        self._dials.check_open()
        if k is None and tokens is None:
            checked = check_frame(frame, bgr)
            descriptor, set_k, set_tokens, describe_ms = self._describe(checked)
            self._dials.observe(set_k, set_tokens, describe_ms)
            return descriptor
        at_k, at_tokens = self._dials.setting_of(k, tokens)
        return self.backend.describe(check_frame(frame, bgr), at_k, at_tokens)

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
        tracker: Tracker | None = None,
    ) -> Match:
        """The place of the map where ``frame`` was taken; ``top`` candidates.

        Args:
            map: one of :meth:`open_map`, for this call alone; None: as set. A sequence follows a
                path of its own in each.
            odometry: with a sequence: how the camera moved since the last frame that this map was
                asked about; None: not known. Metres, forwards or backwards, heeded where the map
                has positions; or (ahead, left, turn) in the robot's own frame, in metres and
                radians counter-clockwise; or two poses (x, y, z, qx, qy, qz, qw) of odometry,
                (before, now). Turns are heeded where the map has orientations, too.
            tracker: one of :meth:`track`, whose sequence the frame belongs to.
            near, radius: only places within so many metres of a position or pose (x, y, ...) in
                the map's frame; a place of unknown position is then left out.
            exclude_last: so many of the map's last places are left out, so that a loop closure
                does not find the frame just stored; "30s": those seen within so many seconds of
                the frame (a place of unknown time stays).
            time_s: when the frame was taken, in seconds since 1970; None: now.

        Returns:
            Where every place was left out, or the descriptor is of nothing: place -1, score -1,
            ``accepted`` False and no candidates. A frame that shows nothing (blank, black, a
            covered lens) is never accepted; where the map is calibrated, ``reason`` says so.

        Raises:
            FrameError: as :meth:`describe`.
            MapError: there is no map, it holds no places, or the one given is of another model.
            UsageError: another argument is out of range.
        """
        self._dials.check_open()
        top = check_top(top)
        taken_s = check_time(time_s)
        looked: dict[str, Any] = {"near": near, "radius": radius, **left_out(exclude_last, taken_s)}
        tracker = self._tracker if tracker is None else tracker
        moved = check_moved(tracker, odometry)
        place_map = self._map if map is None else self._opened(map)
        if place_map is None:
            raise MapError(
                "there is no map to search: give Localizer(map=PATH), made by 'tatvpr-edge map "
                "build', or use describe(frame) with an index of your own"
            )
        place_map.check_searchable()
        around(near, radius)
        start = time.perf_counter()
        checked = check_frame(frame, bgr)
        if map is not None:
            self._note_gray(checked)
        # A path always looks at the frame; before describing, which then finds its pixels in cache.
        nothing = None if tracker is None else without_structure(place_map.engine, checked)
        descriptor, k, tokens, describe_ms = self._describe(checked)
        if tracker is None:
            found, nothing = look(place_map, checked, descriptor, k, tokens, top, looked)
        else:
            looked |= {"shown": nothing is None, "moved": moved}
            follow = partial(tracker.follow, place_map=None if map is self._map else map)
            found = place_map.follow(follow, descriptor, k, tokens, top, **looked)
        self._note_uncalibrated(place_map.path, 1 if tracker is None else tracker.frames, found)
        if found.accepted and nothing is None:
            place_map.recognised(found, taken_s, looked.get("without_s", (None,))[0])
        latency_ms = (time.perf_counter() - start) * 1e3
        self._dials.observe(k, tokens, describe_ms, latency_ms - describe_ms)
        return match_of(found, nothing, descriptor, k, tokens, latency_ms)

    def track(self, sequence: int | None = None) -> Tracker:
        """A tracker of one robot or camera, where this object serves several: its ``query`` is
        this one's, of its own sequence of frames.

        Args:
            sequence: over how many frames evidence is gathered; None: as this object was made
                with, else as the map is calibrated for, else 5.

        Raises:
            UsageError: that is no number of frames.
        """
        if sequence is None:
            bands = () if self._map is None else self._map.info.bands
            sequence = self._sequence if self._sequence > 1 else usual_frames(bands)
        return Tracker(self, self._engine(), sequence)

    def _describe(self, checked: CameraFrame) -> tuple[NDArray[np.float32], float, float, float]:
        """The descriptor, k and tokens that it was made with, and how many ms that took."""
        if self._map is not None:
            self._note_gray(checked)
        k, tokens = self._dials.setting()
        start = time.perf_counter()
        descriptor = self.backend.describe(checked, k, tokens)
        return descriptor, k, tokens, (time.perf_counter() - start) * 1e3

    # ---- maps that grow ----

    def add(
        self,
        frame: NDArray[np.uint8] | CameraFrame | NDArray[np.float32] | Sequence[Any],
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
        map: PlaceMap | None = None,
    ) -> Addition:
        """Add a place to the map: on the disk when this returns, and found by the next query of
        any thread. ``MapWriter(path, localizer)`` makes a map where there is none.

        Args:
            frame: as :meth:`query` takes it; or a descriptor a band of the map.
            pose: (x, y), (x, y, z) or (x, y, z, qx, qy, qz, qw) in the map's pose frame.
            match: what :meth:`query` just said of this frame: its descriptor is taken where it
                was made at the k and tokens of the map's one band.
            novelty: a frame that some place is as like as this score is not added.
            novelty_m: only places within so many metres of ``pose`` count for ``novelty``, so that
                what looks alike elsewhere is no reason to leave a new place out.
            max_places, max_bytes: where one more place would make the map larger, it is first
                thinned out to nine tenths: the places most like their neighbours along a drive
                go, never confirmed ones (:meth:`confirm`, and places at least a minute old that
                an accepted match named, and none like them in the minute before). Where those
                leave less than two places, or a fiftieth, nothing is added.
            time_s: when it was seen, in seconds since 1970; None: now.
            map: one of :meth:`open_map`; None: as set.

        Returns:
            Its number, or why it was not added: not new, the map is full, or the frame shows
            nothing (blank, black, a covered lens) by the rule of :meth:`query`.

        Raises:
            FrameError, MapError, UsageError: nothing was added; the text says why.
        """
        from tatvpr_edge.runtime.growth import offer

        self._dials.check_open()
        place_map = self._map if map is None else self._opened(map)
        if place_map is None:
            raise MapError(
                "there is no map to add to: make one with runtime.MapWriter(PATH, localizer) and "
                "set localizer.map = PATH"
            )
        return offer(
            self,
            place_map,
            frame,
            pose,
            tag,
            match=match,
            novelty=novelty,
            novelty_m=novelty_m,
            time_s=time_s,
            bgr=bgr,
            max_places=max_places,
            max_bytes=max_bytes,
        )

    def confirm(self, match: Match | int) -> None:
        """Say that a match was right (found by geometry, say), so that pruning keeps its place.

        Args:
            match: what :meth:`query` answered, be it before the map was pruned; or a place's number
                of now.

        Raises:
            MapError: there is no map, or no such place (any longer).
        """
        self._confirm(place_of(match), match.mark if isinstance(match, Match) else None)

    def _confirm(self, place: int, mark: str | None) -> None:
        if self._map is None:
            raise MapError("there is no map whose place could be confirmed")
        self._map.confirm(place, mark)

    # ---- new releases ----

    @property
    def stale(self) -> bool:
        """Whether another artifact would be opened now than the one that this is: a deploy made
        another release live, or the folder was built anew. Costs a few microseconds.

        This object goes on with what it opened; open another to take the new one.
        """
        return self._origin.stale()

    def on_stale(self, callback: Callable[[Localizer], object], every_s: float = 1.0) -> None:
        """Call ``callback(self)`` once, from a thread, when this becomes :attr:`stale`.

        Args:
            every_s: seconds between two looks, of a microsecond each.

        Raises:
            UsageError: ``every_s`` is no time, ``callback`` no function, or this is closed.
        """
        self._dials.check_open()
        self._watches.append(Watch(self._origin.stale, callback, self, every_s))

    # ---- end ----

    def close(self) -> None:
        """Stop the governor's sensors and give back what the backend holds. Frames are refused from
        then on."""
        self._dials.close()
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        self.backend.close()

    def __getstate__(self) -> dict[str, Any]:
        """For processes that are spawned: the child opens the same artifact and map anew."""
        place_map = self.map
        return {
            **self._arguments,
            "governing": self._dials.governing,
            "origin": self._origin,
            "artifact": self.artifact.root,
            "map": None if place_map is None else place_map.named(),
            "k": self.k,
            "tokens": self.tokens,
        }

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        governing, origin = arguments.pop("governing"), arguments.pop("origin")
        if arguments["map"] is not None:
            path, sha256 = arguments["map"]
            arguments["map"] = PlaceMap(path, sha256=sha256)
        heeded = governing if arguments["k"] == "auto" else {}
        self.__init__(**arguments, **heeded)  # type: ignore[misc]
        self._dials.keep(governing)
        self._origin = origin  # what is stale in the parent is stale here

"""What the service answers: one shared ``Localizer``, one answer to each request.

In: requests of :mod:`tatvpr_edge.runtime.messages`. Out: answers; every error is one. Called by
:mod:`tatvpr_edge.runtime.server`, which owns the socket.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.tracking import Tracker, check_sequence
from tatvpr_edge.runtime.verify import check_backend
from tatvpr_edge.spec.errors import FrameError, TatvprError, UsageError
from tatvpr_edge.spec.shortage import ran_out
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import shown

Answer = tuple[dict[str, Any], bytes]
#: What of a request goes to ``Localizer.query``, and to ``Localizer.add``, which check it.
_ASKED = ("top", "odometry", "near", "radius", "exclude_last", "time_s")
_TERMS = ("pose", "tag", "novelty", "novelty_m", "max_places", "max_bytes", "time_s")
#: What a client may set for all.
_SETTINGS = ("k", "tokens", "budget", "preset", "map")
_FRAME = ("format", "width", "height", "planes", "yuv_range", "yuv_matrix")
#: What each request may hold beside "op".
_KEYS = {
    "query": (*_FRAME, *_ASKED, "sequence"),
    "restart": (),
    "add": (*_FRAME, *_TERMS),
    "confirm": ("place", "mark"),
    "describe": _FRAME,
    "set": _SETTINGS,
    "info": (),
    "selftest": (),
}
#: Requests of ours are refused like this where the Client is of a newer version alone.
_NEWER = "; for what a newer Client asks, start the service again with the Client's version"


class Seat:
    """What one connection has of its own: the path of its camera, where it asks for sequences."""

    def __init__(self) -> None:
        self._tracker: Tracker | None = None

    def tracker(self, localizer: Localizer, frames: Any) -> Tracker:
        """The tracker of sequences of so many frames; another number begins a path anew."""
        if self._tracker is None or self._tracker.frames != check_sequence(frames):
            self._tracker = localizer.track(frames)
        return self._tracker

    def restart(self) -> None:
        """Forget the path."""
        if self._tracker is not None:
            self._tracker.restart()


class Service:
    """Answers requests with one shared ``Localizer``; safe to call from many threads.

    Args:
        localizer: what answers; it stays the caller's to close.
        resident_before: RAM of this process before the localizer was opened, for self-tests.
    """

    def __init__(self, localizer: Localizer, resident_before: int = 0) -> None:
        self.localizer = localizer
        self._resident_before = resident_before
        self._started = time.monotonic()
        self._answered = 0
        self._release = _release(localizer)
        self._count, self._setting = threading.Lock(), threading.Lock()

    def answer(self, request: dict[str, Any], blob: bytes, seat: Seat) -> Answer:
        """The answer to one request of a connection; every error becomes an answer."""
        try:
            operations: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
                "query": partial(self._query, seat=seat),
                "restart": partial(self._restart, seat=seat),
                "add": self._add,
                "confirm": self._confirm,
                "describe": self._describe,
                "set": self._set,
                "info": self._info,
                "selftest": self._self_test,
            }
            operation = operations.get(str(request.get("op")))
            if operation is None:
                raise UsageError(f"op is one of {', '.join(_KEYS)}{_NEWER}")
            asked = str(request["op"])
            for name in request.keys() - {"op"} - set(_KEYS[asked]):
                known = ", ".join(_KEYS[asked]) or "nothing"
                raise UsageError(f"{asked} knows no {shown(name)}: it takes {known}{_NEWER}")
            answer, tail = operation(request, blob)
        except Exception as error:
            return refusal(error), b""
        with self._count:
            self._answered += 1
        return {"ok": True, "release": self._release, **answer}, tail

    def _query(self, request: dict[str, Any], blob: bytes, seat: Seat) -> Answer:
        asked = {name: request[name] for name in _ASKED if name in request}
        if isinstance(asked.get("near"), list):
            asked["near"] = [math.nan if n is None else n for n in asked["near"]]
        frames = request.get("sequence", 1)
        if check_sequence(frames) > 1:
            asked["tracker"] = seat.tracker(self.localizer, frames)
        match = self.localizer.query(_frame(request, blob), **asked)
        return {"match": match.plain(), "mark": match.mark}, b""

    def _restart(self, request: dict[str, Any], blob: bytes, seat: Seat) -> Answer:
        seat.restart()
        return {}, b""

    def _add(self, request: dict[str, Any], blob: bytes) -> Answer:
        terms = {name: request[name] for name in _TERMS if name in request}
        if "time_s" in terms and terms["time_s"] is None:
            terms["time_s"] = math.nan  # not known, as null in a pose is; left out, it is now
        addition = self.localizer.add(_frame(request, blob), **terms)
        return {"addition": asdict(addition)}, b""

    def _confirm(self, request: dict[str, Any], blob: bytes) -> Answer:
        place, mark = request.get("place"), request.get("mark")
        if type(place) is not int:
            raise UsageError("place is the number of a place")
        if mark is not None and type(mark) is not str:
            raise UsageError("mark is what a query's answer gave")
        self.localizer._confirm(place, mark)
        return {}, b""

    def _describe(self, request: dict[str, Any], blob: bytes) -> Answer:
        descriptor = self.localizer.describe(_frame(request, blob))
        return {"size": len(descriptor)}, descriptor.astype("<f4").tobytes()

    def _set(self, request: dict[str, Any], blob: bytes) -> Answer:
        k = request.get("k", self.localizer.k)
        for name in ("budget", "preset"):
            if request.get(name) is not None and k != "auto":
                raise UsageError(f'{name} belongs to k="auto", and k is {k}: set both')
        settings = {name: value for name, value in request.items() if name != "op"}
        if "map" in settings:
            settings["map"] = _map_path(settings["map"])
        with self._setting:  # of two clients, one after the other
            self.localizer._turn(**settings)
        dials = self._dials()
        if "map" in request:
            dials["map_path"] = _shown(self.localizer)
        return dials, b""

    def _dials(self) -> dict[str, Any]:
        """What is set, and what the governor says about it."""
        localizer, governor = self.localizer, self.localizer.governor
        dials: dict[str, Any] = {"k": localizer.k, "tokens": localizer.tokens}
        if localizer.k == "auto" and governor is not None:
            budget = None if governor.budget is None else str(governor.budget)
            dials |= {"budget": budget, "preset": governor.preset, "why": governor.why()}
        return dials

    def _info(self, request: dict[str, Any], blob: bytes) -> Answer:
        manifest = self.localizer.artifact.manifest
        return {
            "artifact": str(self.localizer.artifact.root),
            "model": manifest.model.name,
            "model_hash": manifest.model.hash,
            "board": manifest.board,
            "backend": self.localizer.backend.name,
            "k": self.localizer.k,
            "tokens": self.localizer.tokens,
            "map": self.localizer.map is not None,
            "map_path": _shown(self.localizer),
            "stale": self.localizer.stale,
            "answered": self._answered,
            "up_s": time.monotonic() - self._started,
        }, b""

    def _self_test(self, request: dict[str, Any], blob: bytes) -> Answer:
        return self.self_test(), b""

    def self_test(self) -> dict[str, Any]:
        """Run the golden point nearest to the present k through the live backend, and say what
        this process takes.

        Raises:
            ArtifactError: a descriptor differs from its golden vector.
        """
        artifact = self.localizer.artifact
        points = artifact.manifest.golden.points
        k = self.localizer.k if isinstance(self.localizer.k, float) else 0.2
        nearest = sorted(points, key=lambda point: (abs(point.k - k), -point.tokens))[:1]
        started = time.perf_counter()
        results = check_backend(artifact, self.localizer.backend, nearest)
        latency_ms = (time.perf_counter() - started) * 1e3
        frames = max(1, len(artifact.manifest.golden.frames))
        place_map = self.localizer.map
        resident = resident_bytes()
        promised = sum(artifact.manifest.memory.values())
        if place_map is not None:
            promised += place_map.file_bytes  # what was added lies in memory, too
        return {
            "latency_ms": latency_ms / frames,
            "golden": [asdict(result) for result in results],
            "resident_bytes": resident,
            "grown_bytes": resident - self._resident_before,
            # What the manifest states is the CPU library's; a GPU's driver takes what it takes,
            # also where it was opened and the CPU library answers.
            "promised_bytes": None if artifact.manifest.backends else promised,
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


def refusal(error: Exception) -> dict[str, Any]:
    """The answer that an error is. What nobody raised on purpose is named as a fault of ours."""
    kind = type(error).__name__
    if isinstance(error, (TatvprError, ValueError, TypeError)):
        return {"ok": False, "error": printable(error), "kind": kind}
    if ran_out(error):
        return {"ok": False, "error": "the service is out of memory", "kind": kind}
    text = f"{kind}: {printable(error)}: this is a fault of tatvpr-edge"
    return {"ok": False, "error": text, "kind": "UsageError"}


def _release(localizer: Localizer) -> str:
    """What answers, as one word that another artifact does not share: where it lies, and its
    manifest's hash, because a folder can be built anew."""
    return f"{localizer.artifact.root}#{localizer.artifact.hash[:16]}"


def _shown(localizer: Localizer) -> str | None:
    return None if localizer.map is None else str(localizer.map.path)


def _map_path(given: Any) -> str | None:
    """A map that a client names: a path of this machine, because folders differ."""
    if given is None:
        return None
    if not isinstance(given, str) or not os.path.isabs(given) or "\0" in given:
        raise UsageError(f"map is {str(given)[:200]!r}: the absolute path of a .placemap, or null")
    return given


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as source:
        return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _frame(request: dict[str, Any], blob: bytes) -> CameraFrame:
    """The frame of a request; its format and size are checked where every frame is."""
    shapes = request.get("planes")
    if not isinstance(shapes, list) or not all(
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(side) is int and 0 < side <= 1 << 20 for side in shape)
        for shape in shapes
    ):
        raise FrameError("planes is a list of [rows, bytes in a row], one for each plane")
    size = sum(rows * row_bytes for rows, row_bytes in shapes)
    if size != len(blob):
        raise FrameError(f"planes of {shapes} have {size} bytes, {len(blob)} came")
    planes, begin = [], 0
    for rows, row_bytes in shapes:
        end = begin + rows * row_bytes
        planes.append(np.frombuffer(blob[begin:end], np.uint8).reshape(rows, row_bytes))
        begin = end
    return CameraFrame(
        tuple(planes),
        str(request.get("format")),
        request.get("width", 0),
        request.get("height", 0),
        str(request.get("yuv_range", "full")),
        str(request.get("yuv_matrix", "bt601")),
    )

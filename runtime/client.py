"""The service's other end, for a robot's programs: ``Client().query(frame)``.

In: frames as ``Localizer`` takes them. Out: what ``Localizer`` gives, from the one process that
keeps the model warm (``python -m tatvpr_edge.runtime serve``). Needs NumPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime import deployed, messages
from tatvpr_edge.runtime.arguments import added_at, check_excluded, check_time, check_top
from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.frame import CameraFrame, Frame, check_frame
from tatvpr_edge.runtime.fresh import LONGEST_S, Watch
from tatvpr_edge.runtime.growth import Addition, check_terms
from tatvpr_edge.runtime.mapwriter import full_pose
from tatvpr_edge.runtime.match import Match, place_of
from tatvpr_edge.runtime.motion import Odometry, check_odometry
from tatvpr_edge.runtime.private import owners
from tatvpr_edge.runtime.received import addition_from, another_version, descriptor_from, match_from
from tatvpr_edge.runtime.search import around
from tatvpr_edge.runtime.tracking import check_sequence
from tatvpr_edge.spec import errors
from tatvpr_edge.spec.errors import DeployError, FrameError, UsageError
from tatvpr_edge.spec.maptypes import encode_tag
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import between, wrong
from tatvpr_edge.spec.values import path as check_path

_PAUSE_S = 0.05
#: How often a request is sent: a service that is killed may yet take a connection, and drop it.
_TRIES = 3


def _check_peer(connection: socket.socket, path: str, short: str) -> None:
    """Whoever listens is root, this user, or the owner of the socket's folder."""
    credentials = struct.Struct("3i")  # struct ucred: process, user, group
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    _, user, _ = credentials.unpack(said)
    if user not in owners(os.stat(os.path.dirname(short)).st_uid):
        raise DeployError(
            f"another user's program (id {user}) answers at {path}: have the service make its "
            "socket in a folder of its own user's"
        )


class Client(Closing):
    """A connection to the service; safe to share between threads (calls wait for each other).

    It survives a restart of the service: where the connection ends, it connects again and asks
    once more, or twice. A time-out is an error, and the next call begins with a new connection. A
    forked child, and a spawned one that it is handed to, makes a connection of its own, where its
    camera's path begins anew.

    Args:
        path: the service's socket; None: ``serve.sock`` in the install root.
        timeout_s: how long an answer may take.
        restart_s: how long a service that went away may take to listen again; every deploy
            restarts it.
        sequence: over how many consecutive frames of one camera ``query`` gathers evidence, as
            ``Localizer(sequence=n)``; each connection is a path of its own. A service that was
            restarted begins the path anew.

    Raises:
        DeployError: no service answers there, or one of another user's does: who may write to the
            socket's folder could otherwise answer in the place of a service that is away.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        timeout_s: float = 30.0,
        restart_s: float = 20.0,
        sequence: int = 1,
    ) -> None:
        self.sequence = check_sequence(sequence)
        named = deployed.install_root() / messages.SOCKET
        if path is not None:
            named = check_path(path, "path", "the socket of a service")
        self.path = str(named)
        self.timeout_s = between(timeout_s, 1e-3, LONGEST_S, "timeout_s", "seconds, above 0")
        self.restart_s = between(restart_s, 0, LONGEST_S, "restart_s", "seconds")
        self._lock = threading.Lock()
        self._closed = False
        self._lost_s: float | None = None  # when the service went away; None: it answers
        self._began_with: str | None = None
        self._watches: list[Watch] = []
        self._socket: socket.socket | None = self._connect(0.0)
        tell_children(self)

    def _after_fork(self) -> None:
        """A child's own lock and, with its first call, connection: over one, two processes would
        take each other's answers."""
        self._lock = threading.Lock()
        self._drop()

    def __getstate__(self) -> dict[str, Any]:
        """For processes that are spawned: the child connects with its first call."""
        lent = ("sequence", "path", "timeout_s", "restart_s", "_closed", "_began_with")
        return {name: getattr(self, name) for name in lent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lost_s = None
        self._watches = []
        self._socket = None
        self._lock = threading.Lock()
        tell_children(self)

    def _connect(self, patience_s: float) -> socket.socket:
        end = time.monotonic() + patience_s
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(self.timeout_s)
            try:
                with messages.short_path(self.path) as short:
                    connection.connect(short)
                    _check_peer(connection, self.path, short)
                return connection
            except BaseException as error:
                connection.close()
                if not isinstance(error, OSError):
                    raise
                if self._closed or time.monotonic() >= end:
                    raise DeployError(
                        f"no service at {self.path} ({error.strerror}): start it with "
                        "`python -m tatvpr_edge.runtime serve`"
                    ) from None
            time.sleep(_PAUSE_S)

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
    ) -> Match:
        """As ``Localizer.query``, with the same frames and options.

        Raises:
            FrameError, MapError, UsageError: as ``Localizer.query``.
            DeployError: the service ended, or is of another version.
        """
        check_excluded(exclude_last)
        asked: dict[str, Any] = {"top": check_top(top), "exclude_last": exclude_last}
        circle = around(near, radius)
        if circle is not None:
            asked |= {"near": circle[0], "radius": circle[1]}
        asked |= _given(time_s=None if time_s is None else check_time(time_s))
        moved = check_odometry(odometry)
        asked |= _given(odometry=None if moved is None else moved.plain())
        if self.sequence > 1:
            asked["sequence"] = self.sequence
        answer = self._ask({"op": "query", **asked}, check_frame(frame, bgr))[0]
        return match_from(answer, self.path)

    def restart(self) -> None:
        """Forget the path: the camera was carried elsewhere, or a recording begins anew."""
        self._ask({"op": "restart"})

    def add(
        self,
        frame: Frame,
        pose: Sequence[float] | NDArray[np.float64] | None = None,
        tag: str = "",
        *,
        novelty: float | None = None,
        novelty_m: float | None = None,
        max_places: int | None = None,
        max_bytes: int | None = None,
        time_s: float | None = None,
        bgr: bool = False,
    ) -> Addition:
        """As ``Localizer.add``: a place of the service's map, on its disk when this returns, and
        found by the next query of every client. The service describes the frame.

        Never sent twice: where the service goes away before it answers, it is not known whether
        the place was added, and that is an error.

        Raises:
            FrameError, MapError, UsageError: as ``Localizer.add``; nothing was added.
            DeployError: the service ended, or did not answer.
        """
        terms = check_terms(novelty, novelty_m, max_places, max_bytes)
        place = {"pose": full_pose(pose).tolist(), "tag": tag, "time_s": added_at(time_s)}
        encode_tag(tag)
        frame = check_frame(frame, bgr)
        request = {"op": "add", **place, **terms}
        return addition_from(self._ask(request, frame, again=False)[0], self.path)

    def confirm(self, match: Match | int) -> None:
        """As ``Localizer.confirm``: this match was right, so that pruning keeps its place.

        Raises:
            MapError: there is no map, or no such place (any longer).
            DeployError: the service ended.
        """
        mark = match.mark if isinstance(match, Match) else None
        self._ask({"op": "confirm", "place": place_of(match), **_given(mark=mark)})

    def describe(self, frame: Frame, bgr: bool = False) -> NDArray[np.float32]:
        """As ``Localizer.describe``: float32 [D]."""
        return descriptor_from(*self._ask({"op": "describe"}, check_frame(frame, bgr)), self.path)

    def set(self, **settings: Any) -> dict[str, Any]:
        """Set ``k``, ``tokens``, ``budget``, ``preset`` or ``map`` (a path) for every client, until
        the service is started again, as by every deploy.

        What is set together is set together: where one is refused, all stay as they were.

        Returns what is set now; with ``k="auto"`` also ``why``.

        Raises:
            UsageError: another name, a value out of range, or a budget beside a k that is a number.
            MapError: the map is damaged or of another model.
        """
        for name, value in settings.items():
            # On the way they become null, which takes a budget back.
            if isinstance(value, Real) and not math.isfinite(value):
                raise wrong(value, name, "a finite number, or text")
        given = settings.get("map")
        if given is not None:  # the service's working folder is another one
            settings["map"] = os.path.abspath(check_path(given, "map", "a .placemap"))
        return self._ask({"op": "set", **settings})[0]

    def info(self) -> dict[str, Any]:
        """What is served."""
        return self._ask({"op": "info"})[0]

    def self_test(self) -> dict[str, Any]:
        """Run the artifact's own golden frame."""
        return self._ask({"op": "selftest"})[0]

    @property
    def stale(self) -> bool:
        """Whether another release is live than the one whose answers this Client began with.

        Either the service was started again with it, as every deploy does: answers are the new
        release's already, and what the program keeps of the old one's (descriptors, numbers of
        places) no longer fits. Or a service that nobody restarts still answers from the old one.
        Make another Client to begin anew.

        Raises:
            DeployError: the service ended.
        """
        info = self.info()
        return bool(info.get("stale")) or info.get("release") != self._began_with

    def on_stale(self, callback: Callable[[Client], object], every_s: float = 1.0) -> None:
        """Call ``callback(self)`` once, from a thread, when this becomes :attr:`stale`.

        Args:
            every_s: seconds between two looks, each one small message to the service.

        Raises:
            UsageError: ``every_s`` is no time.
            DeployError: the service ended.
        """
        self.info()  # from this release on
        self._watches.append(Watch(lambda: self.stale, callback, self, every_s))

    def close(self) -> None:
        """End the connection; later calls are refused, as is one that waits in another thread."""
        self._closed = True
        with contextlib.suppress(AttributeError, OSError):  # there is none, or it ended
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(
        self, request: dict[str, Any], frame: CameraFrame | None = None, again: bool = True
    ) -> tuple[dict[str, Any], bytes]:
        blob = b""
        if frame is not None:
            planes = [np.ascontiguousarray(plane) for plane in frame.planes]
            size = sum(plane.nbytes for plane in planes)
            if size > messages.MAX_BLOB:
                raise FrameError(
                    f"a frame of {-(-size >> 20)} MiB: a service takes at most "
                    f"{messages.MAX_BLOB >> 20} MiB, so scale it down"
                )
            blob = b"".join(plane.tobytes() for plane in planes)
            request = {
                **request,
                "format": frame.pixel_format,
                "width": int(frame.width),
                "height": int(frame.height),
                "yuv_range": frame.yuv_range,
                "yuv_matrix": frame.yuv_matrix,
                "planes": [list(plane.shape) for plane in planes],
            }
        message = messages.encode(request, blob)
        if messages.HEADER.unpack_from(message)[0] > messages.MAX_JSON:
            raise UsageError(
                f"a request of more than {messages.MAX_JSON >> 10} KiB beside its frame"
            )
        with self._lock:
            answer, tail = self._exchange(message, again)
        if not answer.pop("ok", False):
            kind = errors.by_name(answer.get("kind"), errors.UsageError)
            raise kind(printable(answer.get("error")))
        if self._began_with is None:
            self._began_with = answer.get("release")
        if request["op"] != "info":
            answer.pop("release", None)
        return answer, tail

    def _exchange(self, message: bytes, again: bool) -> tuple[dict[str, Any], bytes]:
        """Send and receive; again over a new connection where the old one ended. What may not
        happen ``again`` is sent again only where it cannot have arrived."""
        ended = ""
        for _ in range(_TRIES):
            if self._closed:
                raise DeployError(f"this connection to {self.path} was closed: make another Client")
            sent = False
            try:
                connection = self._socket
                if connection is None:
                    connection = self._socket = self._connect(self._patience_s())
                # The receiver left it at what remained of the time for the last answer.
                connection.settimeout(self.timeout_s)
                connection.sendall(message)
                sent = True
                reply = messages.decode_answer(messages.receiver(connection, self.timeout_s))
            except TimeoutError:
                # An answer that comes late would be taken for that of the next request.
                self._drop()
                raise DeployError(
                    f"the service at {self.path} did not answer within {self.timeout_s:g} s"
                ) from None
            except OSError as error:
                ended, reply = str(error), None
            except ValueError as error:  # asked again, it would say the same
                self._drop()
                raise another_version(self.path, error) from None
            except BaseException:  # so would it after Ctrl-C, and half a message begins no other
                self._drop()
                raise
            else:
                ended = "it closed the connection"
            if reply is not None:
                self._lost_s = None
                return reply
            self._drop()
            if self._lost_s is None:
                self._lost_s = time.monotonic()
            if sent and not again:
                raise DeployError(
                    f"the service at {self.path} ended before it answered ({ended}): whether "
                    "it did what was asked is not known"
                )
        raise DeployError(f"the service at {self.path} failed: {ended}")

    def _patience_s(self) -> float:
        """How long a service that is away may yet take; nothing where it never was."""
        if self._lost_s is None:
            return 0.0
        return max(0.0, self._lost_s + self.restart_s - time.monotonic())


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}

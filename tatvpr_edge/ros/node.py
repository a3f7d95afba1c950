"""``PlaceNode``: the node itself, with its states, its thread and its services.

In: image messages of a :class:`~tatvpr_edge.ros.transport.Transport`, the newest one whenever the
last is answered. Out: ``PlaceMatch``, ``PoseWithCovarianceStamped`` and ``DiagnosticArray``
messages through the same. No middleware is known here.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tatvpr_edge.mapping import messages
from tatvpr_edge.mapping.recordings.picking import Picker, Picking
from tatvpr_edge.ros import names, outgoing
from tatvpr_edge.ros.diagnostics import diagnostics
from tatvpr_edge.ros.figures import Figures
from tatvpr_edge.ros.parameters import Parameters
from tatvpr_edge.ros.saving import saved
from tatvpr_edge.ros.transport import Transport
from tatvpr_edge.ros.travel import SET_BACK_S, Poses, Travel
from tatvpr_edge.runtime import Addition, Localizer, Match
from tatvpr_edge.runtime.serve import k_from_text
from tatvpr_edge.runtime.tracking import Tracker
from tatvpr_edge.spec.errors import MapError, TatvprError, UsageError

_LOG = logging.getLogger("tatvpr_edge")
#: How long the worker waits for an image before it looks whether it should end.
_WAIT_S = 0.1


def awake_or_not_s() -> float:
    """Seconds that never go back, and go on while the machine sleeps, unlike Linux's monotonic
    ones: a robot may be carried meanwhile."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class State(enum.IntEnum):
    """Primary states of a ROS 2 lifecycle node, by their numbers in ``lifecycle_msgs/State``."""

    UNCONFIGURED = 1
    INACTIVE = 2
    ACTIVE = 3
    FINALIZED = 4


#: Transition: (number in ``lifecycle_msgs/Transition``, states it starts from, state it ends in).
TRANSITIONS = {
    "configure": (1, (State.UNCONFIGURED,), State.INACTIVE),
    "cleanup": (2, (State.INACTIVE,), State.UNCONFIGURED),
    "activate": (3, (State.INACTIVE,), State.ACTIVE),
    "deactivate": (4, (State.ACTIVE,), State.INACTIVE),
    "shutdown": (5, (State.UNCONFIGURED, State.INACTIVE, State.ACTIVE), State.FINALIZED),
}


class PlaceNode:
    """Answers the newest image, one after the other, while it is active.

    Args:
        parameters: what is set.
        transport: what carries images in and answers out.
        name: the node's.
        clock: seconds that never go back.

    Raises:
        UsageError: ROS allows no such name.
    """

    def __init__(
        self,
        parameters: Parameters,
        transport: Transport,
        name: str = "place_node",
        clock: Callable[[], float] = awake_or_not_s,
    ) -> None:
        self.parameters = parameters
        self.name = names.check_node(name)
        self.figures = Figures(clock)
        self._clock = clock
        self.state = State.UNCONFIGURED
        self._transport = transport
        self._localizer: Localizer | None = None
        self._tracker: Tracker | None = None
        self.travel = Travel()
        self._picker = Picker(Picking())
        self._heard_s, self._silent = 0.0, False
        self._taken_s: float | None = None
        self._changing = threading.RLock()
        self._seen = threading.Lock()
        self._newest: tuple[Any, Match, float | None, float] | None = None
        self._pause = threading.Event()
        self._worker: threading.Thread | None = None
        self._end = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="tatvpr-diagnostics", daemon=True)
        self._teller.start()

    @property
    def localizer(self) -> Localizer | None:
        """What answers; None before it is configured."""
        return self._localizer

    # ---- lifecycle ----

    def change(self, transition: str) -> State:
        """Make a transition of :data:`TRANSITIONS`; the new state.

        Raises:
            UsageError: no such transition from here.
            TatvprError: it failed, as :class:`Localizer` says; the state stays.
        """
        with self._changing:
            known = TRANSITIONS.get(transition)
            if known is None:
                raise UsageError(f"transition {transition!r}: one of {', '.join(TRANSITIONS)}")
            _, starts, end = known
            if self.state not in starts:
                raise UsageError(
                    f"the node is {self.state.name.lower()}: {transition} starts from "
                    f"{' or '.join(state.name.lower() for state in starts)}"
                )
            if transition == "configure":
                self._configure()
            elif transition == "activate":
                self._start()
            if transition in ("deactivate", "shutdown"):
                self._stop()
            if transition in ("cleanup", "shutdown"):
                self._close()
            self.state = end
        if end is State.FINALIZED:
            self._end.set()
        return end

    def start(self) -> None:
        """Configure and activate.

        Raises:
            TatvprError: as :meth:`change`.
        """
        self.change("configure")
        self.change("activate")

    def shutdown(self) -> None:
        """End in whatever state; may be called again."""
        with self._changing:
            if self.state is not State.FINALIZED:
                self.change("shutdown")
        if threading.current_thread() is not self._teller:
            self._teller.join(timeout=5)

    def _configure(self) -> None:
        localizer = Localizer(**self.parameters.localizer_arguments())
        if localizer.map is None:
            localizer.close()
            raise MapError("there is no map to search: set the parameter map to a .placemap")
        frames = self.parameters.sequence
        self._tracker = localizer.track(frames) if frames > 1 else None
        self._localizer = localizer

    def _start(self) -> None:
        self._pause.clear()
        self._heard_s = -math.inf
        self.travel = Travel()
        self._picker = Picker(Picking(every_s=self.parameters.every_s))
        self.figures.started()
        self._worker = threading.Thread(target=self._work, name="tatvpr-place", daemon=True)
        self._worker.start()

    def _stop(self) -> None:
        self._pause.set()
        worker, self._worker = self._worker, None
        if worker is not None and worker is not threading.current_thread():
            worker.join()
        self.figures.stopped()

    def _close(self) -> None:
        with self._seen:
            self._newest = None
            localizer, self._localizer = self._localizer, None
            self._tracker = None
        if localizer is not None:
            localizer.close()

    # ---- images ----

    def _work(self) -> None:
        while not self._pause.is_set():
            try:
                message = self._transport.next_image(_WAIT_S)
                if message is not None:
                    self._answer(message)
            except TatvprError as error:  # told once, not thirty times a second
                if self.figures.failed(str(error)):
                    _LOG.warning("%s: an image was not answered: %s", self.name, error)
            except Exception as error:  # the robot drives on whatever one image does
                if self.figures.failed(f"{type(error).__name__}: {error}"):
                    _LOG.exception("%s: an image was not answered", self.name)
                self._pause.wait(_WAIT_S)

    def _answer(self, message: Any) -> None:
        localizer, arrived = self._localizer, time.perf_counter()
        assert localizer is not None and localizer.map is not None
        taken_s = messages.stamp_s(message) or None
        at_s = self._clock() if taken_s is None else taken_s
        if not self._picker.takes(round(at_s * 1e9), None):
            if at_s != self._taken_s:  # a camera that stamps all alike is never asked about again
                self._hear()
                self.figures.passed_over()
            return
        frame = messages.frame_of(message)
        asker = self._asker(localizer, taken_s)
        match = asker.query(
            frame,
            exclude_last=self.parameters.excluded,
            time_s=taken_s,
            odometry=self._moved(taken_s),
        )
        self.travel.arrived()
        place_map, types = localizer.map, self._transport.types
        with self._seen:
            self._newest = (frame, match, taken_s, self._clock())
        pose = outgoing.pose_of(types, match, place_map, message.header.stamp, self.parameters)
        latency_ms = (time.perf_counter() - arrived) * 1e3
        header = types.Header(stamp=message.header.stamp, frame_id=message.header.frame_id)
        self._transport.publish(
            "match",
            outgoing.place_match(types, match, header, place_map.info.pose_frame, latency_ms),
        )
        if pose is not None:
            self._transport.publish("pose", pose)
        self.figures.answered((time.perf_counter() - arrived) * 1e3, match.accepted is True)

    def _hear(self) -> None:
        """An image came; whether the camera was silent before is kept until one is asked about."""
        before_s, self._heard_s = self._heard_s, self._clock()
        self._silent |= self._heard_s - before_s > self.parameters.stale_s

    def _asker(self, localizer: Localizer, taken_s: float | None) -> Localizer | Tracker:
        """What is asked; a sequence that was interrupted begins anew, for the robot may have been
        carried elsewhere meanwhile. So does one whose clock was set back: a bag or a simulation
        that runs again."""
        self._hear()
        silent, self._silent = self._silent, False
        before_s, self._taken_s = self._taken_s, taken_s
        if self._tracker is None:
            return localizer
        set_back_s = 0.0 if before_s is None or taken_s is None else before_s - taken_s
        if set_back_s > SET_BACK_S or silent:
            self._tracker.restart()
            self.travel.restart()
        return self._tracker

    def _moved(self, taken_s: float | None) -> Poses | None:
        """How the camera moved since the image before, where odometry is read."""
        if not self.parameters.odometry_topic:
            return None
        for message in self._transport.odometry():
            pose = outgoing.pose_numbers(message.pose.pose)
            self.travel.hear(messages.stamp_s(message), message.header.frame_id, pose)
        return self.travel.to(taken_s)

    # ---- diagnostics ----

    def _tell(self) -> None:
        while not self._end.wait(1 / self.parameters.diagnostics_hz):
            with contextlib.suppress(Exception):  # a transport that is being closed
                self._transport.publish("diagnostics", diagnostics(self, self._transport))

    # ---- services ----

    @contextlib.contextmanager
    def _configured(self) -> Iterator[Localizer]:
        with self._changing:
            if self._localizer is None:
                raise UsageError("the node is not configured")
            yield self._localizer

    def add_place(
        self, pose: list[float] | None = None, tag: str = "", novelty: float | None = None
    ) -> Addition:
        """Add the newest image to the map, as :meth:`Localizer.add` does; its descriptor is reused.

        Args:
            pose: (x, y, z, qx, qy, qz, qw) in the map's frame; None: unknown.
            novelty: not added where some place is as like as this score; None: always added.

        Raises:
            UsageError, MapError: nothing was added; the text says why, as where no image was
                answered for ``stale_s``.
        """
        with self._configured() as localizer:
            with self._seen:
                newest = self._newest
            if newest is None:
                raise UsageError("no image came yet: there is nothing to add")
            frame, match, taken_s, answered_s = newest
            old_s, stale_s = self._clock() - answered_s, self.parameters.stale_s
            if old_s > stale_s:  # the robot, and the pose that is given, may be elsewhere by now
                raise UsageError(
                    f"the newest image was answered {old_s:.1f} s ago, and stale_s is {stale_s:g}: "
                    "no image of now is there to add (set stale_s higher where images come more "
                    "rarely)"
                )
            return localizer.add(
                frame,
                pose,
                tag,
                match=match,
                novelty=novelty,
                time_s=taken_s,
                max_bytes=int(self.parameters.max_map_mb * 2**20),
            )

    def save_map(self, name: str = "") -> Path:
        """Write the map with all that was added; the file. (What is added is on the disk already,
        in the map's journal.)

        Args:
            name: of a new file beside the map: whoever is on the network may ask for this, and
                must not choose what is written over. Empty: the journal is folded into the map.

        Raises:
            MapError, UsageError: it cannot be written there.
        """
        with self._configured() as localizer:
            assert localizer.map is not None
            return saved(localizer.map, name)

    def set_k(self, k: str, budget: str = "") -> str:
        """Set k, a number or "auto" with a budget; what is set now, in words.

        Raises:
            UsageError: out of range, or a budget beside a number.
        """
        wanted = k_from_text(k)
        assert wanted is not None
        with self._configured() as localizer:
            if budget and wanted != "auto":
                raise UsageError(f"budget {budget!r} belongs to k auto, and k is {k}")
            if budget:
                localizer.budget = budget
            localizer.k = wanted
            return localizer.governor.why() if wanted == "auto" and localizer.governor else f"k {k}"

"""A thread that reads a source and keeps one frame: the newest, or the next.

At most three frames are alive: the one being read, the one that waits, and the one that the
caller holds.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace

from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.streams.frames import (
    DamagedFrameError,
    Grabbed,
    NotThereError,
    Source,
    StreamFrame,
)
from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import number, wrong

_LOG = logging.getLogger("tatvpr_edge")

#: Seconds before a live source is tried again: the first time, and at most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
#: Seconds that ``close`` waits for a source that blocks.
CLOSE_S = 2.0


class Stream(Closing, OneProcess):
    """Frames of a source: ``with stream(source) as frames: for frame in frames: ...``.

    Any number of threads may take frames; each goes to one of them. The thread that reads does not
    live on in a forked child, and a stream cannot be pickled: a child opens its own.

    Made by :func:`tatvpr_edge.runtime.stream`.
    """

    _elsewhere = "open one there, with stream(SOURCE)"

    def __init__(self, source: Source, *, realtime: bool = False) -> None:
        self.name = source.name
        self.live = source.live
        self._reader = _Reader(source, keep_newest=source.live or realtime, realtime=realtime)
        # Stops the thread when this object is forgotten, and before the interpreter ends.
        self._finish = weakref.finalize(self, self._reader.stop)
        self._reader.start()

    def read(self, timeout_s: float | None = None) -> StreamFrame | None:
        """The newest frame that nobody took (of a file: the next); waits for one.

        Returns:
            None where none came within ``timeout_s``, or where the stream has :attr:`ended`.

        Raises:
            DataError: a file or folder cannot be read at all.
            UsageError: another process opened this stream.
        """
        if timeout_s is not None:
            meaning = "seconds to wait for a frame; None waits for ever"
            timeout_s = number(timeout_s, "timeout_s", meaning)
            if math.isnan(timeout_s):
                raise wrong(timeout_s, "timeout_s", meaning)
        return self._reader.take(timeout_s)

    def __iter__(self) -> Iterator[StreamFrame]:
        return self

    def __next__(self) -> StreamFrame:
        frame = self.read()
        if frame is None:
            raise StopIteration
        return frame

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more: closed, or a file's last frame was taken."""
        return self._reader.ended

    @property
    def frames(self) -> int:
        """Frames that arrived, dropped ones included."""
        return self._reader.frames

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before anybody took them."""
        return self._reader.dropped

    @property
    def damaged(self) -> int:
        """Frames that could not be read and were passed over; a warning names each."""
        return self._reader.damaged

    @property
    def opened(self) -> int:
        """How often the source was opened: 1, and once more each time it came back."""
        return self._reader.opened

    @property
    def trouble(self) -> str | None:
        """Why no frame comes now: what a live source said when it was opened last, or how far a
        file that plays has to its next one; None: all is well."""
        return self._reader.trouble

    def close(self) -> None:
        """End the stream: within two seconds, also where the source blocks for longer (its thread
        then gives it back as soon as it returns, and keeps no program alive)."""
        self._finish()


class _Reader(threading.Thread):
    """The thread. It does not know the ``Stream``, so that a forgotten one ends."""

    def __init__(self, source: Source, keep_newest: bool, realtime: bool) -> None:
        super().__init__(name=f"stream {source.name}", daemon=True)
        self.frames = self.dropped = self.damaged = self.opened = 0
        self.trouble: str | None = None
        self._pid = os.getpid()
        self._source = source
        self._keep_newest = keep_newest
        self._realtime = realtime and not source.live
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._waiting: StreamFrame | None = None
        self._dropped_since = 0
        self._done = False
        self._fault: DataError | None = None
        self._began: tuple[float, float] | None = None
        self._last_s = 0.0

    # ---- the caller's side ----

    def take(self, timeout_s: float | None) -> StreamFrame | None:
        """See :meth:`Stream.read`."""
        if os.getpid() != self._pid:
            raise UsageError(
                f"{self._source.name}: this stream was opened by the parent process, whose thread "
                "reads it: open another one in the child"
            )
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._waiting is None:
                if self._fault is not None:
                    raise self._fault
                left_s = None if end_s is None else end_s - time.monotonic()
                if self._done or self._stopping.is_set() or (left_s is not None and left_s <= 0):
                    return None
                # Python waits no endless number of seconds: it looks again once a day.
                self._changed.wait(None if left_s is None else min(left_s, 86400.0))
            frame = replace(self._waiting, dropped=self._dropped_since)
            self._waiting, self._dropped_since = None, 0
            self._changed.notify_all()
            return frame

    @property
    def ended(self) -> bool:
        """See :attr:`Stream.ended`."""
        if os.getpid() != self._pid:  # a fork, where the thread may have left its lock held
            return True
        with self._changed:
            return self._stopping.is_set() or (self._done and self._waiting is None)

    def stop(self) -> None:
        """End, and wait for it as long as is reasonable."""
        if os.getpid() != self._pid:  # a fork: the thread, and whatever lock it held, are not ours
            return
        self._stopping.set()
        with self._changed:
            self._waiting = None
            self._changed.notify_all()
        self._source.interrupt()
        if self is not threading.current_thread():
            self.join(CLOSE_S)

    # ---- the thread ----

    def run(self) -> None:
        """Read until the end, or until :meth:`stop`."""
        fault = None
        try:
            self._read_live() if self._source.live else self._read_once()
            if not (self.frames or self._stopping.is_set()):
                fault = DataError(f"{self._source.name}: {self.trouble or 'it holds no frames'}")
        except NotThereError as error:
            fault = DataError(str(error))
        except Exception as error:  # whoever waits for a frame must hear of it
            fault = DataError(f"{self._source.name}: {type(error).__name__}: {error}")
        finally:
            self._source.close()
            with self._changed:
                self._done, self._fault = True, fault
                self._changed.notify_all()

    def _read_once(self) -> None:
        self._source.open()
        self.opened += 1
        while not self._stopping.is_set():
            try:
                grabbed = self._source.read()
            except DamagedFrameError as error:
                self._pass_over(error)
                continue
            if grabbed is None:
                return
            self._offer(grabbed)

    def _read_live(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            frames_before = self.frames
            try:
                self._read_once()
                why = f"{self._source.name}: it ended"
            except NotThereError as error:
                why = str(error)
            self._source.close()
            if self._stopping.is_set():
                return
            if self.frames > frames_before:
                pause_s = FIRST_PAUSE_S
            if why != self.trouble:  # said once, however often it is tried
                _LOG.warning("%s; trying again", printable(why))
            self.trouble = why
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pass_over(self, error: DamagedFrameError) -> None:
        self.damaged += 1
        self.trouble = str(error)
        _LOG.warning("left out: %s", printable(error))

    def _offer(self, grabbed: Grabbed) -> None:
        if self._realtime:
            self._keep_pace(grabbed.pts_s)
        with self._changed:
            if self._keep_newest:
                if self._waiting is not None:
                    self.dropped += 1
                    self._dropped_since += 1
            else:
                while self._waiting is not None and not self._stopping.is_set():
                    self._changed.wait()
            if self._stopping.is_set():
                return
            self._waiting = StreamFrame(
                grabbed.image,
                time.monotonic(),
                grabbed.pts_s,
                self.frames,
                0,
                grabbed.name,
                self.opened,
            )
            self.frames += 1
            self.trouble = None
            self._changed.notify_all()

    def _keep_pace(self, pts_s: float | None) -> None:
        """Wait until a file's frame would be seen."""
        now_s = time.monotonic()
        if pts_s is None:
            return
        if self._began is None or pts_s < self._last_s:  # files that were joined begin anew
            self._began = now_s, pts_s
        self._last_s = pts_s
        began_s, first_s = self._began
        wait_s = max(0.0, began_s + pts_s - first_s - now_s)
        if wait_s > LONGEST_PAUSE_S:  # a gap of hours would look like a program that hangs
            self.trouble = f"{self._source.name}: its next frame comes in {wait_s:.0f} s"
            _LOG.warning("%s", printable(self.trouble))
        self._stopping.wait(wait_s)

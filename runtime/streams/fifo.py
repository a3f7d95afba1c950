"""A FIFO that another program writes a video to (ffmpeg, GStreamer): live, through PyAV."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.streams.frames import NotThereError
from tatvpr_edge.runtime.streams.pyav import AvSource

#: Milliseconds between two looks whether the stream was closed.
_LOOK_MS = 100


class FifoSource(AvSource):
    """Waits for whoever writes, without blocking; after its end, for the next one."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), live=True)
        self._stopped = threading.Event()
        self._file: int | None = None

    def input(self) -> Any:
        """What one program writes. The FIFO stays open between two of them, so that what the next
        one writes at once is not lost."""
        if self._file is None:
            try:
                # Without O_NONBLOCK this would wait for a writer, and nothing could end it.
                self._file = os.open(self.name, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                raise NotThereError(f"{self.name}: {error.strerror}") from None
        return _Written(self._file, self._stopped)

    def close(self) -> None:
        """Give the FIFO back, where no further writer is waited for."""
        super().close()
        if self._file is not None and self._stopped.is_set():
            os.close(self._file)
            self._file = None

    def interrupt(self) -> None:
        """A call that waits for the writer returns."""
        self._stopped.set()


class _Written:
    """A file to ``av.open``: what one writer writes, from when it comes until it goes."""

    def __init__(self, file: int, stopped: threading.Event) -> None:
        self._file = file
        self._stopped = stopped
        self._begun = self._ended = False

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the writer's end, and ever after."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        while not (self._ended or self._stopped.is_set()):
            happened = poll.poll(_LOOK_MS)
            if happened and happened[0][1] & select.POLLIN:
                self._begun = True
                return os.read(self._file, size)
            if happened and not self._begun:  # the one before went away, and nobody came yet
                self._stopped.wait(_LOOK_MS / 1e3)
            self._ended = self._begun and bool(happened)
        return b""

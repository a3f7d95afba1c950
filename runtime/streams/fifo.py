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
        self._pipe: _Pipe | None = None

    def input(self) -> Any:
        """The FIFO, once a program writes to it."""
        self._pipe = _Pipe(self.name, self._stopped)
        return self._pipe

    def close(self) -> None:
        """Give the FIFO back."""
        super().close()
        if self._pipe is not None:
            self._pipe.shut()
            self._pipe = None

    def interrupt(self) -> None:
        """A call that waits for the writer returns."""
        self._stopped.set()


class _Pipe:
    """A file to ``av.open``: ``read`` waits for bytes, and ends when the stream is closed."""

    def __init__(self, path: str, stopped: threading.Event) -> None:
        self._stopped = stopped
        try:
            # Without O_NONBLOCK this call would wait for a writer, and nothing could end it.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise NotThereError(f"{path}: {error.strerror}") from None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the writer's end."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        while not self._stopped.is_set():
            if poll.poll(_LOOK_MS):
                return os.read(self._file, size)
        return b""

    def shut(self) -> None:
        """Close the FIFO."""
        os.close(self._file)

"""Whether what a program opened is still what lies there: a new release is learned of by a stat.

In: the artifact that was opened, by name or by the default rule. Out: whether another one would be
opened now, and a thread that calls back where one was asked for. Called by ``Localizer`` and
``Client``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.default import default_artifact
from tatvpr_edge.spec.artifact import Identity, identity
from tatvpr_edge.spec.errors import ArtifactError, TatvprError
from tatvpr_edge.spec.values import between, wrong


@dataclass(frozen=True)
class Origin:
    """What was opened.

    Attributes:
        named: the folder as the user wrote it, links and all; None: what ``default_artifact``
            finds.
        identity: of its manifest when it was opened; None: there was none.
    """

    named: Path | None
    identity: Identity | None

    @classmethod
    def of(cls, named: Path | None) -> Origin:
        """Where an artifact is about to be opened from. To be called before it is read: a change
        in between is then told, rather than missed."""
        return cls(named, _identity(named))

    def stale(self) -> bool:
        """Whether another artifact would be opened now; False where there is none any more."""
        now = _identity(self.named)
        return now is not None and now != self.identity


def _identity(named: Path | None) -> Identity | None:
    try:
        return identity(default_artifact()[0] if named is None else named)
    except ArtifactError:
        return None


#: What threads can wait for, with room to spare: 30 years.
LONGEST_S = 1e9


def check_watch(callback: Any, every_s: Any) -> float:
    """Seconds between two looks.

    Raises:
        UsageError: that is no time, or ``callback`` no function.
    """
    if not callable(callback):
        raise wrong(callback, "callback", "a function")
    return between(every_s, 1e-3, LONGEST_S, "every_s", "seconds between two looks, above 0")


class Watch:
    """Calls ``callback(watched)`` once, from a thread of its own, when ``stale`` says yes.

    Args:
        every_s: seconds between two looks.

    Raises:
        UsageError: ``every_s`` is no time, or ``callback`` no function.
    """

    def __init__(
        self,
        stale: Callable[[], bool],
        callback: Callable[[Any], object],
        watched: object,
        every_s: float,
    ) -> None:
        self._every_s = check_watch(callback, every_s)
        self._stale = stale
        self._callback = callback
        self._watched = watched
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatvpr-stale", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            try:
                found = self._stale()
            except TatvprError:  # a service that is being restarted is asked again
                continue
            if found and not self._end.is_set():
                try:
                    self._callback(self._watched)
                except Exception:  # the program's own fault, told as a thread's always is
                    logging.getLogger("tatvpr_edge").exception("on_stale: the callback failed")
                return

    def close(self) -> None:
        """Look no more. May be called by the callback itself."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

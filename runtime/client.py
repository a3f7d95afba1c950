"""The service's other end, for a robot's programs: ``Client().query(frame)``.

In: frames as ``Localizer`` takes them. Out: what ``Localizer`` gives, from the one process that
keeps the model warm (``python -m tatvpr_edge.runtime serve``). Needs NumPy.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime import deployed, messages
from tatvpr_edge.runtime.localizer import Match
from tatvpr_edge.runtime.placemap import Candidate
from tatvpr_edge.spec import errors
from tatvpr_edge.spec.errors import DeployError, FrameError


class Client:
    """A connection to the service; safe to share between threads (calls wait for each other).

    Args:
        path: the service's socket; None: ``serve.sock`` in the install root.
        timeout_s: how long an answer may take.

    Raises:
        DeployError: no service answers there.
    """

    def __init__(self, path: str | Path | None = None, timeout_s: float = 30.0) -> None:
        self.path = os.fspath(path or deployed.install_root() / messages.SOCKET)
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            with messages.short_path(self.path) as short:
                self._socket.connect(short)
        except OSError as error:
            self._socket.close()
            raise DeployError(
                f"no service at {self.path} ({error.strerror}): start it with "
                "`python -m tatvpr_edge.runtime serve`"
            ) from None

    def query(self, frame: NDArray[np.uint8], bgr: bool = False, top: int = 1) -> Match:
        """As ``Localizer.query``; ``frame`` uint8 [H, W, 3] or [H, W].

        Raises:
            FrameError, MapError, UsageError: as ``Localizer.query``.
            DeployError: the service ended.
        """
        match = self._ask({"op": "query", "bgr": bgr, "top": top}, frame)[0]["match"]
        candidates = tuple(Candidate(**_plain(item)) for item in match.pop("candidates"))
        return Match(**_plain(match), candidates=candidates)

    def describe(self, frame: NDArray[np.uint8], bgr: bool = False) -> NDArray[np.float32]:
        """As ``Localizer.describe``: float32 [D]."""
        data = self._ask({"op": "describe", "bgr": bgr}, frame)[1]
        return np.frombuffer(data, "<f4").astype(np.float32)

    def set(self, **settings: Any) -> dict[str, Any]:
        """Set ``k`` or ``tokens`` for every client."""
        return self._ask({"op": "set", **settings})[0]

    def info(self) -> dict[str, Any]:
        """What is served."""
        return self._ask({"op": "info"})[0]

    def self_test(self) -> dict[str, Any]:
        """Run the artifact's own golden frame."""
        return self._ask({"op": "selftest"})[0]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, request: dict[str, Any], frame: NDArray[np.uint8] | None = None
    ) -> tuple[dict[str, Any], bytes]:
        blob = b""
        if frame is not None:
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
                raise FrameError("a frame is a NumPy array of uint8, [height, width, 3]")
            request = {**request, "shape": list(frame.shape)}
            blob = np.ascontiguousarray(frame).tobytes()
        with self._lock:
            try:
                self._socket.sendall(messages.encode(request, blob))
                reply = messages.decode(messages.receiver(self._socket))
            except OSError as error:
                # An answer that comes late would be taken for that of the next request.
                self._socket.close()
                raise DeployError(f"the service at {self.path} failed: {error}") from None
        if reply is None:
            raise DeployError(f"the service at {self.path} ended: connect again")
        answer, tail = reply
        if not answer.pop("ok", False):
            kind = getattr(errors, str(answer.get("kind")), errors.UsageError)
            raise kind(str(answer.get("error")))
        return answer, tail


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }

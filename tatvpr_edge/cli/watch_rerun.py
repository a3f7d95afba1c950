"""``watch --rerun``: answers as a recording for Rerun's viewer (rerun.io)."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tatvpr_edge.cli.output import writing
from tatvpr_edge.runtime.frame import rgb_of
from tatvpr_edge.spec.text import printable

if TYPE_CHECKING:
    from tatvpr_edge.cli.watched import Answer

_JPEG_QUALITY = 75


class RerunLog:
    """A context manager to call with each answer; the first takes the place of what stood there.

    Raises:
        ModuleNotFoundError: Rerun is not installed; the command line names the extra.
    """

    def __init__(self, path: Path) -> None:
        self._rerun: Any = importlib.import_module("rerun")
        self._path = path
        self._stream: Any = None

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.flush()
            self._stream.disconnect()

    def _begin(self) -> None:
        with writing(self._path):
            self._path.open("wb").close()
        self._stream = self._rerun.RecordingStream("tatvpr-edge")
        self._stream.save(str(self._path))

    def __call__(self, answer: Answer) -> None:
        """Write an answer.

        Raises:
            DataError: the file cannot be written.
        """
        if self._stream is None:
            self._begin()
        rerun, stream, match, image = self._rerun, self._stream, answer.match, answer.frame.image
        stream.set_time("taken", timestamp=answer.taken_s)
        stream.set_time("frame", sequence=answer.frame.index)
        stream.log("camera", rerun.Image(rgb_of(image)).compress(jpeg_quality=_JPEG_QUALITY))
        for name, value in (
            ("score", match.score),
            ("confidence", match.confidence),
            ("k", match.k),
            ("latency_ms", match.latency_ms),
            ("power_w", answer.power_w),
            ("rate_hz", answer.rate_hz),
            ("dropped", float(answer.dropped)),
        ):
            if value is not None:
                stream.log(f"figures/{name}", rerun.Scalars(value))
        accepted = {True: "accepted", False: "not accepted", None: "not judged"}[match.accepted]
        why = f" ({match.reason})" if match.reason else ""
        text = printable(f"{match.tag or match.place}: {accepted}{why}")
        level = "INFO" if match.accepted is not False else "WARN"
        stream.log("place", rerun.TextLog(text, level=level))
        if match.pose is not None and match.accepted is not False:
            x, y, z = (0.0 if math.isnan(value) else value for value in match.pose[:3])
            stream.log("position", rerun.Points3D([[x, y, z]]))

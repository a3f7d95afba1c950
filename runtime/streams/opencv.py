"""Cameras, GStreamer pipelines, addresses and files through the OpenCV that is installed."""

from __future__ import annotations

import importlib
import re
from typing import Any

from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.streams.frames import Grabbed, NotThereError
from tatvpr_edge.spec.errors import DataError, FrameError, ToolError

#: Milliseconds after which an address that does not answer counts as dead (OpenCV waits 30 s).
_PATIENCE_MS = 5000
#: What a pipeline may hand to OpenCV; planes such as NV12 would arrive as one tall gray picture.
_PIPELINE_FORMATS = ("BGR", "GRAY8")


class OpenCvSource:
    """What ``cv2.VideoCapture`` reads; its pixels are blue, green, red, and are called so."""

    def __init__(self, name: str, live: bool, target: int | str, api: str) -> None:
        self.name = name
        self.live = live
        self._target = target
        self._cv2: Any = importlib.import_module("cv2")
        self._api: int = getattr(self._cv2, api)
        self._capture: Any = None
        self._begun = False

    @classmethod
    def device(cls, target: int | str, name: str) -> OpenCvSource:
        """A V4L2 camera by number or path."""
        return cls(name, True, target, "CAP_V4L2")

    @classmethod
    def film(cls, target: str, live: bool) -> OpenCvSource:
        """A file or an address."""
        return cls(target, live, target, "CAP_ANY")

    @classmethod
    def pipeline(cls, text: str) -> OpenCvSource:
        """A GStreamer pipeline.

        Raises:
            ToolError: this OpenCV was built without GStreamer.
            DataError: the pipeline does not end in what OpenCV takes.
        """
        elements = [part.strip() for part in text.split("!")]
        if not elements[-1].startswith("appsink"):
            raise DataError(
                f"the pipeline ends in {elements[-1]!r}: end it in '! videoconvert ! "
                "video/x-raw,format=BGR ! appsink drop=true max-buffers=1'"
            )
        given = re.search(r"format=(?:\(string\))?\s*([A-Za-z0-9_]+)", elements[-2])
        if given and given[1] not in _PIPELINE_FORMATS:
            raise DataError(
                f"the pipeline gives {given[1]}, which OpenCV would hand on as one gray picture: "
                "put '! videoconvert ! video/x-raw,format=BGR' before its appsink"
            )
        made = cls("the GStreamer pipeline", True, text, "CAP_GSTREAMER")
        made.need_gstreamer()
        return made

    def need_gstreamer(self) -> None:
        """Raise ToolError where OpenCV's own build information says that it has no GStreamer."""
        said = re.search(r"GStreamer:\s*(\w+)", self._cv2.getBuildInformation())
        if said is None or said[1].upper() != "YES":
            raise ToolError(
                f"this OpenCV ({self._cv2.__version__}) was built without GStreamer, as pip's are: "
                "use JetPack's or the distribution's (pip uninstall opencv-python, apt-get "
                "install python3-opencv, virtual environments with --system-site-packages), or "
                "give /dev/video0 or an rtsp:// address"
            )

    def open(self) -> None:
        """Begin, or begin again.

        Raises:
            NotThereError: it cannot be opened now.
        """
        cv2 = self._cv2
        limits = []
        if self.live and isinstance(self._target, str) and "://" in self._target:
            for name in ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC"):
                if hasattr(cv2, name):  # OpenCV 4.5.3 and later
                    limits += [getattr(cv2, name), _PATIENCE_MS]
        try:
            self._capture = cv2.VideoCapture(self._target, self._api, *([limits] if limits else []))
            opened = self._capture.isOpened()
        except cv2.error as error:
            raise self._said(error) from None
        if not opened:
            why = (
                "not there, or held by another program"
                if self.live
                else "no video that OpenCV can read"
            )
            raise NotThereError(f"{self.name}: {why}")
        self._begun = False
        if self.live:
            # A hint: the driver keeps fewer old frames, where it heeds it.
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> Grabbed | None:
        """The next frame; None at the end, or where a camera gives none any more.

        Raises:
            NotThereError: what comes is no picture.
        """
        try:
            good, pixels = self._capture.read()
        except self._cv2.error as error:  # as of an empty JPEG from a camera that is unplugged
            raise self._said(error) from None
        if not good:
            return None
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        try:
            image = check_frame(pixels, bgr=True)
        except FrameError as error:
            raise NotThereError(f"{self.name}: OpenCV gives what is no picture: {error}") from None
        at_ms = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC))
        # 0 of a later frame means that it has no time, as the last ones of an .mpg.
        known = at_ms > 0 or (at_ms == 0 and not self._begun)
        self._begun = True
        return Grabbed(image, at_ms / 1e3 if known else None)

    def _said(self, error: Any) -> NotThereError:
        return NotThereError(f"{self.name}: OpenCV says {error.err or error}")

    def close(self) -> None:
        """Give the camera or file back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def interrupt(self) -> None:
        """OpenCV offers no way: its own limits end a call."""

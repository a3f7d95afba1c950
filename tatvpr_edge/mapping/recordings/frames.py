"""One frame of a recording, read when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.runtime.frame import Frame, check_frame, rgb_of
from tatvpr_edge.spec.errors import DataError, FrameError

if TYPE_CHECKING:
    from PIL.Image import Image

Pose = tuple[float, float, float, float, float, float, float]


@dataclass(frozen=True)
class RecordedFrame(FrameFile):
    """A frame of a bag or video; its name is its time in seconds.

    Attributes:
        load: reads it from the recording; called by one thread at a time, it gives what decodes.
        time_s: when it was taken, in seconds since 1970; None: unknown.
        pose: where (x y z qx qy qz qw, NaN unknown); None: unknown.
        pose_frame: of the recording's poses: "local" or "geographic".
        poses_from: the topic of its poses; "" where none was given.
    """

    load: Callable[[], Callable[[], Frame]] = field(repr=False, compare=False)
    time_s: float | None = None
    pose: Pose | None = None
    pose_frame: str = "local"
    poses_from: str = ""

    def fetch(self) -> Callable[[], Frame]:
        """As ``FrameFile.fetch``."""
        decode = self.load()

        def decoded() -> Frame:
            try:
                return decode()
            except DataError as error:  # what was compressed does not know its own name
                raise DataError(f"{self.path}: {error}") from None

        return decoded

    def picture(self) -> Image:
        """As ``FrameFile.picture``."""
        from PIL import Image

        try:
            frame = check_frame(self.read())
        except FrameError as error:
            raise DataError(f"{self.path}: {error}") from None
        return Image.fromarray(rgb_of(frame))


def broken(text: str) -> Callable[[], Callable[[], Frame]]:
    """The ``load`` of a frame that cannot be read."""

    def load() -> Callable[[], Frame]:
        raise DataError(text)

    return load

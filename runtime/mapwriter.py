"""``MapWriter``: places added to a map on the board, one durable append after another."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.arguments import added_at
from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.runtime.drive import Drive
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.frame import CameraFrame, check_frame
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.mapjournal import append, create_map
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.structure import without_structure
from tatvpr_edge.runtime.verdict import calibrating
from tatvpr_edge.runtime.views import describe_place
from tatvpr_edge.spec.errors import FrameError, MapError, UsageError
from tatvpr_edge.spec.limits import check_bands
from tatvpr_edge.spec.maptypes import known_poses
from tatvpr_edge.spec.placemap import Band, MapInfo, Places
from tatvpr_edge.spec.values import flag, shown
from tatvpr_edge.spec.values import path as check_path

F32 = NDArray[np.float32]
_log = logging.getLogger("tatvpr_edge")


class MapWriter(Closing, OneProcess):
    """Adds places to a map, which is made where there is none.

    Each :meth:`add` is on the disk before it returns, and but for the first costs the same whatever
    the map holds. The places of one writer are one drive, in the order in which they were added.
    Several writers and readers may use one map at once. Not to be shared between threads.

    Args:
        path: the ``.placemap``.
        artifact: folder of the artifact that describes frames, or a ``Localizer`` that runs it
            (and stays open).
        kind, bands, pose_frame: of a map that is made: "int8" (None), "binary" or "weighed"; the
            (k, tokens) that places are described at (None: k = 1, all tokens); "local" (None),
            "utm" or "geographic". An existing map keeps its own.
        like: another map of the model, in place of the three: a map that is made takes its kind,
            bands, calibration and the rest, and only its places not. So a robot that begins with
            nothing knows from its first minutes which of its answers are right; where the other
            one is not calibrated, logging says that it will not.
        views: describe a frame from several views (``runtime.views``), as ``tatvpr-edge map
            build`` does: more queries find the place, and ``add`` describes eight times. Neighbours
            come later: ``tatvpr-edge map lean``, once the drives are over.

    Raises:
        MapError, ArtifactError, SignatureError, UsageError: by name of the fault.
    """

    _elsewhere = "make another one there, with MapWriter(PATH, artifact)"

    def __init__(
        self,
        path: str | Path,
        artifact: str | Path | Localizer,
        *,
        kind: str | None = None,
        bands: Sequence[tuple[float, float]] | None = None,
        pose_frame: str | None = None,
        like: str | Path | None = None,
        views: bool = False,
    ) -> None:
        self.path = check_path(path, "path", "a .placemap")
        self._views = flag(views, "views")
        self._own: Localizer | None = None
        if isinstance(artifact, Localizer):
            self._localizer = artifact
        else:
            self._localizer = self._own = Localizer(artifact)
        self._engine = self._localizer.engine
        model = self._localizer.artifact.manifest.model
        if not os.path.exists(self.path):
            if like is not None:
                for name, given in (("kind", kind), ("bands", bands), ("pose_frame", pose_frame)):
                    if given is not None:
                        raise UsageError(f"{name} and like: the map that is given has its own")
                info = replace(PlaceMap(like, model).info, neighbours=False)
                if all(band.calibration is None for band in info.bands):
                    _log.warning(
                        "map %s is not calibrated, so that %s does not know which of its answers "
                        "are right: before, %s",
                        like,
                        self.path,
                        calibrating(like),
                    )
            else:
                pairs = check_bands(bands, self._localizer.artifact.manifest.k_range)
                made = tuple(Band(k, tokens) for k, tokens in pairs)
                info = MapInfo(
                    model.hash,
                    "int8" if kind is None else kind,
                    model.descriptor_size,
                    made,
                    "local" if pose_frame is None else pose_frame,
                )
            create_map(self.path, info)
        self.info = PlaceMap(self.path, model).info
        self._drive = Drive(self.path)

    def add(
        self,
        frame: NDArray[np.uint8] | CameraFrame | F32 | Sequence[F32],
        pose: Sequence[float] | NDArray[np.float64] | None = None,
        tag: str = "",
        *,
        time_s: float | None = None,
        bgr: bool = False,
    ) -> int:
        """Add one place.

        Args:
            frame: a frame as ``Localizer.query`` takes it; or its descriptor float32
                [descriptor_size], made at the map's one band; or one such descriptor a band.
            pose: (x, y), (x, y, z) or (x, y, z, qx, qy, qz, qw) in the map's pose frame; None:
                unknown.
            tag: any text of at most 65535 bytes.
            time_s: when it was seen, in seconds since 1970; None: now.
            bgr: the channels of the frame are blue, green, red.

        Returns:
            Its number in the map.

        Raises:
            FrameError, MapError, UsageError: nothing was added; the text says why. FrameError
                also where the frame shows nothing (blank, black, a covered lens).
        """
        given = given_frame(frame, bgr)
        if isinstance(given, CameraFrame):
            check_shows(self._engine, given)
        descriptors = described(self._localizer, self.info, given, self._views)
        seen_s = added_at(time_s)
        return self._drive.add(self.info, descriptors, full_pose(pose), tag, seen_s).number

    def add_places(self, places: Places) -> int:
        """Add places that ``spec.placemap.make_places`` made: all of them or none.

        Returns:
            The number of the first of them in the map.
        """
        return append(self.path, places, made_for=self.info)

    def close(self) -> None:
        """Give back what was opened to describe frames. Every place is on the disk already."""
        if self._own is not None:
            self._own.close()


def check_shows(engine: Engine, frame: CameraFrame) -> None:
    """Raise FrameError where ``frame`` shows nothing, and is no place."""
    nothing = without_structure(engine, frame)
    if nothing is not None:
        raise FrameError(nothing)


def given_frame(
    frame: NDArray[np.uint8] | CameraFrame | F32 | Sequence[F32], bgr: bool = False
) -> CameraFrame | list[F32]:
    """What was given as a place: a frame, checked, or descriptors.

    Raises:
        FrameError: it is neither.
    """
    rows = None
    if not isinstance(frame, CameraFrame) and getattr(frame, "dtype", None) != np.uint8:
        rows = _descriptors(frame)
    # Whatever else it is, the check says why it is no frame.
    return check_frame(frame, bgr) if rows is None else rows


def described(
    localizer: Localizer, info: MapInfo, given: CameraFrame | list[F32], views: bool = False
) -> list[F32]:
    """One descriptor a band of a map: of a frame, or those that were given.

    Args:
        views: of a frame from several views.

    Raises:
        FrameError: the frame is too large.
        UsageError: not as many descriptors as bands.
    """
    if isinstance(given, CameraFrame):
        bands = [(band.k, band.tokens) for band in info.bands]
        if views:
            return describe_place(
                lambda view, k, tokens: localizer.describe(view, k=k, tokens=tokens),
                given,
                bands,
                localizer.artifact.manifest.k_range[0],
            )
        return [localizer.describe(given, k=k, tokens=tokens) for k, tokens in bands]
    if len(given) != len(info.bands):
        raise UsageError(
            f"{len(given)} descriptors for a map of {len(info.bands)} bands: give one a "
            "band, or the frame"
        )
    return given


def _descriptors(given: Any) -> list[F32] | None:
    """One descriptor, or several; None where it is something else."""
    one = isinstance(given, np.ndarray) and given.ndim == 1
    try:
        rows = [np.asarray(row, np.float32) for row in ([given] if one else given)]
    except (TypeError, ValueError):
        return None
    return rows if rows and all(row.ndim == 1 for row in rows) else None


def full_pose(pose: Sequence[float] | NDArray[np.float64] | None) -> NDArray[np.float64]:
    """A pose as float64 [7], NaN where it does not say.

    Raises:
        MapError: it is no numbers, or another number of them than 2, 3 or 7, further away than any
            place, or its orientation is half known or none.
    """
    numbers = np.full(7, np.nan)
    if pose is None:
        return numbers
    try:
        given = np.asarray(pose, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise MapError(f"a pose is numbers, not {shown(pose)}: give x y, or x y z ...") from None
    if len(given) not in (2, 3, 7):
        raise MapError(f"a pose of {len(given)} numbers: give x y, x y z, or x y z qx qy qz qw")
    numbers[: len(given)] = given
    known_poses(numbers[None].copy(), 1, "local")
    return numbers

"""Many frames to descriptors, on all cores; damaged frames are named, and left out or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.frame import Frame, check_frame
from tatvpr_edge.runtime.structure import without_structure
from tatvpr_edge.runtime.views import describe_place
from tatvpr_edge.spec.errors import DataError, FrameError
from tatvpr_edge.spec.workers import in_order

Band = tuple[float, float]
Step = Callable[[int], None]
_Rows = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Skipped:
    """A frame that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Described:
    """Descriptors of the frames that could be used.

    Attributes:
        descriptors: float32 [N, D], one array for each band.
        kept: the N frames, by their numbers in what was given.
        skipped: those left out.
    """

    descriptors: list[NDArray[np.float32]]
    kept: list[int]
    skipped: tuple[Skipped, ...]


def describe_frames(
    localizer: Localizer,
    frames: Sequence[FrameFile],
    bands: Sequence[Band],
    step: Step | None = None,
    strict: bool = False,
    *,
    as_places: bool = False,
    views: bool = False,
) -> Described:
    """Descriptors of ``frames`` at each of ``bands`` (k, tokens).

    Args:
        step: told after every frame, with 1.
        strict: a frame that is left out otherwise is an error.
        as_places: for frames that become places: one that shows nothing (black, blank, a covered
            lens, by the rule of ``Localizer.query``) is left out as a damaged one is.
        views: each frame from several views (``runtime.views``), as a map keeps a place.

    Raises:
        DataError: ``strict`` and a frame to leave out, or none is left; the text names it.
    """
    rows: list[_Rows] = []
    kept: list[int] = []
    skipped: list[Skipped] = []
    for index, made in enumerate(_each(localizer, frames, bands, as_places, views)):
        if isinstance(made, DataError):
            if strict:
                raise made
            skipped.append(Skipped(frames[index].name, str(made)))
        else:
            kept.append(index)
            rows.append(made)
        if step is not None:
            step(1)
    if not rows:
        raise DataError(f"not one of {len(frames)} frames can be used: {skipped[0].reason}")
    descriptors = [np.stack([row[index] for row in rows]) for index in range(len(bands))]
    return Described(descriptors, kept, tuple(skipped))


def _each(
    localizer: Localizer,
    frames: Sequence[FrameFile],
    bands: Sequence[Band],
    as_places: bool,
    views: bool,
) -> Iterator[_Rows | DataError]:
    """For each frame, in order, its descriptors or what is wrong with it."""
    backend, engine = localizer.backend, localizer.engine
    lowest_k = localizer.artifact.manifest.k_range[0]

    def one(fetched: tuple[FrameFile, Callable[[], Frame]]) -> _Rows | DataError:
        frame, decode = fetched
        try:
            checked = check_frame(decode())
        except DataError as error:
            return error
        except FrameError as error:
            return DataError(f"{frame.path}: {error}")
        nothing = without_structure(engine, checked) if as_places else None
        if nothing is not None:
            return DataError(f"{frame.path}: {nothing}")
        if views:
            return describe_place(backend.describe, checked, bands, lowest_k)
        return [backend.describe(checked, k, tokens) for k, tokens in bands]

    # Decoding and describing both leave the interpreter's lock, so that threads are enough. What is
    # fetched of a recording lies in memory: no more than the threads need.
    return in_order(one, ((frame, _fetched(frame)) for frame in frames), os.cpu_count() or 1)


def _fetched(frame: FrameFile) -> Callable[[], Frame]:
    """What decodes ``frame``; where it cannot be fetched, that fails in its turn."""
    try:
        return frame.fetch()
    except DataError as error:
        fault = error

    def fail() -> Frame:
        raise fault

    return fail

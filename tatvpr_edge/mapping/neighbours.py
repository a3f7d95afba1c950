"""Places along a drive lend their neighbours a part of what they show.

What a robot sees between two places of a map is seen from both, while a wall elsewhere that looks
like one of them seldom stands beside one that looks like the other. So each place that is described
from several views (``runtime.views``) keeps a part of the descriptors of the place before and of
the one behind it on its drive. A map is no larger for it, and a query no slower.

In: descriptors of places in their order, and where they lie. Out: what a map keeps of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import dirname

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.coordinates import WITHIN_M, metres_between
from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.mapping.poses import Poses
from tatvpr_edge.mapping.recordings import RecordedFrame

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: How much of a neighbour's descriptor a place keeps, of its own. Chosen on training floors and
#: rendered drives (docs/training-log.md).
PART = 0.3
#: Neighbours lie within so many times what counts as right, on either side of whoever asks.
NEAR = 2


def following(frames: Sequence[FrameFile], poses: Poses) -> Bools:
    """Whether each of ``frames`` but the first is the neighbour of the one before: bool [N - 1].

    Frames of one folder are where their positions are near, and those of a recording also where
    one is unknown; of other pictures without positions nobody knows.

    Args:
        poses: of these frames.
    """
    recorded = [isinstance(frame, RecordedFrame) for frame in frames]
    names = [frame.name for frame in frames]
    return neighbouring(names, poses.positions, poses.frame, np.asarray(recorded, np.bool_))


def neighbouring(
    names: Sequence[str], positions: F64, frame: str, recorded: Bools | None = None
) -> Bools:
    """The same of names and positions float64 [N, 2] in a pose frame.

    Args:
        recorded: bool [N], which come from a recording; None: none does.
    """
    apart = metres_between(positions[:-1], positions[1:], frame)
    linked = apart <= NEAR * WITHIN_M[frame]
    if recorded is not None:
        linked |= np.isnan(apart) & recorded[:-1] & recorded[1:]
    folders = [dirname(name) for name in names]
    same = [one == other for one, other in pairwise(folders)]
    return linked & np.asarray(same, np.bool_)


def lent(rows: F32, linked: Bools) -> F32:
    """Descriptors float32 [N, D] of unit length, each with its part of its neighbours'.

    Args:
        linked: bool [N - 1], whether each place but the first is the neighbour of the one before.
    """
    parts = np.where(linked, np.float32(PART), np.float32(0))[:, None]
    total = rows.copy()
    total[1:] += parts * rows[:-1]
    total[:-1] += parts * rows[1:]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # Neighbours that cancel a place out are none; the place itself is.
    return np.where(length > 0, total / np.where(length > 0, length, 1), rows)

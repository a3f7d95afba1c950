"""Whether a frame shows anything: a black, blank or covered lens is no place.

In: a checked frame. Out: None, or the reason why its answer must not be taken. A model answers
such frames like any other, and with scores as high, so that no threshold of a score tells them.
The C core looks (``tatvpr_frame_structure``), so that microcontrollers know as well. Called by
``Localizer.query``.
"""

from __future__ import annotations

import ctypes

from tatvpr_edge.runtime.engine import Engine, Signatures
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.library import c_frame

_SIGNATURES: Signatures = {
    "tatvpr_frame_structure": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p])
}
#: Gray levels below which nothing is seen; TATVPR_LEAST_STRUCTURE.
LEAST_STRUCTURE = 3.0


def without_structure(engine: Engine, frame: CameraFrame) -> str | None:
    """Why ``frame`` is no picture of a place; None: it may be one.

    Raises:
        ArtifactError: the code was built before it could look.
    """
    found = structure(engine, frame)
    if found >= LEAST_STRUCTURE:
        return None
    # Cut, not rounded: 2.96 of 3 are not enough, and must not read as 3.0.
    return (
        f"the frame shows no structure ({int(10 * found) / 10} gray levels, {LEAST_STRUCTURE:g} "
        "are needed): blank, black or a covered lens"
    )


def structure(engine: Engine, frame: CameraFrame) -> float:
    """Gray levels of structure: root mean square over cells, less a smooth surface.

    Args:
        engine: an artifact's loaded code.
    """
    engine.declare(_SIGNATURES)
    levels = ctypes.c_float()
    given = c_frame(frame)
    engine.check(engine.c.tatvpr_frame_structure(ctypes.byref(given), ctypes.byref(levels)))
    return levels.value

"""Names of camera formats. Standard library only: the board's half of deploy reads manifests, which
list them; what they mean is in :mod:`tatvpr_edge.spec.frames`.
"""

from __future__ import annotations

#: Formats by name, as in ``enum tatvpr_format`` of the C interface.
FORMATS = {
    "RGB888": 1,
    "BGR888": 2,
    "GRAY8": 3,
    "RGB565": 4,
    "YUV422": 5,
    "NV12": 6,
    "RGBA": 7,
    "BGRA": 8,
    "UYVY": 9,
    "I420": 10,
    "NV21": 11,
    "GRAY10": 12,
    "GRAY12": 13,
    "GRAY16": 14,
}

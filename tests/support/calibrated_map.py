"""An empty map that says when an answer is right."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map


def calibrated_map(artifact: Path, path: Path) -> MapInfo:
    """Write it for ``artifact``'s model."""
    with Localizer(artifact) as localizer:
        model = localizer.artifact.manifest.model
    how = Calibration("logistic", 0.5, (-9.0, 9.0, 9.0), 20.0, 12, precision=0.95, recall=0.5)
    info = MapInfo(model.hash, "binary", model.descriptor_size, (Band(0.4, 1.0, how),))
    write_map(path, info, [])
    return info

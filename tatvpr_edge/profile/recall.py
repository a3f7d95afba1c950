"""Recall@1 of an artifact on the shipped places, at exactly the settings that are profiled.

49 places, each once in the map and twice, moved, turned and relit, as a query: enough to see what
a k costs on one page with its latency, too few to be a benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping import read_frame
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.profiling import Setting
from tatvpr_edge.zoo import ZOO

__all__ = ["places_recall"]


def places_recall(
    artifact: str | Path,
    settings: Sequence[Setting],
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    places: Path = ZOO / "places",
) -> tuple[dict[tuple[float, float], float], str]:
    """Recall@1 (0 to 1) by (k, tokens), and what it was measured on.

    Map and queries are described at the same setting and compared by cosine.

    Raises:
        DataError: the shipped places are missing.
        ArtifactError: as `Localizer`.
    """
    folders = (places / "gallery", places / "queries")
    parts = [labelled_frames(folder) for folder in folders]
    frames = [[read_frame(file.path) for file in files] for files, _ in parts]
    labels = [names for _, names in parts]
    found: dict[tuple[float, float], float] = {}
    with Localizer(artifact) as localizer:
        for n, setting in enumerate(settings):
            progress(f"recall at {setting.text()}", n, len(settings))
            localizer.k, localizer.tokens = setting.k, setting.tokens
            gallery, queries = (_describe(localizer, part) for part in frames)
            best = np.argmax(queries @ gallery.T, axis=1)
            right = sum(labels[0][g] == labels[1][q] for q, g in enumerate(best))
            found[(setting.k, setting.tokens)] = right / len(queries)
    what = (
        f"the shipped rendered places ({len(frames[1])} queries, {len(frames[0])} places; "
        "shows the trend, is no benchmark)"
    )
    return found, what


def _describe(localizer: Localizer, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack([localizer.describe(frame) for frame in frames])

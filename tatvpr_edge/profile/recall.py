"""Recall@1 of an artifact at exactly the settings that are profiled.

As its model was evaluated, where the artifact says so of all of them; else on the shipped places:
49, each once in the map and twice, moved, turned and relit, as a query. They are enough to see what
a k costs on one page with its latency, too few to be a benchmark, and too few to tell settings
apart among which a governor has to choose.
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
from tatvpr_edge.spec.manifest import Dials
from tatvpr_edge.zoo import ZOO


def evaluated_recall(
    frontier: Sequence[Dials], settings: Sequence[Setting]
) -> tuple[dict[tuple[float, float], float], str] | None:
    """Recall@1 (0 to 1) by (k, tokens) as a manifest's frontier has it, and what it was measured
    on; None where it lacks one of ``settings``."""
    known = {(s.k, s.tokens): s.recall / 100 for s in frontier if s.recall is not None}
    if not {(s.k, s.tokens) for s in settings} <= known.keys():
        return None
    return known, "the model's evaluation (the artifact's frontier)"


def places_recall(
    artifact: str | Path,
    settings: Sequence[Setting],
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> tuple[dict[tuple[float, float], float], str]:
    """Recall@1 (0 to 1) by (k, tokens), and what it was measured on.

    Map and queries are described at the same setting and compared by cosine.

    Raises:
        DataError: the shipped places are missing.
        ArtifactError: as `Localizer`.
    """
    parts = [labelled_frames(ZOO / "places" / part) for part in ("gallery", "queries")]
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

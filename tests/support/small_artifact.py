"""An artifact of a few bytes, whose files say nothing: for tests of its format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.manifest import (
    MANIFEST,
    Code,
    Dials,
    Golden,
    GoldenFrame,
    GoldenPoint,
    Manifest,
    ModelEntry,
    seal,
)

FILES: dict[str, bytes | str | Path] = {
    "lib/libtatvpr_model.so": b"code" * 5,
    "weights.bin": b"weights",
    "golden/frame0.rgb": bytes(range(48)),
    "golden/k1.f32": bytes(16),
}


def manifest(**changes: Any) -> Manifest:
    """A manifest that fits FILES."""
    values: dict[str, Any] = {
        "board": "host",
        "model": ModelEntry("micro", "ab" * 32, "gem", 4, 4, 8, 5),
        "code": Code("shared-library", "lib/libtatvpr_model.so", "x86_64-linux-gnu", ("portable",)),
        "created_with": "tatvpr-edge 0.1.0",
        "golden": Golden(
            True,
            (GoldenFrame("golden/frame0.rgb", 4, 4),),
            (GoldenPoint(1.0, 1.0, "golden/k1.f32", 0.99),),
        ),
        "compute": ({"k": 1.0, "tokens": 1.0, "macs": 5.0},),
        "memory": {"arena_bytes": 4096},
        "frontier": (Dials(1.0, 1.0, 41.7), Dials(0.2, 0.5, 38.0)),
    }
    return Manifest(**{**values, **changes})


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of ``folder`` in place."""
    path = folder / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_bytes(seal(document))

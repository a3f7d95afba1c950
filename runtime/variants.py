"""Which kernel variant of a library runs: measured once on each machine, then remembered.

All variants give the same bytes, so that the fastest is the best. Which one that is hangs on the
processor and on the model's widths. The first load times the usable ones on a golden frame for at
most :data:`LIMIT_S` and remembers the answer in the user's cache folder, by code and processor.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.runtime.frame import CameraFrame, check_frame, golden_pixels
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.text import parse_json

if TYPE_CHECKING:
    from tatvpr_edge.runtime.library import Library

#: Wall time of all measurements together, but for the run that is under way when it ends.
LIMIT_S = 0.3
#: Both ends of the dial count: a variant may be fast at one of them only.
POINTS = (1.0, 0.2)

#: Lines of /proc/cpuinfo that tell processors apart, on x86 and on Arm.
_CPU_KEYS = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features"),
)


def fastest_kernels(library: Library, artifact: Artifact) -> str:
    """The variant for this machine: remembered, else measured and then remembered."""
    usable = library.usable_kernels()
    timed = [name for name in usable if not name.startswith("portable")]
    if len(timed) < 2 or not artifact.manifest.golden.frames:
        return usable[0]
    place = remembered_at(artifact)
    known = _read(place, usable)
    if known is not None:
        return known
    times = measure(library, golden_frame(artifact), timed)
    # A model so slow that not all had their turn: the order of the library's own list.
    chosen = min(times, key=times.__getitem__) if len(times) == len(timed) else timed[0]
    _write(place, chosen, times)
    return chosen


def remembered_at(artifact: Artifact, cpu: str | None = None) -> Path:
    """The file for one model's code on one processor."""
    manifest = artifact.manifest
    (code,) = [entry.sha256 for entry in manifest.files if entry.path == manifest.code.path]
    text = "\0".join((manifest.model.hash, code, cpu_identity() if cpu is None else cpu))
    return cache_folder("kernels") / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def cpu_identity(cpuinfo: str = "/proc/cpuinfo") -> str:
    """What tells this processor from others; every kind of core counts once."""
    try:
        text = Path(cpuinfo).read_text("utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    pairs = (line.partition(":") for line in text.splitlines())
    lines = {f"{key.strip()}:{value}" for key, _, value in pairs if key.strip() in _CPU_KEYS}
    return "\n".join([platform.machine(), *sorted(lines)])


def golden_frame(artifact: Artifact) -> CameraFrame:
    """The smallest golden frame."""
    frame = min(artifact.manifest.golden.frames, key=lambda one: one.width * one.height)
    return check_frame(golden_pixels(artifact, frame))


def measure(
    library: Library, frame: CameraFrame, names: Sequence[str], limit_s: float = LIMIT_S
) -> dict[str, float]:
    """Least CPU seconds of a frame at every point together, for the variants that there was time
    for. ``library`` is left with the last one bound."""
    end = time.monotonic() + limit_s
    best: dict[str, float] = {}
    while time.monotonic() < end:
        for name in names:
            if time.monotonic() + best.get(name, 0.0) >= end:
                return best
            library.use(name)
            started = time.thread_time()
            for k in POINTS:
                library.describe(frame, k, 1.0)
            spent = time.thread_time() - started
            best[name] = min(best.get(name, spent), spent)
    return best


def _read(place: Path, usable: Sequence[str]) -> str | None:
    try:
        document = parse_json(place.read_bytes())
    except (OSError, ValueError):
        return None
    name = document.get("kernels") if isinstance(document, dict) else None
    return name if name in usable else None


def _write(place: Path, name: str, times: dict[str, float]) -> None:
    seconds = {variant: round(spent, 6) for variant, spent in times.items()}
    text = json.dumps({"kernels": name, "cpu_seconds": seconds})
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as sink:
            sink.write(text.encode("ascii"))
    except OSError as error:
        logging.getLogger("tatvpr_edge").warning(
            f"{place.parent} cannot be written ({error.strerror}): the fastest kernels are "
            "measured again at every start"
        )

"""What stage 1 learns from: crops of frames, each with what the teacher sees in it.

The teacher is slow and frozen, so its answers are computed once and kept: a folder with
``pixels.npy`` (what the student sees, before photometric augmentation), ``features.npy`` (the
teacher's map, projected onto its principal components), ``descriptors.npy`` and ``card.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.models.data.frames import check_frames, new_array, squash
from tatvpr_edge.models.teachers.base import Teacher
from tatvpr_edge.spec.atomic import naming, put_new, staging
from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.text import parse_json

CARD = "card.json"
_BATCH = 16
#: Frames from which the principal components are computed.
_COMPONENT_FRAMES = 600


@dataclass(frozen=True)
class TeacherViews:
    """Views and the teacher's answers, memory-mapped.

    Attributes:
        pixels: ``uint8 [N, side, side, 3]``.
        features: ``float16 [N, rows, columns, channels]``, unit variance over all channels.
        descriptors: ``float16 [N, size]``, unit length.
        card: how they were made.
    """

    pixels: NDArray[np.uint8]
    features: NDArray[np.float16]
    descriptors: NDArray[np.float16]
    card: dict[str, object]


def random_box(
    width: int, height: int, smallest: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A crop that keeps ``smallest`` to 1 of the area, its shape changed by at most 10 %."""
    area = rng.uniform(smallest, 1.0)
    shape = np.exp(rng.uniform(-0.1, 0.1))
    w, h = min(1.0, np.sqrt(area) * shape), min(1.0, np.sqrt(area) / shape)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    return x * width, y * height, (x + w) * width, (y + h) * height


def write_views(
    folder: Path,
    paths: Sequence[Path],
    views: Sequence[int],
    teacher: Teacher,
    *,
    side_px: int,
    channels: int,
    smallest: float = 0.6,
    seed: int = 0,
    asking: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[int, int], None] | None = None,
    asked: dict[str, object] | None = None,
    drawn: dict[str, object] | None = None,
) -> Path:
    """Make the folder; it appears whole or not at all.

    Args:
        views: how many crops of each path.
        side_px: side of the student's frames.
        channels: principal components kept of the teacher's map.
        smallest: smallest area that a crop keeps.
        asking: entered while the teacher looks: mixed precision; its maps are kept in full.
        asked: by which keys of a training file they are made; :func:`made_for` compares them.
        drawn: of which frames; kept in the card.

    Raises:
        DataError: the folder exists, a frame cannot be read, or the teacher's map has fewer
            channels.
    """
    if channels > teacher.channels:
        raise DataError(
            f"{teacher.name} has {teacher.channels} channels, and {channels} are asked for: "
            f"distil.channels is at most {teacher.channels}"
        )
    if folder.exists():
        raise DataError(f"{folder} exists: remove it to compute the teacher's answers again")
    check_frames(path for path, count in zip(paths, views, strict=True) if count)
    rng = np.random.default_rng(seed)
    jobs = [path for path, count in zip(paths, views, strict=True) for _ in range(count)]
    rng.shuffle(jobs)  # type: ignore[arg-type]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with naming(folder), staging(folder) as partial:
        partial.chmod(0o755)
        _compute(partial, jobs, teacher, side_px, channels, smallest, rng, asking, progress)
        card = {
            "teacher": teacher.card(),
            "views": len(jobs),
            "frames": len(paths),
            "seed": seed,
            "smallest_crop": smallest,
            "channels": channels,
            "asked": asked or {},
            "drawn": drawn,
        }
        (partial / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
        try:
            put_new(partial, folder)
        except FileExistsError:
            raise DataError(
                f"{folder} exists by now: another program made it meanwhile, and it stays; begin "
                "again to use its answers"
            ) from None
    return folder


def _compute(
    folder: Path,
    jobs: list[Path],
    teacher: Teacher,
    side_px: int,
    channels: int,
    smallest: float,
    rng: np.random.Generator,
    asking: Callable[[], AbstractContextManager[Any]],
    progress: Callable[[int, int], None] | None,
) -> None:
    def answers(batch: list[Path]) -> tuple[NDArray[np.uint8], torch.Tensor]:
        small, large = [], []
        for path in batch:
            image = open_rgb(path)
            box = random_box(image.width, image.height, smallest, rng)
            small.append(squash(image, side_px, box))
            large.append(squash(image, teacher.image_px, box))
        with asking():
            maps = teacher.features(torch.from_numpy(np.stack(large)))
        return np.stack(small), maps.float()

    first = [
        answers(jobs[i : i + _BATCH]) for i in range(0, min(len(jobs), _COMPONENT_FRAMES), _BATCH)
    ]
    seen = torch.cat([features for _, features in first]).reshape(-1, teacher.channels)
    centre = seen.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((seen - centre).T))
    components = vectors[:, -channels:].flip(1)
    scale = ((seen - centre) @ components).std()

    shape = first[0][1].shape[1:3]
    size = teacher.descriptors(first[0][1][:1]).shape[-1]
    pixels = new_array(folder / "pixels.npy", np.uint8, (len(jobs), side_px, side_px, 3))
    features = new_array(folder / "features.npy", np.float16, (len(jobs), *shape, channels))
    descriptors = new_array(folder / "descriptors.npy", np.float16, (len(jobs), size))
    for number, start in enumerate(range(0, len(jobs), _BATCH)):
        small, maps = (
            first[number] if number < len(first) else answers(jobs[start : start + _BATCH])
        )
        end = start + len(small)
        pixels[start:end] = small
        features[start:end] = (((maps - centre) @ components) / scale).half().numpy()
        descriptors[start:end] = teacher.descriptors(maps).half().numpy()
        if progress is not None:
            progress(end, len(jobs))
    for array in (pixels, features, descriptors):
        array.flush()
    np.savez(folder / "components.npz", centre=centre, components=components, scale=scale)


def read_views(folder: Path) -> TeacherViews:
    """The folder that :func:`write_views` made.

    Raises:
        DataError: it is missing, incomplete, or its parts do not belong together.
    """
    try:
        views = TeacherViews(
            pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
            features=np.load(folder / "features.npy", mmap_mode="r"),
            descriptors=np.load(folder / "descriptors.npy", mmap_mode="r"),
            card=parse_json((folder / CARD).read_text()),
        )
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{folder}: no complete set of teacher views ({error}): remove it to make it anew"
        ) from error
    arrays = (views.pixels, views.features, views.descriptors)
    good = (
        [(a.ndim, a.dtype.kind) for a in arrays] == [(4, "u"), (4, "f"), (2, "f")]
        and len({len(a) for a in arrays}) == 1
        and isinstance(views.card, dict)
    )
    if not good:
        raise DataError(
            f"{folder}: its files are not of one set of teacher views: remove it to make it anew"
        )
    return views


def made_for(views: TeacherViews, asked: dict[str, object], folder: Path) -> None:
    """Raise UsageError where ``views`` were made by other keys of a training file than ``asked``;
    older ones do not say by which."""
    known = views.card.get("asked")
    for key, value in asked.items():
        if isinstance(known, dict) and key in known and known[key] != value:
            raise UsageError(
                f"{folder} was made with {key} = {known[key]!r}, not {value!r}: name another "
                "distil.views, or remove it to make it anew"
            )

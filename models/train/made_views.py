"""The teacher's views of a training file: found, or made; and whether they are those asked for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tatvpr_edge.models.data.formats import open_source
from tatvpr_edge.models.data.frames import digest_of
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.teachers import create_teacher, files_of
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Progress, autocast, changes
from tatvpr_edge.models.train.views import TeacherViews, made_for, read_views, write_views
from tatvpr_edge.spec.errors import DataError, UsageError

_LOG = logging.getLogger("tatvpr_edge")


def teacher_views(
    config: TrainConfig,
    model: ModelConfig,
    crew: Crew,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherViews:
    """The folder ``distil.views``, made where it is not there yet.

    Raises:
        DataError: it, or a source, cannot be used.
        UsageError: it was made by another teacher, or shows what the run leaves out.
    """
    folder = Path(config.distil.views)
    if not folder.exists():
        if crew.first:
            make_views(config, model, progress)
        while not folder.exists():  # the first process is at it
            time.sleep(1.0)
    views = read_views(folder)
    made_for(views, _asked(config), folder)
    _look_at_frames(config, views, folder, crew.first)
    return views


def progress_of(report: Callable[[Progress], None] | None) -> Callable[[int, int], None] | None:
    """Tells ``report`` how far the teacher's views are: minutes to hours, before any step."""
    if report is None:
        return None
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        rate = done / max(1e-9, time.monotonic() - began)
        report(Progress("views", done, total, math.nan, rate))

    return show


def make_views(
    config: TrainConfig, model: ModelConfig, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The teacher's answers for every frame of every source."""
    if not any(table.views for table in config.data):
        raise UsageError("the teacher needs at least one [[data]] table with views above 0")
    paths, views = _frames_to_view(config)
    return write_views(
        Path(config.distil.views),
        paths,
        views,
        create_teacher(config.distil.teacher),
        side_px=model.backbone.image_px,
        channels=config.distil.channels,
        smallest=config.augment.smallest_crop,
        seed=config.run.seed,
        asking=functools.partial(autocast, config.run),
        progress=progress,
        asked=_asked(config),
        drawn=_drawn(config) | {_FRAMES: digest_of(paths)},
    )


def _frames_to_view(config: TrainConfig) -> tuple[list[Path], list[int]]:
    """All frames of all sources, and how many crops each gives."""
    paths: list[Path] = []
    views: list[int] = []
    for source in config.data:
        found = open_source(source).paths
        paths += found
        views += crops_of_each(len(found), source.views)
    return paths, views


def _asked(config: TrainConfig) -> dict[str, object]:
    """What the teacher's answers depend on: of other ones nothing is learned."""
    hashes = hashes_of(files_of(config.distil.teacher))
    return {
        "distil.teacher": config.distil.teacher,
        "distil.channels": config.distil.channels,
        **{f"SHA-256 of {name}": value for name, value in hashes.items()},
    }


#: In the card of views: a digest of their frames' names, sizes and times.
_FRAMES = "frames"


def _drawn(config: TrainConfig) -> dict[str, object]:
    """Of which frames, and how, views are drawn."""
    drawn: dict[str, object] = {
        "run.seed": config.run.seed,
        "run.precision": config.run.precision,
        "augment.smallest_crop": config.augment.smallest_crop,
    }
    for number, table in enumerate(config.data):
        for key in ("format", "root", "split", "views"):
            drawn[f"data[{number}].{key}"] = getattr(table, key)
        drawn[f"data[{number}].leave_out"] = sorted(table.leave_out)
    return drawn


def _look_at_frames(config: TrainConfig, views: TeacherViews, folder: Path, aloud: bool) -> None:
    """Raise UsageError where ``views`` show what a table leaves out, by which a run may be judged.
    Other settings than those that they were made by, and other frames, are told: runs may share
    views. Older ones do not say theirs."""
    known = views.card.get("drawn")
    if not isinstance(known, dict):
        return
    for number, table in enumerate(config.data):
        for name in (name for name in known if name.endswith(".root")):
            made = {key: known.get(name.replace("root", key)) for key in ("root", "split")}
            left_out = known.get(name.replace("root", "leave_out"), ())
            shown = set(table.leave_out).difference(left_out)
            if shown and made == {"root": table.root, "split": table.split}:
                raise UsageError(
                    f"{folder} shows {min(shown)!r}, which data[{number}].leave_out leaves out: "
                    "name another distil.views, or remove it to make it anew"
                )
    drawn = {name: value for name, value in known.items() if name != _FRAMES}
    said = changes(drawn, _drawn(config))
    if aloud and not said:
        with contextlib.suppress(DataError):  # frames may be gone once they were looked at
            if digest_of(_frames_to_view(config)[0]) != known.get(_FRAMES):
                said = "files of its frames"
    if aloud and said:
        _LOG.warning(
            "%s is learned from as it is, although changed since it was made: %s (remove it to "
            "make it anew, or name another distil.views)",
            folder,
            said,
        )


def crops_of_each(frames: int, views: float) -> list[int]:
    """How many crops each frame gives so that there are ``views`` on average; the first gives
    most: 0.5 takes frames 0, 2, 4 ..."""
    return [math.ceil((i + 1) * views) - math.ceil(i * views) for i in range(frames)]


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of those files that are there, cut short."""
    there = {name: path for name, path in files.items() if path.is_file()}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest()[:12] for n, p in there.items()}

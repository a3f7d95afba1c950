"""A whole training run: data, teacher's views, both stages, weights at the end.

``tatvpr-edge train --config FILE`` calls :func:`train`; ``torchrun`` starts it several times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import (
    load_weights,
    needing_other_weights,
    save_weights,
    weights_file,
)
from tatvpr_edge.models.data.formats import open_source
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.data.places import Places
from tatvpr_edge.models.enlarge import enlarged
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.order import order_channels
from tatvpr_edge.models.teachers import members_of
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DataConfig, TrainConfig
from tatvpr_edge.models.train.distil import DistilStage
from tatvpr_edge.models.train.distributed import Crew, own_device
from tatvpr_edge.models.train.loop import (
    Progress,
    Randomness,
    Stage,
    TrainingError,
    autocast,
    run_stage,
)
from tatvpr_edge.models.train.made_views import progress_of, teacher_views
from tatvpr_edge.models.train.metric import MetricStage, Source
from tatvpr_edge.models.train.refit import View, refit_head, with_head
from tatvpr_edge.models.train.settings import settings_of
from tatvpr_edge.models.train.taught import answers
from tatvpr_edge.spec.errors import ModelError, UsageError
from tatvpr_edge.spec.targets import refuse_in_artifact

#: Stored frames are this much larger than the model's, so that crops keep their sharpness.
_MARGIN = 1.125
WEIGHTS = "weights.safetensors"

_LOG = logging.getLogger("tatvpr_edge")

Report = Callable[[Progress], None]


def wanted_model(config: TrainConfig) -> ModelConfig:
    """The architecture that a training file asks for."""
    made = registry.config(config.model.name, **config.model.backbone)
    head = dataclasses.replace(made.head, options={**made.head.options, **config.model.head})
    return dataclasses.replace(made, head=head)


def starting_model(config: TrainConfig) -> PlaceModel:
    """Random weights from the seed, or those of ``model.init``, with a random head where theirs is
    another and will be refit, or interpolated for larger frames (``model.enlarge``)."""
    wanted = wanted_model(config)
    if not config.model.init:
        return registry.create(wanted, seed=config.run.seed)
    init = weights_file(config.model.init)
    if config.model.enlarge:
        return enlarged(load_weights(init), wanted)
    if not config.refit.asked:
        return load_weights(init, expected=wanted)
    stored = load_weights(init)
    with_wanted_head = dataclasses.replace(stored.config, head=wanted.head)
    differing = needing_other_weights(wanted, with_wanted_head)
    if differing:
        raise ModelError(f"{init}: another backbone than {wanted.name} ({', '.join(differing)})")
    return with_head(stored, wanted)


def train(
    config: TrainConfig,
    report: Report | None = None,
    stop_after: int | None = None,
    places: Sequence[Places] | None = None,
) -> Path | None:
    """Run both stages, or continue where a killed run stopped.

    Args:
        report: called after every step.
        stop_after: leave after this many steps of a stage, with a checkpoint (for tests and for
            machines that are lent for a while).
        places: what stage 2 learns from, one for each ``[[data]]`` table; None reads the tables'
            folders.

    Returns:
        The weights file; None when ``stop_after`` ended the run before.

    Raises:
        DataError: the data or the teacher's views are not usable.
        TrainingError: the loss is not finite, or another training writes to ``run.output``.
        UsageError: ``run.output`` cannot be made, or the processes or the device do not serve.
        ModelError: a checkpoint in ``run.output`` is damaged, of another architecture, or at its
            end by other settings.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    _check_device(own_device(config.run.device))
    crew = Crew(config.run.device)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, device=crew.device))
    try:
        for count, what in (
            (config.distil.batch, "distil.batch"),
            (config.metric.places * config.metric.images, "metric.places * metric.images"),
        ):
            if count % crew.size:
                raise UsageError(f"{what} = {count} is not a multiple of {crew.size} processes")
        folder = Path(config.run.output)
        refuse_in_artifact(folder, UsageError)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"run.output is {folder}, which cannot be made ({error.strerror}): name a folder"
            ) from None
        with _alone(folder) if crew.first else contextlib.nullcontext():
            try:
                return _train(config, crew, report if crew.first else None, stop_after, places)
            except BaseException:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only an empty one goes: nothing was begun
                raise
    finally:
        crew.leave()


def _check_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(
            f'run.device is "{device}", and torch finds {torch.cuda.device_count()} GPUs here: '
            'set run.device = "cpu", start a process for each GPU at most, or install a torch that '
            "knows this machine's"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other training writes to ``folder`` meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{folder}: another training writes to it: wait for its end, or name another folder"
            ) from None
        except OSError as error:  # a network's file system that knows no locks
            _LOG.debug("%s: not locked (%s)", folder, error)
        yield
    finally:
        os.close(descriptor)


def _train(
    config: TrainConfig,
    crew: Crew,
    report: Report | None,
    stop_after: int | None,
    places: Sequence[Places] | None,
) -> Path | None:
    folder = Path(config.run.output)
    model = starting_model(config)
    model.trained = True
    drops = config.k.tokens_lowest < 1 or config.metric.heed_weight > 0
    if drops and not model.config.backbone.keep_after:
        raise UsageError(
            f"k.tokens_lowest and metric.heed_weight are of KeepTokens, and {model.config.name} "
            "has none: model.backbone = { keep_after = 2 } places one; or leave both out"
        )
    started = any((folder / f"{name}.state").exists() for name in ("distil", "metric"))
    if config.order.k > 0 and not started:
        order_channels(model, _frames_to_order_by(config), config.order.k)
    if config.refit.asked and not started:
        _refit(config, model, report)
        if crew.first:
            save_weights(model, folder / "refit.safetensors")
    model = model.to(config.run.device)
    for build in (_distil_stage, functools.partial(_metric_stage, places=places)):
        stage: Stage | None = build(config, model, crew, report)
        if stage is None:
            continue
        # A stage's randomness starts from the seed, so that stage 2 does not depend on whether
        # stage 1 ran in this process.
        random = Randomness.seeded(config.run.seed)
        # Who hands places over knows itself what they were: the tables do not say it.
        said = None if places is not None else settings_of(config, stage)
        if not run_stage(stage, config.run, random, crew, folder, report, stop_after, said):
            return None
        if crew.first:
            save_weights(model, folder / f"{stage.name}.safetensors")
    weights = folder / WEIGHTS
    if crew.first:
        save_weights(model, weights)
    return weights


def _distil_stage(
    config: TrainConfig, model: PlaceModel, crew: Crew, report: Report | None
) -> DistilStage | None:
    if not config.distil.steps:
        return None
    views = teacher_views(config, model.config, crew, progress_of(report))
    return DistilStage(
        model,
        views,
        config.distil,
        config.k,
        config.augment,
        crew,
        config.run.seed,
        functools.partial(autocast, config.run),
    )


def _metric_stage(
    config: TrainConfig,
    model: PlaceModel,
    crew: Crew,
    report: Report | None,
    places: Sequence[Places] | None = None,
) -> Stage | None:
    if not config.metric.steps:
        return None
    sources = _sources(config, model.config, report, places)
    beside = None
    if config.metric.distil_weight:
        # By the clock of stage 2, and quantised all the time.
        taught = dataclasses.replace(
            config.distil, steps=config.metric.steps, quantise_from=0.0, quantise_until=0.0
        )
        beside = _distil_stage(dataclasses.replace(config, distil=taught), model, crew, report)
    for source in sources:
        said = source.anchor
        if said is not None and said.shape[1] != model.descriptor_size:
            raise UsageError(
                f"metric.anchor = {config.metric.anchor!r} says {said.shape[1]} numbers of a "
                f"frame, {model.config.name} {model.descriptor_size}: name an anchor with as many "
                "(metric.teacher takes any)"
            )
    return MetricStage(
        model,
        sources,
        config.metric,
        config.k,
        config.augment,
        crew,
        beside,
        functools.partial(autocast, config.run),
    )


def _sources(
    config: TrainConfig,
    model: ModelConfig,
    report: Report | None,
    opened: Sequence[Places] | None,
) -> list[Source]:
    """The labelled data of a training file, with what teachers say of it if there are any."""
    side = round(model.backbone.image_px * _MARGIN)
    cache = Path(config.run.cache) if config.run.cache else None
    sources = []
    for number, table in enumerate(config.data):
        if not table.share:
            continue
        places = open_source(table) if opened is None else opened[number]
        pixels = load_frames(places.paths, side, cache)
        ranked = _answers(config.metric.teacher, table, places.paths, cache, report)
        anchor = _answers(config.metric.anchor, table, places.paths, cache, report, whitened=False)
        sources.append(Source(places, pixels, table.share, table.rivals, ranked, anchor))
    return sources


def _answers(
    teacher: str,
    table: DataConfig,
    paths: Sequence[Path],
    cache: Path | None,
    report: Report | None,
    *,
    whitened: bool = True,
) -> NDArray[np.float32] | None:
    """What ``teacher`` says of the frames of ``table``; None where there is none to ask."""
    if not teacher or not table.taught:
        return None
    return answers(members_of(teacher), paths, cache, progress_of(report), whitened)


def _frames_to_order_by(config: TrainConfig) -> NDArray[np.uint8]:
    """Frames of all sources as they are, ``uint8 [n, S, S, 3]``."""
    paths = [path for table in config.data for path in open_source(table).paths]
    if not paths:
        raise UsageError("order needs frames: a [[data]] table")
    chosen = np.unique(np.linspace(0, len(paths) - 1, config.order.frames).round().astype(int))
    side_px = wanted_model(config).backbone.image_px
    return load_frames([paths[i] for i in chosen], side_px)


def _refit(config: TrainConfig, model: PlaceModel, report: Report | None) -> None:
    """The head in closed form, from the frames as they are, in gray, and changed."""
    refit = config.refit
    side = round(model.config.backbone.image_px * _MARGIN)
    cache = Path(config.run.cache) if config.run.cache else None
    frames, taught = [], []
    for table in config.data:
        if table.taught and table.share:
            paths = open_source(table).paths
            if refit.teacher:
                said = _answers(refit.teacher, table, paths, cache, report, whitened=refit.whitened)
                assert said is not None
                taught.append(said)
            frames.append(load_frames(paths, side, cache))
    if not frames:
        raise UsageError("refit needs a [[data]] table with a share and taught = true")
    plain = AugmentConfig.none()
    gray = dataclasses.replace(plain, gray_share=1.0)
    views = [
        View(plain, weight=refit.plain),
        *[View(gray)] * refit.gray,
        *[View(config.augment, config.k)] * refit.changed,
    ]
    if refit.dials > 0:
        views.append(View(plain, config.k, refit.dials, fewer=True))
    mixed = functools.partial(autocast, config.run)
    refit_head(model, frames, taught or None, views, refit, config.run.seed, mixed)

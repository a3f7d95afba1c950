"""Shipped (or other) weights, trained further on frames of a user's own, and judged on a part of
them that training did not see.

An anchor keeps what the weights knew: every changed frame is pulled to what the weights at the
start say of it as it is, so that other places stay where they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tatvpr_edge import zoo
from tatvpr_edge.mapping import FrameFile
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.models.checkpoint import load_weights
from tatvpr_edge.models.data.own import Held
from tatvpr_edge.models.evaluate.describers import ModelDescriber
from tatvpr_edge.models.evaluate.protocols import LazyImages, Trial, changed
from tatvpr_edge.models.evaluate.recall import Interval, paired_bootstrap
from tatvpr_edge.models.evaluate.run import Judged, evaluate
from tatvpr_edge.models.evaluate.stress import Changed
from tatvpr_edge.models.heads import patch_heads, whole_options
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import (
    DataConfig,
    KConfig,
    MetricConfig,
    ModelSection,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from tatvpr_edge.spec.errors import ModelError

#: Steps of a fine-tuning where nobody says another number.
STEPS = 120
#: Times that the frames held out are changed and asked for.
SEEDS = 2
#: Places in a batch, where there are as many; images of each.
_PLACES, _IMAGES = 16, 3
#: Longest side at which frames held out are looked at, and how many are kept in memory.
_SIDE_PX, _IN_MEMORY = 512, 500
#: Kind of descriptors judged: what ``map build`` stores.
KIND = "int8"
#: Cameras on robots, gently: the frames are of the very camera that will ask.
_AUGMENT = AugmentConfig(
    brightness=0.25,
    contrast=0.25,
    gamma=0.25,
    gray_share=0.1,
    saturation=0.4,
    balance=0.15,
    hue_deg=6.0,
    swap_share=0.0,
    dark_share=0.06,
    bright_share=0.03,
    noise=0.01,
    blur_share=0.2,
    motion_share=0.08,
    jpeg_share=0.08,
    vignette_share=0.05,
    occluder_share=0.1,
    roll_share=0.0,
    rotation_deg=5.0,
    smallest_crop=0.7,
    shape=0.08,
)


def trainable(start: Path) -> ModelConfig:
    """The configuration of the weights at ``start``.

    Raises:
        ModelError: they cannot be used, trained with an anchor, or exported.
    """
    stored = load_weights(start).config
    if not stored.backbone.ternary:
        raise ModelError(
            f"{start}: a float twin, of which no model.onnx can be made: give ternary weights"
        )
    if stored.head.kind not in patch_heads():
        raise ModelError(
            f"{start}: its head {stored.head.kind!r} cannot be anchored to what it said before: "
            f"finetune takes {', '.join(patch_heads())}; tatvpr-edge train takes any"
        )
    return stored


def finetune_config(
    start: Path, output: Path, trained: int, steps: int = STEPS, seed: int = 0
) -> TrainConfig:
    """The training file of a fine-tuning, as a record.

    Args:
        start: weights (safetensors).
        output: folder of checkpoints and curves.
        trained: places to learn from.

    Raises:
        ModelError: as :func:`trainable`.
    """
    stored = trainable(start)
    backbone = {
        field.name: getattr(stored.backbone, field.name)
        for field in dataclasses.fields(stored.backbone)
    }
    return TrainConfig(
        run=RunConfig(
            output=str(output),
            seed=seed,
            checkpoint_every_s=20.0,
            cache=str(output / "cache"),
        ),
        model=ModelSection(stored.name, backbone, whole_options(stored.head), str(start)),
        k=KConfig(lowest=0.15, dense_share=0.3, opening=0.0, power=1.5),
        augment=_AUGMENT,
        metric=MetricConfig(
            steps=steps,
            places=min(_PLACES, trained),
            images=_IMAGES,
            loss="supcon",
            binary_weight=0.2,
            consistency_weight=0.0,
            rivals_every=max(1, steps),
            flip_share=0.0,
            anchor=f"model:{start}",
            anchor_weight=4.0,
            optim=OptimConfig(lr=2e-4, weight_decay=1e-4, warmup_steps=max(1, steps // 10)),
        ),
        # The places are handed over as they are (``train(places=...)``); the table says the rest.
        data=(DataConfig(share=1.0, rivals=min(2, trained - 1)),),
    )


@dataclass(frozen=True)
class Judgement:
    """Recall@1 before and after, by k, in percent.

    Attributes:
        name: what was asked.
        places, queries: of the map, and how many asked (each :data:`SEEDS` times, where changed).
        before, after: by k.
        gain: the mean over k of after - before, in points, with its 95 % interval.
    """

    name: str
    places: int
    queries: int
    before: dict[float, float]
    after: dict[float, float]
    gain: Interval


def judge(
    name: str,
    before: Path,
    after: Path,
    ks: Sequence[float],
    trials: list[Trial],
    report: Callable[[str], None] | None = None,
) -> Judgement:
    """Both weights on the same trials, as an int8 map answers; ``report`` is told which is next."""
    describers = [
        ModelDescriber(load_weights(path), ks, name=label)
        for label, path in (("before", before), ("after", after))
    ]
    results = evaluate(describers, iter(trials), report, timed=False)
    old, new = (results[label].matched[KIND] for label in ("before", "after"))
    return Judgement(
        name=name,
        places=len(trials[0].gallery),
        queries=int(trials[0].answerable().sum()),
        before={k: old[k].recall(1) for k in ks},
        after={k: new[k].recall(1) for k in ks},
        gain=_gain(old, new, ks),
    )


def _gain(old: dict[float, Judged], new: dict[float, Judged], ks: Sequence[float]) -> Interval:
    """Frames are drawn, not their copies: one frame asks at every k and under every change."""
    hits, blocks = zip(*(new[k].hits() for k in ks), strict=True)
    were = [old[k].hits()[0] for k in ks]
    return paired_bootstrap(
        np.concatenate(hits), np.concatenate(were), blocks=np.concatenate(blocks)
    )


def held_trials(held: Held) -> list[Trial]:
    """Frames held out: some are the map, the others are changed as by another visit and asked."""
    gallery, queries = small_images(held.gallery), small_images(held.queries)
    made = []
    for seed in range(SEEDS):
        asked: Sequence[Image.Image] = Changed(queries, changed, seed=1000 + seed)
        if isinstance(queries, list):
            asked = list(asked)
        made.append(Trial(gallery, asked, held.right))
    return made


def small_images(frames: Sequence[FrameFile]) -> Sequence[Image.Image]:
    """The pictures, no larger than a model needs: a list of hundreds, and of more than memory is
    for, pictures that are opened when they are looked at."""
    images = LazyImages([frame.path for frame in frames], _SIDE_PX)
    return images if len(images) > _IN_MEMORY else list(images)


def other_trials() -> list[Trial]:
    """The demo's places, which look like nothing of the user's: what may be forgotten."""
    (maps, there), (asked, where) = (
        labelled_frames(zoo.ZOO / "places" / part) for part in ("gallery", "queries")
    )
    right = np.array(where)[:, None] == np.array(there)
    return [Trial(small_images(maps), small_images(asked), np.asarray(right))]

"""The training file: TOML tables to checked records. Unknown keys and wrong types are errors.

``docs/training.md`` walks through a file; ``models/train/recipes`` holds those of shipped models.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.spec.documents import read_toml
from tatvpr_edge.spec.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run happens.

    Attributes:
        output: folder of checkpoints, curves and weights.
        seed: of weights, batches, augmentation and k.
        threads: of the processor, for each process; 0 leaves torch's choice.
        checkpoint_every_s: seconds between checkpoints.
        precision: "fp32", or "bf16" for autocast.
        device: "cpu" or "cuda".
        cache: folder for decoded frames; empty for none.
    """

    output: str = "runs/train"
    seed: int = 0
    threads: int = 0
    checkpoint_every_s: float = 180.0
    precision: str = "fp32"
    device: str = "cpu"
    cache: str = "runs/cache"


@dataclass(frozen=True)
class ModelSection:
    """Which network.

    Attributes:
        name: registered name.
        backbone: fields of its backbone to change (group, scope, mlp_norm, ternary ...).
        head: options of its head to change (project, digits).
        init: weights to start from: a file (safetensors), or "micro" for the shipped ones; empty
            for random ones. Where their head has other options, it is fitted anew (``refit``).
    """

    name: str = "micro"
    backbone: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    init: str = ""


@dataclass(frozen=True)
class RefitConfig:
    """The head of starting weights in closed form (``models/train/refit.py``).

    Attributes:
        teacher: what descriptors are fitted to, named as ``metric.teacher``; empty: none.
        own: share of the pooled channels of the frames as they are, partly whitened, in what
            descriptors are fitted to; 1 needs no teacher. 0 and no teacher: no refit.
        whitened: the teacher's descriptors are partly whitened first, and the head's turned so
            that the first numbers say most; false keeps them as the teacher says them, which needs
            as many of them.
        even: descriptors are turned so that all numbers say equally much, as binary maps need,
            instead of the first ones most.
        ridge: penalty, as a fraction of the channels' mean variance.
        plain: weight of the pass over the frames as they are.
        gray: passes over the frames in gray.
        changed: passes over the frames changed as ``augment`` says, at a k as ``k`` says.
        dials: weight of a pass over the frames as they are at a k, and with a share of the tokens,
            as ``k`` says: what lowers a dial shifts the pooled channels, of all frames alike, and
            the head leaves that out; 0 for none.
    """

    teacher: str = ""
    own: float = 0.0
    whitened: bool = True
    even: bool = False
    ridge: float = 0.1
    plain: float = 2.0
    gray: int = 1
    changed: int = 1
    dials: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether the head of the starting weights is fitted anew."""
        return bool(self.teacher) or self.own > 0


@dataclass(frozen=True)
class OrderConfig:
    """Channels of starting weights become neighbours where they fire together, so that gates of
    groups (``model.backbone = { groups = 4 }``) keep more (``models/order.py``).

    Attributes:
        k: for which k the order is made; 0 leaves channels where they are.
        frames: taken evenly from the sources, as they are.
    """

    k: float = 0.0
    frames: int = 256


@dataclass(frozen=True)
class KConfig:
    """How k is drawn, for each image by itself.

    Attributes:
        lowest: smallest k.
        dense_share: share of images at k = 1.
        opening: share of a stage over which the range opens from [1, 1] down to ``lowest``.
        power: 1 draws evenly between ``lowest`` and 1; above 1, low k come more often (the
            uniform number is raised to it).
        tokens_lowest: smallest fraction of tokens kept, drawn for each batch; 1 keeps all.
    """

    lowest: float = 0.2
    dense_share: float = 0.25
    opening: float = 0.3
    power: float = 1.0
    tokens_lowest: float = 1.0


@dataclass(frozen=True)
class OptimConfig:
    """Warm-up and a cosine.

    Attributes:
        kind: "adamw"; or "muon" for the ternary matrices and AdamW for everything else.
        lr: at the top of the schedule.
        lr_end: as a fraction of ``lr``.
        weight_decay: of every matrix; vectors are not decayed.
        warmup_steps: linear.
        clip: largest norm of the whole gradient.
        momentum: of Muon (``torch.optim.Muon``).
    """

    lr: float = 1e-3
    lr_end: float = 0.02
    weight_decay: float = 0.01
    warmup_steps: int = 40
    clip: float = 1.0
    kind: str = "adamw"
    momentum: float = 0.95


@dataclass(frozen=True)
class DistilConfig:
    """Stage 1.

    Attributes:
        views: folder of the teacher's answers; made from ``data`` if it does not exist.
        teacher: "efficientnet-lite0-gem"; "dinov2-boq:FILE" with a user's checkpoint; "model:FILE"
            with weights of ours (or "model:micro"), which teach what they say at k = 1; several of
            them as one, "joint:A+B".
        channels: principal components of the teacher's map.
        steps, batch: length and size.
        tokens_weight: of the tokens' part of the loss; 0 for none.
        descriptor_weight: of the descriptor's part.
        ranking_weight: of the loss that has a student's descriptor find, among the teacher's
            descriptors of other views, what the teacher's own finds; 0 for none.
        ranking_temperature: of the softmax over cosines in that loss; lower looks at nearer views.
        ranking_views: views drawn as those others in every step.
        whitened: learn the teacher's descriptors partly whitened (another space, in which they
            differ more); false for a teacher whose space is the student's.
        visible_share: share of its patches that an image shows (patch dropout: cheaper steps);
            the last fifth of the stage sees all. 1 for none.
        mirror_share: share of the images that are mirrored, with the teacher's features mirrored
            too and its descriptor as it was: more to learn from, and a descriptor that takes a
            mirrored place for the place itself; 0 where it shall not.
        quantise_from, quantise_until: steps between which full precision blends into quantised
            values, as fractions of the stage; both 0 quantises from the start.
    """

    views: str = ""
    teacher: str = "efficientnet-lite0-gem"
    channels: int = 192
    steps: int = 0
    batch: int = 64
    tokens_weight: float = 1.0
    descriptor_weight: float = 1.0
    ranking_weight: float = 0.0
    ranking_temperature: float = 0.05
    ranking_views: int = 16384
    whitened: bool = True
    visible_share: float = 1.0
    mirror_share: float = 0.5
    quantise_from: float = 0.0
    quantise_until: float = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class MetricConfig:
    """Stage 2.

    Attributes:
        steps: length.
        places, images: places in a batch, images of each.
        last_blocks: blocks that train, with the last norm and the head; -1 for everything.
        loss: "multi-similarity", with its miner, asks for cosines above and below ``base``;
            "supcon", a softmax over cosines, only for their order: for ``rivals`` that see nearly
            the same.
        alpha, beta, base, miner_epsilon: of the multi-similarity loss and its miner.
        temperature: of the softmax of "supcon"; lower looks at nearer places.
        binary_weight: of the same loss on the signs of descriptors, which a binary map compares;
            0 for none.
        consistency_weight: of the loss that pulls low-k descriptors to those at k = 1.
        consistency_share: share of a batch for which that loss is computed.
        rivals_every: steps after which the rivals of places are looked for again.
        flip_share: share of places mirrored as a whole.
        mirror_share: share of images that are mirrored by themselves, which makes them images of
            another place: the hardest negatives there are.
        tokens_share: share of the images of a batch that keep fewer tokens (``k.tokens_lowest``);
            the others keep all, so that both find each other.
        heed_weight: of the loss that has the CLS token look, before each KeepTokens, at the patches
            that the descriptor is made of, so that those are kept; 0 for none.
        visible_share: as in stage 1.
        teacher: whose ranking of the batch's frames, as they are, is learned from changed ones;
            named as ``distil.teacher``; empty for none.
        teacher_weight, teacher_temperature: of that loss and its softmax over cosines.
        anchor: a teacher with as many numbers, named so, whose descriptor of a frame as it is is
            learned from the changed one; empty for none.
        anchor_weight: of that loss.
        distil_weight: of stage 1's loss, computed on batches of its own (``distil.views``,
            ``batch``, ``visible_share``) beside each step; 0 for none.
    """

    steps: int = 0
    places: int = 24
    images: int = 4
    last_blocks: int = -1
    loss: str = "multi-similarity"
    alpha: float = 1.0
    beta: float = 50.0
    base: float = 0.0
    miner_epsilon: float = 0.1
    temperature: float = 0.07
    binary_weight: float = 0.0
    consistency_weight: float = 1.0
    consistency_share: float = 0.33
    rivals_every: int = 150
    flip_share: float = 0.5
    mirror_share: float = 0.0
    tokens_share: float = 1.0
    heed_weight: float = 0.0
    visible_share: float = 1.0
    distil_weight: float = 0.0
    teacher: str = ""
    teacher_weight: float = 1.0
    teacher_temperature: float = 0.07
    anchor: str = ""
    anchor_weight: float = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, weight_decay=1e-4))


@dataclass(frozen=True)
class DataConfig:
    """One source of places.

    Attributes:
        format: "tower", "labelled", "gsv" or "utm" (see docs/training.md).
        root: folder.
        split: of the format "tower".
        leave_out: floors (tower), cities (gsv) or nothing that this run does not see.
        share: of the places in a batch, relative to the other sources; 0 for frames of which only
            the teacher's views are made.
        rivals: places that look most alike, drawn beside each place of a batch (hard negatives);
            0 draws all places at random.
        views: the teacher's crops of each frame in stage 1; 0.5 takes every second frame.
        window, gap: of the format "tower": neighbouring frames that are one place, and frames left
            out between two places.
        near: of the format "tower": frames no further apart than this show one place, the others
            of a window are left open; 0: all of a window do.
        taught: whether ``metric.teacher`` and ``refit.teacher`` are asked about these frames.
    """

    format: str = "labelled"
    root: str = ""
    split: str = "train"
    leave_out: tuple[str, ...] = ()
    share: float = 1.0
    rivals: int = 0
    views: float = 1.0
    window: int = 4
    gap: int = 3
    near: int = 0
    taught: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """A whole training file."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelSection = field(default_factory=ModelSection)
    order: OrderConfig = field(default_factory=OrderConfig)
    refit: RefitConfig = field(default_factory=RefitConfig)
    k: KConfig = field(default_factory=KConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    metric: MetricConfig = field(default_factory=MetricConfig)
    data: tuple[DataConfig, ...] = ()


def read_config(path: Path) -> TrainConfig:
    """The training file at ``path``; relative folders in it are relative to where you are.

    Raises:
        UsageError: no such file, not TOML, an unknown key, or a value of the wrong type or range.
    """
    return config_from(read_toml(path, UsageError), path)


def config_from(values: dict[str, Any], path: Path) -> TrainConfig:
    """The tables of the training file ``path``, checked. ``[zoo]`` is for ``tools/train_zoo.py``.

    Raises:
        UsageError: an unknown key, or a value of the wrong type or range.
    """
    training = {name: table for name, table in values.items() if name != "zoo"}
    config = _record(TrainConfig, training, str(path))
    check_config(config, path)
    return config


def check_config(config: TrainConfig, path: Path | str) -> None:
    """Raise UsageError where a value means nothing; ``path`` is named as where it stands."""

    def require(good: bool, what: str) -> None:
        if not good:
            raise UsageError(f"{path}: {what}")

    _check_ranges(config, path)
    require(config.run.precision in ("fp32", "bf16"), 'run.precision is "fp32" or "bf16"')
    require(config.refit.ridge > 0, "refit.ridge must be positive")
    require(
        config.refit.plain > 0 and min(config.refit.gray, config.refit.changed) >= 0,
        "refit.plain must be positive, refit.gray and refit.changed not negative",
    )
    require(not config.refit.asked or bool(config.model.init), "refit needs weights: model.init")
    require(
        bool(config.refit.teacher) or config.refit.own in (0.0, 1.0),
        "refit.own below 1 needs a refit.teacher for the rest",
    )
    require(
        not config.refit.teacher or config.refit.own < 1,
        "refit.own = 1 leaves nothing to ask refit.teacher for: leave one of them out",
    )
    require(config.order.k == 0 or bool(config.model.init), "order needs weights: model.init")
    require(
        config.order.k == 0 or "groups" in config.model.backbone,
        "order.k orders channels for gates of groups: model.backbone = { groups = 4 }",
    )
    require(0 < config.k.lowest <= 1, "k.lowest must be in (0, 1]")
    require(0 < config.k.tokens_lowest <= 1, "k.tokens_lowest must be in (0, 1]")
    require(config.k.power > 0, "k.power must be positive")
    require(0 <= config.k.dense_share <= 1, "k.dense_share must be in [0, 1]")
    require(config.metric.images >= 2, "metric.images must be 2 or more: pairs are needed")
    require(
        config.metric.loss in ("multi-similarity", "supcon"),
        'metric.loss is "multi-similarity" or "supcon"',
    )
    require(config.metric.temperature > 0, "metric.temperature must be positive")
    require(config.metric.teacher_temperature > 0, "metric.teacher_temperature must be positive")
    for name in ("teacher_weight", "anchor_weight"):
        require(getattr(config.metric, name) >= 0, f"metric.{name} must not be negative")
    for name in ("flip_share", "mirror_share", "tokens_share"):
        good = 0 <= getattr(config.metric, name) <= 1
        require(good, f"metric.{name} must be in [0, 1]")
    require(config.metric.binary_weight >= 0, "metric.binary_weight must not be negative")
    require(config.metric.rivals_every >= 1, "metric.rivals_every must be 1 or more")
    require(config.distil.steps >= 0 and config.metric.steps >= 0, "steps must not be negative")
    require(
        config.metric.steps == 0 or any(table.share for table in config.data),
        "stage 2 needs at least one [[data]] table with a share above 0",
    )
    weights = ("tokens_weight", "descriptor_weight", "ranking_weight")
    for name in weights:
        require(getattr(config.distil, name) >= 0, f"distil.{name} must not be negative")
    require(
        any(getattr(config.distil, name) for name in weights),
        f"of distil.{', '.join(weights)} at least one must be above 0",
    )
    require(config.distil.ranking_temperature > 0, "distil.ranking_temperature must be positive")
    require(config.distil.ranking_views >= 1, "distil.ranking_views must be 1 or more")
    require(config.metric.distil_weight >= 0, "metric.distil_weight must not be negative")
    taught = config.distil.steps > 0 or config.metric.distil_weight > 0
    require(not taught or bool(config.distil.views), "learning from a teacher needs distil.views")
    for stage in (config.distil, config.metric):
        require(stage.optim.kind in ("adamw", "muon"), 'optim.kind is "adamw" or "muon"')
        require(0 <= stage.optim.momentum < 1, "optim.momentum must be in [0, 1)")
        require(0 < stage.visible_share <= 1, "visible_share must be in (0, 1]")
    require(all(table.share >= 0 for table in config.data), "data.share must not be negative")
    require(all(source.rivals >= 0 for source in config.data), "data.rivals must not be negative")
    require(all(source.views >= 0 for source in config.data), "data.views must not be negative")
    require(all(source.window >= 2 for source in config.data), "data.window must be 2 or more")
    require(all(source.gap >= 0 for source in config.data), "data.gap must not be negative")
    require(
        all(0 <= source.near < source.window for source in config.data),
        "data.near must be below data.window",
    )


#: Of the sections of a training file: (section.key, lowest, highest), both allowed.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("run.seed", 0, 2**63 - 1),
    ("run.threads", 0, 4096),
    ("run.checkpoint_every_s", 0, math.inf),
    ("order.k", 0, 1),
    ("order.frames", 1, 1 << 20),
    ("refit.own", 0, 1),
    ("refit.dials", 0, math.inf),
    ("k.opening", 0, 1),
    ("distil.channels", 1, 1 << 16),
    ("distil.batch", 1, 1 << 20),
    ("distil.mirror_share", 0, 1),
    ("distil.quantise_from", 0, 1),
    ("distil.quantise_until", 0, 1),
    ("metric.places", 2, 1 << 20),
    ("metric.images", 2, 1 << 20),
    ("metric.last_blocks", -1, 1 << 16),
    ("metric.alpha", 1e-9, math.inf),
    ("metric.beta", 1e-9, math.inf),
    ("metric.base", -1, 1),
    ("metric.miner_epsilon", 0, 2),
    ("metric.consistency_weight", 0, math.inf),
    ("metric.consistency_share", 0, 1),
    ("metric.heed_weight", 0, math.inf),
)
#: Of [distil.optim] and [metric.optim].
_OPTIM_RANGES: tuple[tuple[str, float, float], ...] = (
    ("lr", 1e-12, 1e3),
    ("lr_end", 0, 1),
    ("weight_decay", 0, 1e3),
    ("warmup_steps", 0, math.inf),
    ("clip", 1e-12, math.inf),
)


def _check_ranges(config: TrainConfig, path: Path | str) -> None:
    """What no run can mean is said before it begins, not by torch in the middle of it."""
    ranges: list[tuple[str, float, float]] = list(_RANGES)
    for stage in ("distil", "metric"):
        ranges += [(f"{stage}.optim.{key}", low, high) for key, low, high in _OPTIM_RANGES]
    for change in dataclasses.fields(AugmentConfig):
        ranges.append(
            (f"augment.{change.name}", 0, 1 if change.name.endswith("_share") else math.inf)
        )
    for name, low, high in ranges:
        value: Any = config
        for key in name.split("."):
            value = getattr(value, key)
        if not (low <= value <= high and value < math.inf):
            upper = f" and at most {high:g}" if high < math.inf else ""
            raise UsageError(f"{path}: {name} is {value:g}: at least {low:g}{upper}")
    if config.run.device != "cpu" and not re.fullmatch(r"cuda(:\d{1,3})?", config.run.device):
        raise UsageError(f'{path}: run.device is {config.run.device!r}: "cpu" or "cuda"')


def _record(kind: type[T], values: dict[str, Any], where: str) -> T:
    """``values`` as the dataclass ``kind``."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(names))}")
    return kind(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a table")
        return _record(typing.cast("type[Any]", kind), value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where} must be a list")
        inner = typing.get_args(kind)[0]
        return tuple(_value(inner, item, where) for item in value)
    if typing.get_origin(kind) is dict:
        kind = dict
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**63 else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where} is {value}: a finite number is needed")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UsageError(f"{where} is a number of absurd size")
    if (
        isinstance(kind, types.UnionType)
        or not isinstance(value, kind)
        or (kind is int and isinstance(value, bool))
    ):
        raise UsageError(f"{where} is {value!r}: expected {getattr(kind, '__name__', kind)}")
    return value

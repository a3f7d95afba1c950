"""The training file: TOML tables to checked records. Unknown keys and wrong types are errors.

The records are those of ``models/train/config.py``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.spec.documents import parse_toml, read_toml
from tatvpr_edge.spec.errors import UsageError

T = TypeVar("T")


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


def with_changes(config: TrainConfig, changes: Sequence[str]) -> TrainConfig:
    """``config`` with ``--set section.key=value`` changes; a section may be ``metric.optim``.

    Raises:
        UsageError: not of that form, no such key, or a value of the wrong type or range.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        keys = name.strip().split(".")
        if not equals or len(keys) < 2:
            raise UsageError(f"--set {change}: expected section.key=value, such as run.seed=1")
        try:
            value = parse_toml(f"v = {text.strip()}")["v"]
        except ValueError:
            value = text.strip()
        config = _changed(config, keys, value, f"--set {change}")
    check_config(config, "--set")
    return config


def _changed(record: T, keys: Sequence[str], value: Any, where: str) -> T:
    """``record`` with ``value`` in its field ``keys``, one name for each level."""
    hints = typing.get_type_hints(type(record))
    key = keys[0]
    if key not in hints:
        raise UsageError(f"{where}: {_unknown(key, hints)}")
    if len(keys) == 1:
        made = _value(hints[key], value, f"{where}: {key}")
    elif dataclasses.is_dataclass(hints[key]):
        made = _changed(getattr(record, key), keys[1:], value, where)
    else:
        raise UsageError(f"{where}: {key} is no table of single keys: change it in the file")
    changed: T = dataclasses.replace(record, **{key: made})  # type: ignore[type-var]
    return changed


def check_config(config: TrainConfig, path: Path | str) -> None:
    """Raise UsageError where a value means nothing; ``path`` is named as where it stands."""

    def require(good: bool, what: str) -> None:
        if not good:
            raise UsageError(f"{path}: {what}")

    _check_ranges(config, path)
    require(bool(config.run.output.strip()), "run.output is empty: name a folder, or leave it out")
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
        not config.model.enlarge or bool(config.model.init),
        "model.enlarge needs weights: model.init",
    )
    require(
        not (config.model.enlarge and config.refit.asked),
        "model.enlarge and refit: the head of an enlarged network is fitted after its training",
    )
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
    require(
        not any(source.near for source in config.data)
        or config.metric.steps == 0
        or config.metric.loss == "supcon",
        'data.near leaves pairs of a window open, and metric.loss = "multi-similarity" takes all '
        'of it for one place: metric.loss = "supcon", or leave data.near out',
    )
    require(all(table.root.strip() for table in config.data), "data.root is empty: name the folder")
    # Ignored, it would let a run see what it is judged by.
    require(
        all(not table.leave_out or table.format in ("tower", "gsv") for table in config.data),
        "data.leave_out names floors (tower) or cities (gsv): leave it out of other tables",
    )


#: Of the sections of a training file: (section.key, lowest, highest), both allowed.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("run.seed", 0, 2**63 - 1),
    ("run.threads", 0, 4096),
    ("run.checkpoint_every_s", 0, math.inf),
    ("order.k", 0, 1),
    ("order.frames", 1, 1 << 20),
    ("refit.own", 0, 1),
    ("refit.sides", 0, math.inf),
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
            upper = f" and at most {_said(high)}" if high < math.inf else ""
            raise UsageError(f"{path}: {name} is {_said(value)}: at least {_said(low)}{upper}")
    if config.run.device != "cpu" and not re.fullmatch(r"cuda(:\d{1,3})?", config.run.device):
        raise UsageError(f'{path}: run.device is {config.run.device!r}: "cpu" or "cuda"')


def _said(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _unknown(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    likely = (
        f": did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(sorted(known))}"
    )
    return f"unknown key {key!r}{likely}"


def _record(kind: type[T], values: dict[str, Any], where: str) -> T:
    """``values`` as the dataclass ``kind``."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise UsageError(f"{where}: {_unknown(unknown[0], names)}")
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

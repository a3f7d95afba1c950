"""The training loop: steps, schedule, checkpoints, curves. Stages say what a step's loss is.

A run that is killed and started again continues from its last checkpoint and ends with the same
weights as an unbroken one, with as many threads: all randomness comes from two generators that the
checkpoint holds.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tatvpr_edge.models.checkpoint import load_state, save_state, write_atomically
from tatvpr_edge.models.train.config import OptimConfig, RunConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.optim import Optimiser
from tatvpr_edge.spec.atomic import naming
from tatvpr_edge.spec.errors import ModelError, TatvprError

_LOG = logging.getLogger("tatvpr_edge")

#: Steps over which curves are averaged.
_CURVE_STEPS = 10
_STATE_VERSION = 2
#: Among the settings of a stage: hashes of the weights files that they name.
CONTENTS = "sha256"
#: Tables of settings of which older checkpoints say nothing, or less.
_NEWER = (CONTENTS, "run")


class TrainingError(TatvprError):
    """A training run went wrong (a loss that is not finite, a batch that cannot be divided)."""


@dataclass
class Randomness:
    """The only two sources of random numbers of a run."""

    torch: torch.Generator
    numpy: np.random.Generator

    @classmethod
    def seeded(cls, seed: int) -> Randomness:
        """Both from one seed."""
        generator = torch.Generator()
        generator.manual_seed(seed)
        return cls(generator, np.random.default_rng(seed))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"torch": self.torch.get_state(), "numpy": self.numpy.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken."""
        self.torch.set_state(state["torch"])
        self.numpy.bit_generator.state = state["numpy"]


class Stage(Protocol):
    """One part of a training."""

    name: str
    steps: int
    optim: OptimConfig

    def parameters(self) -> list[nn.Parameter]:
        """What this stage trains."""

    def modules(self) -> nn.ModuleDict:
        """Everything whose weights a checkpoint keeps."""

    def loss(self, step: int, random: Randomness) -> dict[str, Tensor]:
        """The parts of the loss of one step; their sum is trained."""


@dataclass
class Progress:
    """What the loop tells whoever watches."""

    stage: str
    step: int
    steps: int
    loss: float
    images_per_s: float
    parts: dict[str, float] = field(default_factory=dict)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then a cosine down to ``lr_end``."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    return config.lr * warm * (cosine * (1 - config.lr_end) + config.lr_end)


#: Mixed precision, entered where a network computes: what is drawn, compared and fitted around it
#: stays in full. A grid of 8-bit coordinates moves pixels by a quarter of one, and losses that
#: divide cosines by a temperature see little but rounding.
Mixed = Callable[[], contextlib.AbstractContextManager[Any]]


def autocast(run: RunConfig) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision where the run asks for it."""
    if run.precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(run.device.partition(":")[0], dtype=torch.bfloat16)


def run_stage(
    stage: Stage,
    run: RunConfig,
    random: Randomness,
    crew: Crew,
    folder: Path,
    report: Callable[[Progress], None] | None = None,
    stop_after: int | None = None,
    settings: dict[str, Any] | None = None,
) -> bool:
    """Train one stage, from its checkpoint in ``folder`` if there is one.

    Args:
        stop_after: leave (with a checkpoint) after this many steps in this call.
        settings: what decides the stage's weights, by name; kept with its checkpoint. A stage that
            goes on with others says so, one that is at its end refuses them. None: not looked at.

    Returns:
        Whether the stage is finished.

    Raises:
        TrainingError: the loss, or its gradient, is not finite.
        ModelError: the checkpoint is damaged, of another stage or architecture, or at its end by
            other settings.
    """
    parameters = stage.parameters()
    optimiser = Optimiser(stage.modules(), parameters, stage.optim)
    path = folder / f"{stage.name}.state"
    start = _restore(path, stage, optimiser, random, settings) if path.exists() else 0
    curves = Curves(folder / "curves.csv", stage.name, start) if crew.first else None
    saved = time.monotonic()
    for step in range(start, stage.steps):
        began = time.monotonic()
        lr = learning_rate(step, stage.steps, stage.optim)
        parts = stage.loss(step, random)
        total = torch.stack(list(parts.values())).sum()
        value = crew.mean(float(total.detach()))
        if not math.isfinite(value):
            names = [name for name, part in parts.items() if not bool(part.isfinite())]
            raise _went_wrong(step, f"the loss is {value} ({', '.join(names) or 'sum'})", path)
        optimiser.zero_grad()
        total.backward()
        crew.average_gradients(parameters)
        length = float(torch.nn.utils.clip_grad_norm_(parameters, stage.optim.clip))
        if not math.isfinite(length):  # clipped by it, every weight would become NaN
            raise _went_wrong(step, f"the gradient's length is {length}", path)
        optimiser.step(lr)

        values = {name: float(part.detach()) for name, part in parts.items()}
        last = step + 1 == stage.steps or (
            stop_after is not None and step + 1 - start >= stop_after
        )
        if curves is not None:
            curves.add(step + 1, values, lr, last)
        if report is not None and crew.first:
            images = getattr(stage, "images", 0) / max(1e-9, time.monotonic() - began)
            report(Progress(stage.name, step + 1, stage.steps, value, images, values))
        if crew.first and (last or time.monotonic() - saved > run.checkpoint_every_s):
            if curves is not None:
                curves.flush()
            save_state(path, _state(stage, optimiser, random, step + 1, settings))
            saved = time.monotonic()
        if last and step + 1 < stage.steps:
            return False
    return True


def _went_wrong(step: int, what: str, path: Path) -> TrainingError:
    kept = f"{path} holds the last good state" if path.exists() else "no state was kept yet"
    return TrainingError(
        f"{path.stem}, step {step + 1}: {what}: lower optim.lr or look at the batch; {kept}"
    )


def _state(
    stage: Stage,
    optimiser: Optimiser,
    random: Randomness,
    step: int,
    settings: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "version": _STATE_VERSION,
        "stage": stage.name,
        "step": step,
        "modules": stage.modules().state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": random.state(),
        "settings": settings,
    }


def _restore(
    path: Path,
    stage: Stage,
    optimiser: Optimiser,
    random: Randomness,
    settings: dict[str, Any] | None,
) -> int:
    state = load_state(path)
    if state.get("version") != _STATE_VERSION or state.get("stage") != stage.name:
        raise ModelError(
            f"{path}: not a checkpoint of the stage {stage.name!r}: remove it to begin anew"
        )
    step = state.get("step")
    if type(step) is not int or step < 0:
        raise ModelError(f"{path}: damaged (step {step!r}): remove it to begin the stage anew")
    known = state.get("settings")
    if settings is not None and isinstance(known, dict):
        _compare(path, known, settings, ended=step >= stage.steps)
    try:
        stage.modules().load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        random.restore(state["random"])
    # What a state holds of another kind, torch and NumPy meet as any of these.
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelError(
            f"{path}: a checkpoint of another architecture, or damaged ({first}): "
            "remove it, or train with the configuration that it was made with"
        ) from error
    return step


def _compare(path: Path, known: dict[str, Any], settings: dict[str, Any], *, ended: bool) -> None:
    """Settings that changed since ``path`` was written are never taken for the ones it was made
    with. What named files hold, and how a run ran, is compared where both know it: older
    checkpoints do not."""
    both = known.keys() & settings.keys()
    said = changes(
        *(
            {n: v for n, v in each.items() if n in both or n.partition(".")[0] not in _NEWER}
            for each in (known, settings)
        )
    )
    if not said:
        return
    if ended:
        raise ModelError(
            f"{path} is at its end, by other settings ({said}): give another run.output, or remove "
            "it to train this stage again"
        )
    _LOG.warning("%s goes on with other settings than it began with: %s", path, said)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The first few of the settings that differ; empty where none does."""
    changed = [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more


def read_curves(path: Path) -> list[dict[str, str]]:
    """The rows of ``curves.csv``; none where there is no such file. A row that was cut short, as a
    power cut leaves the last one, is passed over: nothing but a picture is made of them."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        try:
            int(row["step"]), float(row["value"])
        except (KeyError, TypeError, ValueError):
            continue
        if row.get("stage") and row.get("part"):
            rows.append(row)
    return rows


class Curves:
    """A CSV of losses, averaged over a few steps; rows beyond a resumed step are dropped."""

    _fields = ("stage", "step", "lr", "part", "value")

    def __init__(self, path: Path, stage: str, start: int) -> None:
        self.path, self.stage = path, stage
        self._sums: dict[str, float] = {}
        self._count = 0
        self._rows: list[tuple[object, ...]] = []
        kept = io.StringIO(newline="")
        writer = csv.DictWriter(kept, self._fields, extrasaction="ignore")
        writer.writeheader()
        for row in read_curves(path):
            if row["stage"] != stage or int(row["step"]) <= start:
                writer.writerow(row)
        write_atomically(path, kept.getvalue().encode())

    def add(self, step: int, parts: dict[str, float], lr: float, last: bool) -> None:
        """Remember one step; the ``last`` one ends an average that has fewer."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if last or step % _CURVE_STEPS == 0:
            for name, total in self._sums.items():
                mean = total / self._count
                self._rows.append((self.stage, step, f"{lr:.3e}", name, f"{mean:.6f}"))
            self._sums, self._count = {}, 0

    def flush(self) -> None:
        """Write what was remembered."""
        with naming(self.path), self.path.open("a", newline="") as file:
            csv.writer(file).writerows(self._rows)
        self._rows = []

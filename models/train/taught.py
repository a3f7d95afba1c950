"""What teachers say of a source's frames as they are: computed once, kept, learned in stage 2.

A student sees a frame changed (gray, dark, occluded ...) and learns to rank its batch as the
teacher ranks the unchanged frames. ``joint:A+B`` asks several teachers, each at its own resolution,
and joins their descriptors, every one partly whitened over the frames so that none outweighs
another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tatvpr_edge.models.data.frames import cached, digest_of, load_frames
from tatvpr_edge.models.teachers import Teacher
from tatvpr_edge.models.train.distil import partly_whitened
from tatvpr_edge.spec.atomic import replacing

#: Numbers kept of each teacher's descriptor.
KEPT = 256
_BATCH = 32

Floats = NDArray[np.float32]


def answers(
    teachers: Sequence[Teacher],
    paths: Sequence[Path],
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    whitened: bool = True,
) -> Floats:
    """Descriptors of the images in ``paths``, at unit length: ``[N, D]``.

    Args:
        whitened: each teacher's reduced to ``KEPT`` numbers and partly whitened; false leaves them
            as they are.
        cache: folder for decoded frames and for each teacher's answers; None for none.
        progress: told how many frames of all teachers are done.
    """
    parts = []
    for number, teacher in enumerate(teachers):
        begun, total = number * len(paths), len(teachers) * len(paths)

        def report(done: int, begun: int = begun, total: int = total) -> None:
            if progress is not None:
                progress(begun + done, total)

        said = _cached(teacher, paths, cache, report)
        parts.append(partly_whitened(said, KEPT).numpy() if whitened else said)
    joined: Floats = np.concatenate(parts, axis=1)
    joined /= np.float32(len(parts) ** 0.5)  # unit length again
    return joined


def _cached(
    teacher: Teacher, paths: Sequence[Path], cache: Path | None, report: Callable[[int], None]
) -> Floats:
    target = None
    if cache is not None:
        card = json.dumps(teacher.card(), sort_keys=True).encode()
        target = cache / f"answers-{digest_of(paths, card)[:24]}.npy"
        kept = cached(target, np.float32, (len(paths),))
        if kept is not None:
            return np.array(kept)
    said = _describe(teacher, load_frames(paths, teacher.image_px, cache), report)
    if target is not None:
        with replacing(target) as sink:
            np.save(sink, said)
    return said


@torch.no_grad()
def _describe(teacher: Teacher, frames: NDArray[np.uint8], report: Callable[[int], None]) -> Floats:
    said: list[Tensor] = []
    for start in range(0, len(frames), _BATCH):
        batch = torch.from_numpy(np.array(frames[start : start + _BATCH]))
        said.append(teacher.descriptors(teacher.features(batch)).float())
        report(start + len(batch))
    return np.asarray(torch.cat(said).numpy())


def ranking_apart(descriptors: Tensor, taught: Tensor, use: Tensor, temperature: float) -> Tensor:
    """How differently ``descriptors [N, D]`` and ``taught [N, E]`` rank the rest of the batch.

    The Kullback-Leibler divergence from the student's to the teacher's softmax of cosines, the mean
    over the images that ``use [N]`` names; others are neither asked for nor found.
    """
    out = ~use[None, :] | torch.eye(len(use), dtype=torch.bool, device=use.device)

    def ranked(x: Tensor) -> Tensor:
        x = F.normalize(x.float(), dim=1)
        return F.log_softmax((x @ x.T / temperature).masked_fill(out, -1e4), dim=1)[use]

    apart = F.kl_div(ranked(descriptors), ranked(taught), reduction="sum", log_target=True)
    return apart / use.sum().clamp_min(1)

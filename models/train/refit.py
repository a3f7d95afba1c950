"""A new head for trained weights, in closed form: no gradient, one pass over the training frames.

The pooled channels of every frame are taken from several views of it (as it is, gray, under other
light, augmented) and mapped linearly onto what a teacher says of the frame itself, by ridge
regression. Directions in which the views of a place differ are thereby suppressed and those in
which places differ are kept: the learned whitening of Radenovic et al. (2018, section 3.3) with a
teacher for the matching pairs. Beside the teacher or in its place, what every view shall say may be
the pooled channels of the frame itself, partly whitened (``refit.own``): a whitening knows nothing
of places, and carries over to others. A head with ``sides`` has what tells left from right beside
them, whitened by itself and weighted by ``refit.sides``. The map is turned so that its first
numbers say most: the first 64 or 128 of a descriptor are a descriptor; or so that all say equally
much, as their signs must in a binary map (``refit.even``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tatvpr_edge.models.heads.pooling import GeMHead
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train import augment
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import KConfig, RefitConfig
from tatvpr_edge.models.train.distil import partly_whitened
from tatvpr_edge.models.train.draws import draw_k, draw_tokens
from tatvpr_edge.models.train.loop import Mixed
from tatvpr_edge.spec.errors import ModelError

_BATCH = 64
#: What ternary scales are rounded up by: a head of smaller numbers would answer zeros.
_SMALLEST = 1e-5


def with_head(model: PlaceModel, config: ModelConfig) -> PlaceModel:
    """The backbone of ``model`` in a new model of the same backbone, under a random head."""
    made = PlaceModel(config)
    made.backbone.load_state_dict(model.backbone.state_dict())
    return made


@dataclass(frozen=True)
class View:
    """One pass over the frames: how they are changed, at which k (None: 1), whether at fewer
    tokens too, and what it counts."""

    change: AugmentConfig
    k: KConfig | None = None
    weight: float = 1.0
    fewer: bool = False


@torch.no_grad()
def refit_head(
    model: PlaceModel,
    frames: Sequence[NDArray[np.uint8]],
    taught: Sequence[NDArray[np.float32]] | None,
    views: Sequence[View],
    config: RefitConfig,
    seed: int,
    mixed: Mixed = nullcontext,
) -> None:
    """Fit ``model.head`` to the training frames.

    Args:
        frames: of each source, ``uint8 [N, S, S, 3]``.
        taught: a teacher's descriptors of them, ``[N, E]``; None for ``config.own`` alone.
        views: the passes over them.

    Raises:
        ModelError: the head is no projected GeM, has another size than the teacher's descriptors
            where they are taken as they are, or more numbers than there are to fit to; or the fit
            says nothing.
    """
    head = model.head
    if not isinstance(head, GeMHead) or head.proj is None:
        raise ModelError(f"{model.config.name}: only the head gem with a projection can be refit")
    turn = config.even or config.whitened or taught is None or config.own > 0
    if taught is not None and not turn and taught[0].shape[1] != head.size:
        raise ModelError(
            f"the teacher's descriptors have {taught[0].shape[1]} numbers and the head "
            f"{head.size}: only refit.whitened = true brings them together"
        )
    own = model.config.backbone.dim * (2 if head.sides else 1) if config.own > 0 else 0
    said_numbers = own + (taught[0].shape[1] if taught is not None and config.own < 1 else 0)
    if not config.even and said_numbers < head.size:
        raise ModelError(
            f"there are {said_numbers} numbers to fit to, and the head {head.size}: refit.even = "
            f"true spreads them, or model.head = {{ project = {said_numbers} }} takes no more"
        )
    random = torch.Generator().manual_seed(seed)
    seen, weights = [], []
    count = sum(len(pixels) for pixels in frames)
    for view in views:
        seen += [_pooled(model, head, pixels, view, random, mixed) for pixels in frames]
        weights += [torch.full((count,), view.weight, dtype=torch.float64)]
    x, weight = torch.cat(seen), torch.cat(weights)[:, None]
    channels = model.config.backbone.dim  # what is behind them tells left from right
    said = _wanted(x[:count].split(channels, 1), taught, config)
    mean = (x * weight).sum(0) / weight.sum()
    root = weight.sqrt()  # of weighted squares
    y = (said - said.mean(0)).repeat(len(views), 1)
    try:
        projection = ridge_regression((x - mean) * root, y * root, config.ridge, channels)
    except torch.linalg.LinAlgError:  # no channel differs between any two frames
        projection = x.new_zeros(y.shape[1], x.shape[1])
    if len(projection) > head.size or (turn and not config.even):
        projection = turned(projection, (x - mean) * root, head.size)
    if config.even:
        projection = spread(projection, head.size)
    largest = float(projection.abs().max())
    if not _SMALLEST <= largest < math.inf:  # NaN, too
        raise ModelError(
            f"{model.config.name}: the refit head's largest number would be {largest:g}: frames "
            "that differ are needed, and refit.ridge, plain and sides nearer to their defaults"
        )
    write_projection(head, projection.float(), (-projection @ mean).float())


def _wanted(
    seen: Sequence[Tensor], taught: Sequence[NDArray[np.float32]] | None, config: RefitConfig
) -> Tensor:
    """What all views of a frame shall say, ``[N, E]``: the teacher's descriptor and the frame's own
    pooled channels ``seen[0]``, side by side, and what tells left from right, ``seen[1]``."""
    parts = []
    if taught is not None and config.own < 1:
        said = torch.from_numpy(np.concatenate(taught)).double()
        parts.append((1 - config.own) ** 0.5 * said)
    if config.own > 0:
        for own, weight in zip(seen, (1.0, config.sides), strict=False):
            whitened = partly_whitened(own.float().numpy(), own.shape[1]).double()
            parts.append(config.own**0.5 * weight * whitened)
    return torch.cat(parts, dim=1)


def ridge_regression(x: Tensor, y: Tensor, ridge: float, part: int | None = None) -> Tensor:
    """Of ``y [N, E]`` on ``x [N, K]``, both centred: ``[E, K]``. The penalty is a fraction of the
    mean variance of each ``part`` columns of ``x``; None: of all."""
    covariance = x.T @ x / len(x)
    parts = covariance.diagonal().split(part or x.shape[1])
    penalty = torch.cat([ridge * variances.mean().expand(len(variances)) for variances in parts])
    return torch.linalg.solve(covariance + penalty.diag(), x.T @ y / len(x)).T


def turned(regression: Tensor, x: Tensor, size: int) -> Tensor:
    """``regression [E, K]`` turned inside the space of answers, which changes no cosine, so that
    its rows are the principal components of what is predicted of ``x``, the largest first:
    ``[size, K]``."""
    answers = x @ regression.T
    _, axes = torch.linalg.eigh(answers.T @ answers / len(x))
    return (axes.flip(1).T @ regression)[:size]


def spread(regression: Tensor, size: int) -> Tensor:
    """``regression [E, K]`` turned by a fixed random rotation into ``size`` numbers, at least E,
    that say equally much: ``[size, K]``. No cosine changes, and signs of such numbers keep angles
    (Charikar, 2002), which signs of principal components do not.
    """
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(size, regression.shape[0], generator=random).double()
    return torch.linalg.qr(drawn).Q @ regression


def write_projection(head: GeMHead, projection: Tensor, bias: Tensor) -> None:
    """``projection [size, K]`` and ``bias [size]`` as the head's ternary matrices; columns behind
    the pooled channels are those of what tells left from right."""
    assert head.proj is not None and head.proj.bias is not None
    layers = [head.proj, *head.finer]
    pooled = projection[:, : head.proj.weight.shape[1]]
    _write_digits(layers, pooled)
    if head.sides:
        _write_digits(list(head.aside), projection[:, pooled.shape[1] :])
    head.proj.bias.copy_(bias)


def _write_digits(layers: Sequence[Any], projection: Tensor) -> None:
    """The digits of ``projection [size, K]`` in base 3, the largest first, of whole numbers with
    one scale a row."""
    largest = (3 ** len(layers) - 1) // 2
    scale = (projection.abs().amax(1, keepdim=True) / largest).clamp_min(1e-12)
    left = torch.round(projection / scale)
    for power, layer in zip(reversed(range(len(layers))), layers, strict=True):
        below = (3**power - 1) // 2  # what all smaller digits can say
        digit = ((left + left.sign() * below) / 3**power).trunc()
        left = left - digit * 3**power
        # Masters whose mean size is the scale wanted, which ternarise() then finds.
        share = digit.abs().mean(1, keepdim=True).clamp_min(1e-12)
        layer.weight.copy_(digit * (scale * 3**power) / share)


def _pooled(
    model: PlaceModel,
    head: GeMHead,
    pixels: NDArray[np.uint8],
    view: View,
    random: torch.Generator,
    mixed: Mixed,
) -> Tensor:
    """Pooled channels of changed frames, ``float64 [N, K]``, and behind them what tells left from
    right where the head has it."""
    side, change = model.config.backbone.image_px, view.change
    model.train()  # training's arithmetic: three times as fast, and the same but for last bits
    parts = []
    for batch in _batches(pixels):
        shapes = augment.draw_geometric(len(batch), change, random)
        drawn = augment.draw_photometric(len(batch), change, random)
        ks = torch.ones(len(batch)) if view.k is None else draw_k(len(batch), view.k, 1.0, random)
        x = augment.geometric(augment.to_float(batch), shapes, side)
        frames = augment.to_frames(augment.photometric(x, drawn))
        share = draw_tokens(view.k, random) if view.k is not None and view.fewer else 1.0
        with mixed():
            seen = model.see(frames, model.gate(len(frames), ks, share))
        tokens = seen.tokens.float()
        pooled = head.pooled(tokens)
        beside = [head.beside(tokens, pooled, seen.patches)] if head.sides else []
        parts.append(torch.cat([pooled, *beside], dim=1).double())
    return torch.cat(parts)


def _batches(pixels: NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(pixels), _BATCH):
        yield torch.from_numpy(np.array(pixels[start : start + _BATCH]))

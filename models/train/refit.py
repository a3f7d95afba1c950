"""A new head for trained weights, in closed form: no gradient, one pass over the training frames.

The pooled channels of every frame are taken from several views of it (as it is, gray, under other
light, augmented) and mapped linearly onto what a teacher says of the frame itself, by ridge
regression. Directions in which the views of a place differ are thereby suppressed and those in
which places differ are kept: the learned whitening of Radenovic et al. (2018, section 3.3) with a
teacher for the matching pairs. The map is turned so that its first numbers say most: the first 64
or 128 of a descriptor are a descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tatvpr_edge.models.heads.pooling import GeMHead
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train import augment
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.spec.errors import ModelError

_BATCH = 64


def with_head(model: PlaceModel, config: ModelConfig) -> PlaceModel:
    """The backbone of ``model`` in a new model of the same backbone, under a random head."""
    made = PlaceModel(config)
    made.backbone.load_state_dict(model.backbone.state_dict())
    return made


@torch.no_grad()
def refit_head(
    model: PlaceModel,
    frames: Sequence[NDArray[np.uint8]],
    taught: Sequence[NDArray[np.float32]],
    views: Sequence[AugmentConfig],
    ridge: float,
    seed: int,
) -> None:
    """Fit ``model.head`` to the training frames.

    Args:
        frames: of each source, ``uint8 [N, S, S, 3]``.
        taught: a teacher's descriptors of them, ``[N, E]``.
        views: how the frames of each view are changed; one pass over the frames for each.
        ridge: penalty, as a fraction of the channels' mean variance.

    Raises:
        ModelError: the head is no projected GeM.
    """
    head = model.head
    if not isinstance(head, GeMHead) or head.proj is None:
        raise ModelError(f"{model.config.name}: only the head gem with a projection can be refit")
    random = torch.Generator().manual_seed(seed)
    seen, wanted = [], []
    for change in views:
        for pixels, said in zip(frames, taught, strict=True):
            seen.append(_pooled(model, head, pixels, change, random))
            wanted.append(torch.from_numpy(np.asarray(said, np.float64)))
    x, y = torch.cat(seen), torch.cat(wanted)
    mean = x.mean(0)
    projection = projected_onto(x - mean, y - y.mean(0), head.size, ridge)
    write_projection(head, projection.float(), (-projection @ mean).float())


def projected_onto(x: Tensor, y: Tensor, size: int, ridge: float) -> Tensor:
    """The ridge regression of ``y [N, E]`` on ``x [N, K]``, both centred, as ``[size, K]``.

    Turned inside the space of answers, which changes no cosine, so that rows are the principal
    components of what is predicted, the largest first.
    """
    covariance = x.T @ x / len(x)
    penalty = ridge * covariance.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(covariance + penalty, x.T @ y / len(x))  # [K, E]
    _, turn = torch.linalg.eigh(weights.T @ covariance @ weights)
    return (weights @ turn.flip(1)).T[:size]


def write_projection(head: GeMHead, projection: Tensor, bias: Tensor) -> None:
    """``projection [size, K]`` and ``bias [size]`` as the head's ternary matrices: the digits in
    base 3, the largest first, of whole numbers with one scale a row."""
    assert head.proj is not None and head.proj.bias is not None
    layers = [head.proj, *head.finer]
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
    head.proj.bias.copy_(bias)


def _pooled(
    model: PlaceModel,
    head: GeMHead,
    pixels: NDArray[np.uint8],
    change: AugmentConfig,
    random: torch.Generator,
) -> Tensor:
    """Pooled channels of changed frames at k = 1, ``float64 [N, K]``."""
    side = model.config.backbone.image_px
    model.train()  # training's arithmetic: three times as fast, and the same but for last bits
    parts = []
    for batch in _batches(pixels):
        shapes = augment.draw_geometric(len(batch), change, random)
        drawn = augment.draw_photometric(len(batch), change, random)
        x = augment.geometric(augment.to_float(batch), shapes, side)
        frames = augment.to_frames(augment.photometric(x, drawn))
        tokens = model.tokens(frames, model.gate(len(frames), 1.0))
        parts.append(head.pooled(tokens).double())
    return torch.cat(parts)


def _batches(pixels: NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(pixels), _BATCH):
        yield torch.from_numpy(np.array(pixels[start : start + _BATCH]))

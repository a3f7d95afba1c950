"""Weights for larger frames from those of a network that is otherwise the same.

A frame of more pixels has more patches of the same size, so that every matrix fits as it is; only
the position of each patch is new, and is interpolated between those that were learned (Dosovitskiy
et al., "An Image is Worth 16x16 Words", 2021, section 3.2).
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from tatvpr_edge.models.checkpoint import needing_other_weights
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import ModelError

_POSITIONS = "backbone.pos_embed"


def enlarged(model: PlaceModel, wanted: ModelConfig) -> PlaceModel:
    """A model of ``wanted`` with the weights of ``model``, which sees frames of another size.

    Raises:
        ModelError: the networks differ in more than the size of a frame.
    """
    stored = model.config
    of_size = dataclasses.replace(
        stored, backbone=dataclasses.replace(stored.backbone, image_px=wanted.backbone.image_px)
    )
    differing = needing_other_weights(wanted, of_size)
    if differing:
        raise ModelError(
            f"{wanted.name} and {stored.name} differ in more than the size of their frames: "
            f"{', '.join(differing)}"
        )
    weights = model.state_dict()
    table = weights[_POSITIONS]
    before, now = (c.backbone.image_px // c.backbone.patch for c in (stored, wanted))
    grid = table[1:].unflatten(0, (before, before)).permute(2, 0, 1)
    grid = F.interpolate(grid[None], (now, now), mode="bicubic", align_corners=False)[0]
    weights[_POSITIONS] = torch.cat([table[:1], grid.permute(1, 2, 0).flatten(0, 1)])
    made = PlaceModel(wanted)
    made.load_state_dict(weights)
    made.trained = model.trained
    return made.eval()

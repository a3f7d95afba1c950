"""Weights for a deeper network from those of a shallower one that is otherwise the same.

Every block of the shallow network stands as often as the deep one has blocks for it. What a copy
adds to the residual stream, its attention's and its MLP's output, is made small, so that the deep
network begins by saying nearly what the shallow one says, and learns from there; a ternary matrix
keeps its signs, and its scale alone gets smaller. (Growing networks from trained ones: Chen et al.,
"Net2Net", 2016; stacking blocks: Gong et al., "Efficient Training of BERT by Progressively
Stacking", 2019.)
"""

from __future__ import annotations

import dataclasses

import torch

from tatvpr_edge.models.checkpoint import needing_other_weights
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import ModelError

_BLOCKS = "backbone.blocks."
#: Layers whose output is added to the residual stream.
_OUTPUTS = ("attn.out.", "mlp.down.")


def deepened(shallow: PlaceModel, wanted: ModelConfig, loudness: float) -> PlaceModel:
    """A model of ``wanted`` with the weights of ``shallow``, each block of which is repeated.

    Args:
        loudness: what the outputs of added blocks are multiplied by; the first of the copies of a
            block stays as it is.

    Raises:
        ModelError: the networks differ in more than depth, or one depth does not divide the other.
    """
    stored = shallow.config
    depth, before = wanted.backbone.depth, stored.backbone.depth
    of_depth = dataclasses.replace(
        wanted,
        backbone=dataclasses.replace(
            wanted.backbone, depth=before, keep_after=stored.backbone.keep_after
        ),
    )
    differing = needing_other_weights(of_depth, stored)
    if differing or depth % before:
        raise ModelError(
            f"{wanted.name} has {depth} blocks, {stored.name} has {before}: a network is deepened "
            "to a multiple of its blocks, and nothing else of it changes"
            + (f" ({', '.join(differing)} differ)" if differing else "")
        )
    copies = depth // before
    weights = shallow.state_dict()
    model = PlaceModel(wanted)
    made = {}
    for name in model.state_dict():
        if not name.startswith(_BLOCKS):
            made[name] = weights[name]
            continue
        number, _, rest = name.removeprefix(_BLOCKS).partition(".")
        source = weights[f"{_BLOCKS}{int(number) // copies}.{rest}"]
        added = int(number) % copies and rest.startswith(_OUTPUTS)
        made[name] = torch.mul(source, loudness) if added else source
    model.load_state_dict(made)
    model.trained = shallow.trained
    return model.eval()

"""Every model by name: ``nano`` to ``base``, benchmark shapes, and each with each head.

A name is a backbone, or a backbone and a head: ``small`` (its default head) or ``small-boq``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tatvpr_edge.models.heads import HEADS, LEARNED_HEADS
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import ModelError

#: Backbones. ``base`` is the paper's; the s14/b14 shapes are those of DINOv2 students, for
#: comparison with published latencies.
BACKBONES: dict[str, ViTConfig] = {
    "nano": ViTConfig(image_px=96, patch=16, dim=128, depth=4, heads=4, keep_after=(1,)),
    "micro": ViTConfig(image_px=128, patch=16, dim=192, depth=6, heads=3, keep_after=(2,)),
    "mini": ViTConfig(image_px=192, patch=16, dim=192, depth=6, heads=3, keep_after=(2,)),
    "small": ViTConfig(image_px=224, patch=16, dim=384, depth=12, heads=6),
    "base": ViTConfig(image_px=224, patch=16, dim=768, depth=12, heads=12),
    "s14_224": ViTConfig(image_px=224, patch=14, dim=384, depth=12, heads=6),
    "s14_322": ViTConfig(image_px=322, patch=14, dim=384, depth=12, heads=6),
    "b14_224": ViTConfig(image_px=224, patch=14, dim=768, depth=12, heads=12),
}

#: The head that a bare backbone name means.
DEFAULT_HEADS: dict[str, HeadConfig] = {
    "nano": HeadConfig("gem", {"project": 256, "digits": 2, "sides": 1.0}),
    "micro": HeadConfig("gem", {"project": 512, "digits": 3, "sides": 1.0}),
    "mini": HeadConfig("gem", {"project": 512, "digits": 3, "sides": 1.0}),
}


def names() -> list[str]:
    """Every registered name, backbones first."""
    return list(BACKBONES) + [f"{name}-{head}" for name in BACKBONES for head in HEADS]


def config(name: str, **changes: Any) -> ModelConfig:
    """The configuration of ``name``; ``changes`` replace fields of its backbone.

    Raises:
        ModelError: unknown name or field, or a value out of range.
    """
    backbone_name, _, head_name = name.partition("-")
    if backbone_name not in BACKBONES or (head_name and head_name not in HEADS):
        raise ModelError(
            f"unknown model {name!r}: a backbone ({', '.join(BACKBONES)}), "
            f"alone or with a head ({', '.join(HEADS)}) as in small-cls"
        )
    fields = [field.name for field in dataclasses.fields(ViTConfig)]
    for field in changes:
        if field not in fields:
            raise ModelError(
                f"model {name}: its backbone has no {field!r}; it has {', '.join(fields)}"
            )
    try:
        backbone = dataclasses.replace(BACKBONES[backbone_name], **changes)
    except TypeError as error:
        raise ModelError(f"{name}: {error}") from error
    default = DEFAULT_HEADS.get(backbone_name, HeadConfig("cls"))
    head = default if head_name in ("", default.kind) else HeadConfig(head_name)
    if head.kind in LEARNED_HEADS and "keep_after" not in changes:
        backbone = dataclasses.replace(backbone, keep_after=())
    return ModelConfig(name=name, backbone=backbone, head=head)


def create(name_or_config: str | ModelConfig, *, seed: int | None = None) -> PlaceModel:
    """A model with random weights; the same ones for the same ``seed``."""
    wanted = config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    if seed is None:
        return PlaceModel(wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PlaceModel(wanted)

"""Several teachers as one: what each sees in a view, side by side.

A model of ours knows the buildings that it was trained on, a general network knows what things look
like in gray or in another light; a student of both finds more than a student of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tatvpr_edge.models.teachers.base import Teacher

#: Scales stand so much smaller in a map, where its principal components do not see them.
_QUIET = 1e-4


class JointTeacher:
    """The maps of ``members`` on the finest of their grids, and their descriptors joined.

    Every member's map is divided by its own root mean square over a frame and by the root of its
    channels, so that none outweighs another. Last stand those scales, for members' descriptors: a
    channel for each, too small to count beside the maps.

    Args:
        members: at least one, each with frames of its own size.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members = tuple(members)
        self.image_px = max(member.image_px for member in self.members)
        self.channels = sum(member.channels + 1 for member in self.members)
        self.name = "joint:" + "+".join(member.name for member in self.members)

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """``uint8 [B, image_px, image_px, 3] -> float32 [B, rows, columns, channels]``."""
        maps = [member.features(_resized(frames, member.image_px)) for member in self.members]
        side = max(each.shape[1] for each in maps)
        scaled, levels = [], []
        for each in maps:
            level = each.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
            even = (each / level / each.shape[-1] ** 0.5).permute(0, 3, 1, 2)
            if even.shape[2] != side:
                even = F.interpolate(even, (side, side), mode="bilinear", align_corners=False)
            scaled.append(even.permute(0, 2, 3, 1))
            levels.append(_QUIET * level.expand(-1, side, side, 1))
        return torch.cat([*scaled, *levels], dim=-1)

    @torch.no_grad()
    def descriptors(self, features: Tensor) -> Tensor:
        """Descriptors of all members in a row, at unit length."""
        widths = [member.channels for member in self.members]
        *parts, levels = features.split([*widths, len(widths)], dim=-1)
        scales = levels.split(1, dim=-1)
        said = [
            member.descriptors(part * (part.shape[-1] ** 0.5 * scale / _QUIET))
            for member, part, scale in zip(self.members, parts, scales, strict=True)
        ]
        return F.normalize(torch.cat(said, dim=-1), dim=-1)

    def card(self) -> dict[str, Any]:
        """The cards of its members."""
        return {"name": self.name, "members": [member.card() for member in self.members]}


def _resized(frames: Tensor, side_px: int) -> Tensor:
    """``uint8 [B, H, H, 3]`` at another size, as bytes."""
    if frames.shape[1] == side_px:
        return frames
    x = F.interpolate(
        frames.permute(0, 3, 1, 2).float(),
        (side_px, side_px),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

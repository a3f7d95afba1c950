"""Teachers by name, behind the interface in ``base.py``."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.models.teachers.base import Teacher
from tatvpr_edge.spec.errors import UsageError

__all__ = ["Teacher", "create_teacher", "members_of", "own_models"]

_JOINT, _OWN = "joint:", "model:"


def members_of(name: str) -> list[Teacher]:
    """The teachers of ``name``: one, or those of ``joint:A+B``.

    Raises:
        UsageError: one of them is unknown.
    """
    return [create_teacher(each) for each in _names_of(name)]


def own_models(name: str) -> list[str]:
    """What ``model:`` names among the teachers of ``name``."""
    return [each[len(_OWN) :] for each in _names_of(name) if each.startswith(_OWN)]


def _names_of(name: str) -> list[str]:
    return name[len(_JOINT) :].split("+") if name.startswith(_JOINT) else [name]


def create_teacher(name: str) -> Teacher:
    """The teacher called ``name``: "efficientnet-lite0-gem" (also "...@PX" for frames of another
    size, a multiple of 32), "dinov2-boq:FILE", "model:FILE" (a shipped name too), or several of
    them as one, "joint:A+B".

    Raises:
        UsageError: unknown name.
        ToolError: its package is not installed.
        ModelError: its checkpoint is not usable.
    """
    if name.startswith(_JOINT):
        from tatvpr_edge.models.teachers.joint import JointTeacher

        return JointTeacher(members_of(name))
    base, at, px = name.partition("@")
    if base == "efficientnet-lite0-gem":
        from tatvpr_edge.models.teachers.efficientnet import EfficientNetLite0

        if not at:
            return EfficientNetLite0()
        if not px.isdecimal() or not 32 <= int(px) <= 1024 or int(px) % 32:
            raise UsageError(f"teacher {name!r}: frames of a multiple of 32 pixels, up to 1024")
        return EfficientNetLite0(int(px))
    kind, _, file = name.partition(":")
    if kind == "dinov2-boq" and file:
        from tatvpr_edge.models.teachers.dinov2_boq import DinoV2BoQ

        return DinoV2BoQ(Path(file))
    if kind == "model" and file:
        from tatvpr_edge.models.checkpoint import weights_file
        from tatvpr_edge.models.teachers.own import OwnModel

        return OwnModel(weights_file(file))
    raise UsageError(
        f"unknown teacher {name!r}: known are efficientnet-lite0-gem, dinov2-boq:FILE, model:FILE, "
        "joint:A+B"
    )

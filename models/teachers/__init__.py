"""Teachers by name, behind the interface in ``base.py``."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.models.teachers.base import Teacher
from tatvpr_edge.spec.errors import UsageError

__all__ = ["Teacher", "create_teacher", "files_of", "members_of"]

_JOINT, _OWN, _BOQ = "joint:", "model:", "dinov2-boq:"


def members_of(name: str) -> list[Teacher]:
    """The teachers of ``name``: one, or those of ``joint:A+B``.

    Raises:
        UsageError: one of them is unknown.
    """
    return [create_teacher(each) for each in _names_of(name)]


def files_of(name: str) -> dict[str, Path]:
    """The files of weights that ``name`` names, by how it does.

    Raises:
        ModelError: a name that is no shipped model's.
    """
    from tatvpr_edge.models.checkpoint import weights_file

    files = {}
    for each in _names_of(name):
        if each.startswith(_OWN):
            files[each[len(_OWN) :]] = weights_file(each[len(_OWN) :])
        elif each.startswith(_BOQ):
            files[each[len(_BOQ) :]] = Path(each[len(_BOQ) :])
    return files


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

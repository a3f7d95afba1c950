"""Teachers by name, behind the interface in ``base.py``."""

from __future__ import annotations

from tatvpr_edge.models.teachers.base import Teacher
from tatvpr_edge.spec.errors import UsageError

__all__ = ["Teacher", "create_teacher"]


def create_teacher(name: str) -> Teacher:
    """The teacher called ``name``: "efficientnet-lite0-gem".

    Raises:
        UsageError: unknown name.
        ToolError: its package is not installed.
    """
    if name == "efficientnet-lite0-gem":
        from tatvpr_edge.models.teachers.efficientnet import EfficientNetLite0

        return EfficientNetLite0()
    raise UsageError(f"unknown teacher {name!r}: known is efficientnet-lite0-gem")

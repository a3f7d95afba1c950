"""Python packages that tests of the ROS 2 node need: whole files skip without them (CI: fail)."""

from __future__ import annotations

import importlib.util

import pytest

from support.tools import NO_SKIP


def require_dds() -> None:
    """cyclonedds; call it before importing ``tatvpr_edge.ros.dds``."""
    _require("cyclonedds", "pip install 'tatvpr-edge[dds]'")


def require_bags() -> None:
    """rosbags: another reader and writer of ROS 2's messages."""
    _require("rosbags", "pip install 'tatvpr-edge[bags]'")


def _require(module: str, remedy: str) -> None:
    if importlib.util.find_spec(module) is not None:
        return
    message = f"{module} is missing: {remedy}"
    if NO_SKIP:
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)

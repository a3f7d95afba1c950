"""tools/ros_soak.py: a node that does not run ends it."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

import pytest

from support.ros_tools import require_dds
from tatvpr_edge.spec.errors import ToolError

require_dds()

from support.ros_dds import URI  # noqa: E402 - after it is known to be there

tool = importlib.import_module("ros_soak")


def test_a_node_that_ends_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its camera waited for it for ever, and what it said was thrown away."""
    monkeypatch.setenv("CYCLONEDDS_URI", URI)
    monkeypatch.setitem(os.environ, "ROS_DOMAIN_ID", str(tool.DOMAIN))
    monkeypatch.setattr("sys.argv", ["ros_soak.py"])
    arguments = argparse.Namespace(artifact=tmp_path / "nowhere", k=0.2)
    with pytest.raises(ToolError, match=r"the node ended with 1: error: .*nowhere is not an art"):
        tool.watch(arguments, tmp_path / "soak.placemap")

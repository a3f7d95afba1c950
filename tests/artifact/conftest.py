"""A small artifact that the tests may harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.small_artifact import FILES, manifest
from tatvpr_edge.spec.artifact import write_artifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good artifact."""
    return write_artifact(tmp_path / "artifact", manifest(), FILES).root

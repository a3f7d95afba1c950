"""Fixtures of the compiler tests: the tiny model as a file, and a cache that outlives one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge.models.export import bodies


@pytest.fixture(scope="session", autouse=True)
def cached(own_cache: None) -> None:
    """Every test here compiles."""


@pytest.fixture(scope="session")
def tiny() -> Callable[..., onnx.ModelProto]:
    """Makes a tiny model with the operators' bodies inside."""
    functions = bodies.bodies(TOKENS)

    def make(head: str = "cls", **options: Any) -> onnx.ModelProto:
        return tiny_model(head, functions=functions, **options)

    return make


@pytest.fixture(scope="session")
def tiny_file(tiny: Callable[..., onnx.ModelProto], tmp_path_factory: Any) -> Path:
    """A tiny model's ONNX file; do not change it."""
    path = Path(tmp_path_factory.mktemp("model")) / "tiny.onnx"
    onnx.save(tiny(), path)
    return path

"""Fixtures of the GPU tests: the CUDA stand-in, and an artifact with a TensorRT half.

The artifact's CPU library is this machine's, so that falling back to it can be seen; its TensorRT
half is what ``build --board jetson-orin-nano --backend tensorrt`` adds.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from support.cuda import build_driver_on_cpu, with_tensorrt
from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge.models.export import bodies


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libcuda, which runs our kernels' own source."""
    return build_driver_on_cpu(tmp_path_factory.mktemp("cuda_on_cpu"))


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's ONNX file, bodies inside; do not change it."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(tiny_model("learned", functions=bodies.bodies(TOKENS)), path)
    return path


@pytest.fixture(scope="session")
def gpu_artifact(
    own_cache: None, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """This machine's artifact of the tiny model with an Orin's TensorRT half."""
    return with_tensorrt(tiny_file, tmp_path_factory.mktemp("artifact"))

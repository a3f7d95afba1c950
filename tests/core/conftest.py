"""Drivers of the C core, built once a session."""

from __future__ import annotations

import platform

import pytest
from core_driver import Driver, build, native_compiler

NATIVE = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@pytest.fixture(scope="session")
def native_arch() -> str:
    """The core's name of this machine's CPU."""
    return NATIVE.get(platform.machine(), "portable")


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory, native_arch: str) -> Driver:
    """The core as this machine's artifacts carry it."""
    folder = tmp_path_factory.mktemp("native")
    return Driver([str(build(native_arch, native_compiler(), ("-O2",), folder / "driver"))])

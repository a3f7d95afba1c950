"""Drivers of the C core, built once a session."""

from __future__ import annotations

import platform

import pytest
from core_driver import Driver, build_native_driver

from support.tools import require_tool

NATIVE = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@pytest.fixture(scope="session", autouse=True)
def cached(own_cache: None) -> None:
    """Every test here compiles, or runs what was compiled."""


@pytest.fixture(scope="session")
def native_arch() -> str:
    """The core's name of this machine's CPU."""
    return NATIVE.get(platform.machine(), "portable")


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """The core as this machine's artifacts carry it."""
    require_tool("gcc", "gcc")
    return Driver([str(build_native_driver(tmp_path_factory.mktemp("native") / "driver"))])

"""How torch is set while a test runs: the same on every machine and in every order of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def plain_torch() -> Iterator[None]:
    """One thread (tiny networks: more only get in each other's way) and a fixed seed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)

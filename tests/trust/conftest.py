"""Keys, signed artifacts and places that enforce, for the tests of trust."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.keys import Keys, make_keys
from tatvpr_edge.runtime import trust
from tatvpr_edge.runtime.signature import signer_line
from tatvpr_edge.runtime.signing import sign_artifact


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Key pairs: ours, another of ours, and a stranger's."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def this_machine_is_left_alone() -> Iterator[None]:
    """No test may make the machine that runs it insist on signatures."""
    before = os.path.lexists(trust.SYSTEM)
    yield
    assert os.path.lexists(trust.SYSTEM) == before


@pytest.fixture
def enforce(keys: Keys) -> Callable[..., Path]:
    """Makes a place (a root, or a machine's folder) that trusts our key and insists on it."""

    def make(base: Path, *revoked: str) -> Path:
        (base / "trust").mkdir(parents=True)
        trust.signers_path(base).write_text(signer_line("ours", keys.public("ours")))
        trust.revoked_path(base).write_bytes(trust.sealed_list(revoked))
        trust.mark_path(base).write_bytes(trust.mark_text(None))
        return base

    return make


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Path:
    """An artifact that our key signed."""
    from support.board import make_artifact

    make_artifact(tmp_path / "signed")
    sign_artifact(tmp_path / "signed", keys.private("ours"), serial=100)
    return tmp_path / "signed"

"""What is signed was made by this build, and lies at its place once it is signed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from support.keys import Keys
from tatvpr_edge.cli import main
from tatvpr_edge.spec.artifact import read_artifact


@pytest.fixture
def words(tiny_host: Path, tiny_onnx: Path, tmp_path: Path) -> list[str]:
    """A build of which every object is in the cache."""
    return ["build", "--model", str(tiny_onnx), "--board", "host"]


def test_a_signed_build_takes_nothing_from_a_cache(
    words: list[str],
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = str(tmp_path / "built")
    # gcc looks for its compiler proper here first: whatever is compiled fails.
    refusing = tmp_path / "bin" / "cc1"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'error: compiled anew' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("COMPILER_PATH", str(refusing.parent))
    assert main([*words, "--output", place, "--sign", str(keys.private("ours"))]) == 1
    assert "error: compiled anew" in capsys.readouterr().err and not os.path.exists(place)
    assert main([*words, "--output", place]) == 0, "an unsigned build compiles nothing twice"


def test_where_signing_fails_there_is_no_artifact_and_the_old_one_stays(
    words: list[str],
    keys: Keys,
    build_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What is compiled for it is not looked at here.
    monkeypatch.setattr("tatvpr_edge.compilers.build.made_anew", contextlib.nullcontext)
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nno key")  # found out when it signs
    rubbish.chmod(0o600)
    signing = ["--sign", str(keys.private("ours"))]
    place = tmp_path / "out" / "built"
    assert main([*words, "--output", str(place), "--sign", str(rubbish)]) == 1
    assert f"cannot sign with {rubbish}" in capsys.readouterr().err
    assert os.listdir(place.parent) == []
    assert main([*words, "--output", str(place), *signing]) == 0
    assert read_artifact(place).signed
    # The one for this machine, which a build replaces.
    cache = tmp_path / "cache" / "tatvpr-edge"
    for what in ("objects", "drift"):
        shutil.copytree(build_cache / "tatvpr-edge" / what, cache / what)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    shutil.copytree(place, cache / "artifacts" / "host")
    assert main([*words, "--sign", str(rubbish)]) == 1
    assert read_artifact(cache / "artifacts" / "host").signed
    assert os.listdir(cache / "artifacts") == ["host"]

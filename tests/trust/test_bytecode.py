"""Compiled Python planted in a release: named by ``status --check``, run by nobody, removed."""

from __future__ import annotations

import importlib.util
import marshal
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.board import local_transport, make_artifact, make_wheel, quick_options, unit_of
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.push import Options, deploy, rollback, status
from tatvpr_edge.deploy.service import unit_text

_MAIN = "runtime/tatvpr_edge/runtime/__main__.py"


@pytest.fixture
def board(tmp_path: Path) -> tuple[Path, Options]:
    """A board with a release that works."""
    options = quick_options(tmp_path / "root", make_wheel(tmp_path))
    deploy(local_transport(), make_artifact(tmp_path / "a", b"a"), None, options)
    return tmp_path / "root", options


def plant(release: Path, tell: Path) -> Path:
    """A compiled file that Python takes for the runtime's command, and that leaves ``tell``."""
    source = release / _MAIN
    code = compile(f"open({str(tell)!r}, 'w').close()", str(source), "exec")
    status = source.stat()
    header = importlib.util.MAGIC_NUMBER + bytes(4)
    for value in (int(status.st_mtime), status.st_size):
        header += (value & 0xFFFFFFFF).to_bytes(4, "little")
    path = Path(importlib.util.cache_from_source(str(source)))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header + marshal.dumps(code))
    return path


def test_a_planted_compiled_file_is_named_and_removed_and_does_not_run(
    board: tuple[Path, Options], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = board
    tell = tmp_path / "PWNED"
    planted = plant((root / "current").resolve(), tell)
    # It does what it is meant to where Python is let: the test would notice.
    folder = (root / "current" / "runtime").resolve()
    plain = {**os.environ, "PYTHONPATH": str(folder)}
    words = [sys.executable, "-m", "tatvpr_edge.runtime"]
    subprocess.run(words, env=plain, cwd=tmp_path, check=True)
    assert tell.exists()
    tell.unlink()
    assert main(["status", "local:", "--check", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert "__pycache__" in said and "every byte as sent" not in said
    done = deploy(local_transport(), make_artifact(tmp_path / "b", b"b"), None, options)
    assert any("held compiled Python" in text for text in done.warnings)
    assert not planted.parent.exists() and not tell.exists()
    plant(next(p for p in (root / "releases").iterdir() if p.name == done.before), tell)
    rollback(local_transport(), None, options)
    assert not tell.exists(), "the health check ran what nobody sent"
    assert status(local_transport(), options, check=True)["releases"][0]["fault"] is None


def test_the_unit_runs_what_was_sent(board: tuple[Path, Options], tmp_path: Path) -> None:
    root, _ = board
    tell = tmp_path / "PWNED"
    plant((root / "current").resolve(), tell)
    said, words = unit_of(unit_text(str(root), [sys.executable]))
    words += ["--socket", str(tmp_path / "s")]
    done = subprocess.run(
        words, env={**os.environ, **said}, cwd=root / "current", stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0 and not tell.exists()


def test_a_module_that_was_put_beside_the_runtime_does_not_run(
    board: tuple[Path, Options], tmp_path: Path
) -> None:
    """Python imports a ``sitecustomize`` by itself, before anything has checked the release."""
    root, options = board
    first = (root / "current").resolve()
    deploy(local_transport(), make_artifact(tmp_path / "b", b"b"), None, options)
    tell = tmp_path / "PWNED"
    planted = root / "current" / "runtime" / "sitecustomize.py"
    planted.write_text(f"open({str(tell)!r}, 'w').close()\n")
    program = "import tatvpr_edge; print(tatvpr_edge.__file__)"
    words = [str(root / "current" / "python"), "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, check=True)
    assert f"/{first.name}/" in done.stdout and "sitecustomize.py" in done.stderr
    assert not tell.exists()


def test_a_releases_own_python_compiles_nothing_into_it(board: tuple[Path, Options]) -> None:
    root, options = board
    program = "import tatvpr_edge; print(tatvpr_edge.__file__)"
    done = subprocess.run(
        [root / "current" / "python", "-c", program],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"releases/.*/runtime/tatvpr_edge/__init__\.py", done.stdout)
    assert not list(root.rglob("__pycache__"))
    assert status(local_transport(), options, check=True)["releases"][0]["fault"] is None

"""What was verified is what runs: files exchanged between check and start change nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import require_tool
from tatvpr_edge.runtime import whole
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ArtifactError


@pytest.mark.slow
def test_exchanging_files_while_localizer_opens_them_runs_nothing_unsigned(
    tiny_host: Path, project_root: Path
) -> None:
    require_tool("gcc", "gcc")
    tool = project_root / "tools" / "swap_attacks.py"
    done = subprocess.run(
        [sys.executable, tool, "--rounds", "40", "--artifact", tiny_host, "--check"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("unsigned code ran 0 of 40 times") == 3


def test_a_library_that_is_exchanged_after_the_check_is_refused(
    tiny_host: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_host, tmp_path / "a")
    artifact = read_artifact(tmp_path / "a")
    path = tmp_path / "a" / artifact.manifest.code.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="was altered"):
        Library.of(artifact)


def test_what_is_loaded_does_not_change_with_its_file(tiny_host: Path, tmp_path: Path) -> None:
    import shutil

    import numpy as np

    from tatvpr_edge.runtime import Localizer

    shutil.copytree(tiny_host, tmp_path / "a")
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    with Localizer(tmp_path / "a") as localizer:
        before = localizer.describe(frame).tobytes()
        for entry in localizer.artifact.manifest.files:
            path = tmp_path / "a" / entry.path
            with open(path, "r+b") as sink:  # the same file, not another one at its name
                sink.write(bytes(len(path.read_bytes())))
        assert localizer.describe(frame).tobytes() == before


@pytest.mark.parametrize("strict", [False, True])
def test_what_goes_while_a_release_is_looked_through_is_not_in_it(
    tmp_path: Path, strict: bool
) -> None:
    """A service writes its map anew beside it: a program that was started just then was not."""
    for name in ("map.placemap", "map.placemap.new"):
        (tmp_path / name).touch()
    found = whole.walk(str(tmp_path), strict=strict)
    assert next(found) == ("map.placemap", False)
    (tmp_path / "map.placemap.new").unlink()
    assert list(found) == []

"""Another artifact takes the folder's place while it is read."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from support.small_artifact import FILES, manifest
from support.tools import require_tool
from tatvpr_edge.runtime.engine import _load
from tatvpr_edge.runtime.verify import verify_artifact
from tatvpr_edge.spec.artifact import (
    MANIFEST,
    SignedManifest,
    read_artifact,
    write_artifact,
)
from tatvpr_edge.spec.atomic import take_place
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.manifest import seal
from tatvpr_edge.spec.sealed import seal_file


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another good artifact, on the same disk, of other files by the same names."""
    files = {name: b"other " + bytes(data) for name, data in FILES.items()}  # type: ignore[arg-type]
    files["golden/frame0.rgb"], files["golden/k1.f32"] = bytes(48), bytes(range(16))
    return write_artifact(tmp_path / "other", manifest(), files).root


def test_a_folder_that_is_replaced_while_it_is_read_is_read_once_more(
    folder: Path, other: Path
) -> None:
    wanted, calls = read_artifact(other).hash, []

    def replaced(signed: SignedManifest) -> None:
        calls.append(signed.manifest)
        if len(calls) == 1:  # the manifest is of one, all that follows of the other
            take_place(other, folder)

    assert read_artifact(folder, verify_signature=replaced).hash == wanted and len(calls) == 2

    def always(signed: SignedManifest) -> None:
        calls.append(signed.manifest)
        take_place(other, folder)

    with pytest.raises(ArtifactError, match=r"was altered|truncated"):
        read_artifact(folder, verify_signature=always)
    assert len(calls) == 4, "once more, and not for ever"


def test_what_is_damaged_and_not_replaced_is_read_once(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"WEIGHTS")
    calls: list[SignedManifest] = []
    with pytest.raises(ArtifactError, match=r"weights\.bin was altered"):
        read_artifact(folder, verify_signature=calls.append)
    assert len(calls) == 1


def test_one_that_is_replaced_while_it_is_verified_is_verified_once_more(
    tiny_host: Path, tmp_path: Path
) -> None:
    """Golden vectors are read after the files were checked, and the other's have other names."""
    folder, other = tmp_path / "artifact", tmp_path / "other"
    shutil.copytree(tiny_host, folder)
    shutil.copytree(tiny_host, other)
    (other / "golden").rename(other / "vectors")
    text = (other / MANIFEST).read_text().replace("golden/", "vectors/")
    (other / MANIFEST).write_bytes(seal(json.loads(text)))
    started = time.perf_counter()
    wanted = len(verify_artifact(folder).golden)
    assert len(verify_artifact(other).golden) == wanted > 0
    whole_s = (time.perf_counter() - started) / 2
    random = np.random.default_rng(4)
    for _ in range(30):
        swap = threading.Timer(random.uniform(0, whole_s), take_place, (other, folder))
        swap.start()
        assert len(verify_artifact(folder).golden) == wanted
        swap.join()


def test_a_host_that_closes_descriptors_is_given_the_code_that_it_asked_for(tmp_path: Path) -> None:
    """A daemon closes all of them; the loader would take the next library of that number for the
    one that it has loaded by that name."""
    gcc = require_tool("gcc", "gcc")
    for number in (1, 2, 3):
        source, code = tmp_path / f"{number}.c", tmp_path / f"{number}.so"
        source.write_text(f"int which(void) {{ return {os.getpid()} + {number}; }}\n")
        subprocess.run([gcc, "-shared", "-fPIC", str(source), "-o", str(code)], check=True)
    for number in (1, 2, 1):
        sealed = seal_file(tmp_path / f"{number}.so")
        assert _load(sealed, "code").which() == os.getpid() + number
        with contextlib.suppress(OSError):  # the number is another file's, or nobody's
            assert f"{number}.so" not in os.readlink(sealed.path)
    other = seal_file(tmp_path / "3.so")  # as a plugin of TensorRT, by the same number
    assert ctypes.CDLL(other.loaded_as()).which() == os.getpid() + 3
    other.close()

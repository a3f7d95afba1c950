"""Finished engines are believed only as they were verified, and only where nobody else can write.

No signature covers an engine, so the cache's own files are attacked here, without TensorRT.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.board import make_artifact
from tatvpr_edge.runtime.backends.tensorrt import cache
from tatvpr_edge.runtime.backends.tensorrt.machine import Machine, gpu_name
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ToolError

ENGINE, PLUGIN = b"engine " * 999, b"plugin " * 999
MACHINE = Machine("Orin", "sm_87", "12.6", "R36", "10.3.0")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifact")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder below which the cache lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def finish(artifact: Artifact) -> str:
    """An engine and a plugin, finished as ``finish`` does; the name of its entry."""
    key = cache.entry_key(artifact, MACHINE)
    with cache.locked(key, lambda: None), cache.staging(key) as folder:
        (folder / "all.engine").write_bytes(ENGINE)
        (folder / cache.PLUGIN).write_bytes(PLUGIN)
        hashes = {"all.engine": sha256(ENGINE), cache.PLUGIN: sha256(PLUGIN)}
        cache.publish(folder, key, artifact, MACHINE, hashes)
    return key


def is_right(key: str) -> bool:
    entry = cache.find(key)
    if entry is None:
        return False
    plugin = entry.plugin()
    assert plugin is not None
    with open(plugin.path, "rb") as source:
        loaded = source.read()
    plugin.close()
    return loaded == PLUGIN and entry.read("all.engine") == ENGINE


def open_folder(root: Path, entry: Path) -> None:
    root.chmod(0o777)


def group_folder(root: Path, entry: Path) -> None:
    root.chmod(0o770)


def open_parent(root: Path, entry: Path) -> None:
    root.parent.chmod(0o777)


def linked_folder(root: Path, entry: Path) -> None:
    root.rename(root.with_name("moved"))
    root.symlink_to("moved")


def strangers_folder(root: Path, entry: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(root, 12345, 12345)


@pytest.mark.parametrize(
    "how", [open_folder, group_folder, open_parent, linked_folder, strangers_folder]
)
def test_a_cache_that_others_may_write_is_not_believed(
    how: Callable[[Path, Path], None], artifact: Artifact, home: Path
) -> None:
    key = finish(artifact)
    root = home / "tatvpr-edge" / "tensorrt"
    assert is_right(key)
    how(root, root / key)
    with pytest.raises(
        ToolError, match=r"finished engines are not believed: .*: (chmod|chown|move)"
    ):
        cache.find(key)
    with pytest.raises(ToolError, match="not believed"):
        finish(artifact)


def open_entry(entry: Path) -> None:
    entry.chmod(0o777)


def linked_entry(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to("elsewhere")


def open_file(entry: Path) -> None:
    (entry / "all.engine").chmod(0o666)


def open_plugin(entry: Path) -> None:
    (entry / cache.PLUGIN).chmod(0o660)


def open_mark(entry: Path) -> None:
    (entry / cache.MARK).chmod(0o666)


def linked_file(entry: Path) -> None:
    engine = entry / "all.engine"
    engine.rename(entry.parent / "elsewhere.engine")
    engine.symlink_to(entry.parent / "elsewhere.engine")


def second_name(entry: Path) -> None:
    os.link(entry / cache.PLUGIN, entry.parent / "another-name")


def pipe_for_a_mark(entry: Path) -> None:
    (entry / cache.MARK).unlink()
    os.mkfifo(entry / cache.MARK)


def pipe_for_an_engine(entry: Path) -> None:
    (entry / "all.engine").unlink()
    os.mkfifo(entry / "all.engine")


def file_for_an_entry(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    entry.write_bytes(b"")


def altered_engine(entry: Path) -> None:
    (entry / "all.engine").write_bytes(ENGINE[:-1] + b"x")


def altered_plugin(entry: Path) -> None:
    (entry / cache.PLUGIN).write_bytes(b"x" + PLUGIN[1:])


def lost_plugin(entry: Path) -> None:
    (entry / cache.PLUGIN).unlink()


def cut_mark(entry: Path) -> None:
    mark = entry / cache.MARK
    mark.write_bytes(mark.read_bytes()[:-9])


def mark_of_another(entry: Path) -> None:
    mark = entry / cache.MARK
    mark.write_text(mark.read_text().replace(entry.name, "0" * 40))


def deep_mark(entry: Path) -> None:
    (entry / cache.MARK).write_bytes(b"[" * 100_000)


@pytest.mark.parametrize(
    "how",
    [
        open_entry,
        linked_entry,
        open_file,
        open_plugin,
        open_mark,
        linked_file,
        second_name,
        pipe_for_a_mark,
        pipe_for_an_engine,
        file_for_an_entry,
        altered_engine,
        altered_plugin,
        lost_plugin,
        cut_mark,
        mark_of_another,
        deep_mark,
    ],
)
def test_an_entry_that_is_not_as_it_was_verified_is_none_and_is_made_again(
    how: Callable[[Path], None], artifact: Artifact, home: Path
) -> None:
    key = finish(artifact)
    how(home / "tatvpr-edge" / "tensorrt" / key)
    assert cache.find(key) is None
    assert finish(artifact) == key
    assert is_right(key)


def test_a_copied_disk_takes_no_engine_to_another_module(artifact: Artifact, home: Path) -> None:
    """CUDA calls every Orin's GPU "Orin"."""
    keys = set()
    for module in ("p3767-0005", "p3767-0000", None):
        compatible = home.parent / "compatible"
        if module is None:
            compatible.unlink()
        else:
            text = f"nvidia,p3768-0000+{module}\0nvidia,{module}\0nvidia,tegra234\0"
            compatible.write_text(text)
        machine = replace(MACHINE, gpu=gpu_name("Orin", compatible))
        keys.add(cache.entry_key(artifact, machine))
    assert machine == MACHINE and len(keys) == 3


def test_what_is_exchanged_after_the_check_is_not_what_is_loaded(
    artifact: Artifact, home: Path
) -> None:
    key = finish(artifact)
    entry = cache.find(key)
    assert entry is not None
    sealed = entry.plugin()
    assert sealed is not None
    for name in ("all.engine", cache.PLUGIN):  # the same files, not others at their names
        with open(entry.folder / name, "r+b") as sink:
            sink.write(b"evil")
    with open(sealed.path, "rb") as source:
        assert source.read() == PLUGIN
    sealed.close()
    assert entry.read("all.engine") is None
    with pytest.raises(ToolError, match="missing or was altered: finish again"):
        entry.plugin()


def test_files_exchanged_again_and_again_never_give_other_bytes(
    artifact: Artifact, home: Path
) -> None:
    key = finish(artifact)
    entry = cache.find(key)
    assert entry is not None
    ends = threading.Event()

    def exchange() -> None:
        while not ends.is_set():
            for data in (b"evil " * 1500, PLUGIN):
                new = entry.folder / ".new"
                new.write_bytes(data)
                new.chmod(0o600)
                new.rename(entry.folder / cache.PLUGIN)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    whole = refused = 0
    try:
        for _ in range(1000):
            try:
                sealed = entry.plugin()
            except ToolError:
                refused += 1
                continue
            assert sealed is not None and sealed.sha256 == sha256(PLUGIN)
            sealed.close()
            whole += 1
    finally:
        ends.set()
        attacker.join()
    assert whole + refused == 1000


def test_files_of_a_builder_whose_group_may_write_are_made_private(
    artifact: Artifact, home: Path
) -> None:
    before = os.umask(0o002)
    try:
        key = finish(artifact)
    finally:
        os.umask(before)
    entry = home / "tatvpr-edge" / "tensorrt" / key
    assert {path.stat().st_mode & 0o777 for path in entry.iterdir()} == {0o600}
    assert is_right(key)


def test_a_lock_that_is_a_link_is_not_followed(artifact: Artifact, home: Path) -> None:
    key = finish(artifact)
    lock = home / "tatvpr-edge" / "tensorrt" / f"{key}.lock"
    lock.unlink()
    lock.symlink_to(home / "made-by-a-lock")
    with pytest.raises(OSError):
        finish(artifact)
    assert not (home / "made-by-a-lock").exists()

"""Install roots that are not what their user meant: nothing of others is lost, and it is said."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    board_modules,
    hash_of,
    live_content,
    local_transport,
    make_artifact,
    quick_options,
)
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.command import live_manifest
from tatvpr_edge.deploy.inventory import read_inventory
from tatvpr_edge.deploy.push import deploy, rollback, status
from tatvpr_edge.deploy.transport import LocalTransport
from tatvpr_edge.spec.errors import DeployError


@pytest.mark.parametrize(
    "path",
    ["trash/photo.jpg", "staging/site/index.html", "releases/v1.0/app", "state.json", "spare"],
)
def test_a_folder_of_other_things_is_no_install_root(
    ram_path: Path, wheel: Path, pair: Any, path: str
) -> None:
    """Each of them was removed or written over: other tools have releases and a current, too."""
    root = ram_path / "srv"
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text('{"precious": 1}')
    options = quick_options(root, wheel)
    for act in (
        lambda: deploy(local_transport(), pair[0], None, options),
        lambda: rollback(local_transport(), None, options),
    ):
        with pytest.raises(DeployError, match=r"made by no deploy.*name another --root") as said:
            act()
        assert str(root / Path(*Path(path).parts[:2])) in str(said.value)
    assert [p for p in root.rglob("*") if p.is_file()] == [root / path]
    assert (root / path).read_text() == '{"precious": 1}'


@pytest.mark.parametrize(
    "lost", [(), ("lock",), ("lock", "state.json"), ("state.json", "releases")]
)
def test_a_root_that_lost_much_is_ours_all_the_same(
    pair: Any, fresh: Any, lost: tuple[str, ...]
) -> None:
    root, options = fresh()
    for name in lost:
        os.rename(root / name, root.with_name(f"lost-{name}"))
    (root / "trash" / "half").mkdir()
    (root / "trash" / "half" / "weights.bin").write_bytes(b"half removed")
    deploy(local_transport(), pair[1], None, options)
    assert live_content(root) == hash_of(pair[1])
    assert not os.listdir(root / "trash")


def test_nothing_is_deployed_into_an_artifact(ram_path: Path, wheel: Path, pair: Any) -> None:
    """It was an artifact no longer: the next deploy of it was refused for the files more."""
    for root in (pair[0].root, pair[0].root / "board", pair[0].root / "lib" / "board"):
        options = quick_options(root, wheel)
        with pytest.raises(DeployError, match=rf"{pair[0].root} is an artifact.*place outside it"):
            deploy(local_transport(), pair[0], None, options)
    deploy(local_transport(), pair[0].root, None, quick_options(ram_path / "root", wheel))


def test_a_relative_root_of_this_machine_is_a_path_like_any_other(
    ram_path: Path, wheel: Path, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lay in the home, be it that it was there already in the working folder."""
    home = ram_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(ram_path)
    options = quick_options("board", wheel)
    deploy(local_transport(), pair[0], None, options)
    assert live_content(ram_path / "board") == hash_of(pair[0])
    assert status(local_transport(), options)["root"] == str(ram_path / "board")
    said = live_manifest(local_transport(), "board", options.python)
    assert said == (pair[0].root / "manifest.json").read_bytes()
    place = ram_path / "fleet" / "boards.toml"
    place.parent.mkdir()
    make_artifact(home / "model")
    text = 'artifact = "~/model"\n[[board]]\nhost = "local:"\nroot = "one"\n'
    place.write_text(text + '[[board]]\nhost = "robot"\nroot = "one"\n')
    local, other = read_inventory(place)
    assert (local.root, local.artifact) == (str(place.parent / "one"), home / "model")
    assert other.root == "one"  # in the login's home there
    assert status(local_transport(), quick_options("~/there"))["root"] == str(home / "there")


def test_a_lost_live_release_is_said_and_rolled_back(
    pair: Any, fresh: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """``status`` said that nothing was live, beside the releases of before."""
    root, options = fresh()
    first = (root / "current").resolve().name
    second = deploy(local_transport(), pair[1], None, options).release
    shutil.rmtree(root / "releases" / second)
    words = ["status", "local:", "--root", str(root), "--python", shlex.quote(sys.executable)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"the live release is lost (releases/{second} is nowhere): deploy again, or " in said
    assert rollback(local_transport(), None, options).release == first
    assert live_content(root) == hash_of(pair[0])
    assert main(words) == 0 and "lost" not in capsys.readouterr().out


def test_a_root_that_cannot_be_made_or_takes_no_modes_says_what_to_do(
    ram_path: Path, wheel: Path, pair: Any
) -> None:
    (ram_path / "file").write_text("")
    options = quick_options(ram_path / "file" / "root", wheel)
    with pytest.raises(DeployError, match=r"file/root\): mend that, or name another --root"):
        deploy(local_transport(), pair[0], None, options)
    refuses = (
        "\ndef refuse(descriptor, mode):\n    if mode != 0o600:\n"
        "        raise PermissionError(1, 'Operation not permitted')\n"
        "os.fchmod = refuse\n"
    )
    root = ram_path / "vfat"
    modules = [(n, text + refuses * n.endswith(".assembly")) for n, text in board_modules(root)]
    options = quick_options(root, wheel, modules=modules)
    with pytest.raises(DeployError, match=rf"not permitted \(below {root}\).* another --root"):
        deploy(local_transport(), pair[0], None, options)


def test_a_login_without_a_home_is_asked_for_a_root(ram_path: Path, pair: Any) -> None:
    """The release went to a folder called after the home that could not be found."""
    board = LocalTransport(environment=(("HOME", "no/home"), ("TATVPR_EDGE_ROOT", "")))
    options = replace(quick_options(ram_path), root=None)
    with pytest.raises(DeployError, match=r"the login has no home .* give --root a whole path"):
        deploy(board, pair[0], None, options)
    assert status(board, quick_options(ram_path / "root"))["root"] == str(ram_path / "root")

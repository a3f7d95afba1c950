"""A card whose blocks go bad: what cannot be read is damaged, and stops no deploy or rollback."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import board_modules, hash_of, live_content, local_transport, make_artifact
from support.board_maps import Board, add_on_board, live_map, same_model
from tatvpr_edge.deploy.push import Options, deploy, rollback, status
from tatvpr_edge.spec.errors import DeployError


def with_bad_block(options: Options, path: Path) -> Options:
    """To a board whose medium gives no byte of ``path`` any more; a folder cannot be listed."""
    modules = board_modules(str(options.root))
    fails = (
        "\ndef _read(descriptor, most, real=os.read):\n"
        f"    if os.readlink(f'/proc/self/fd/{{descriptor}}') == {str(path)!r}:\n"
        "        raise OSError(errno.EIO, os.strerror(errno.EIO))\n"
        "    return real(descriptor, most)\n"
        "def _listdir(folder, real=os.listdir):\n"
        f"    if folder == {str(path)!r}:\n"
        "        raise OSError(errno.EIO, os.strerror(errno.EIO), folder)\n"
        "    return real(folder)\n"
        "os.read, os.listdir = _read, _listdir\n"
    )
    modules[-1] = (modules[-1][0], modules[-1][1] + fails)
    return replace(options, modules=modules)


@pytest.mark.parametrize(
    "where",
    [
        "runtime/tatvpr_edge/runtime/__main__.py",
        "artifact/manifest.json",
        "release.json",
        "artifact",
    ],
)
def test_a_bad_block_in_an_installed_release_stops_no_deploy(
    pair: Any, fresh: Any, faults: Any, where: str
) -> None:
    root, options = fresh()
    first = (root / "current").resolve()
    failing = with_bad_block(options, first / where)
    # Another release, some of whose files it has; and the same again, which mends it.
    deploy(local_transport(), pair[1], None, failing)
    faults.check(root, {hash_of(pair[1])}, where)
    deploy(local_transport(), pair[0], None, failing)
    faults.check(root, {hash_of(pair[0])}, where)
    assert (root / "current").resolve() != first


def test_a_bad_block_in_what_was_sent_before_has_it_sent_again(
    ram_path: Path, fresh: Any, faults: Any
) -> None:
    root, options = fresh()
    big = make_artifact(ram_path / "big", b"big", files={"data.bin": os.urandom(3_000_000)})

    def cut(event: dict[str, Any]) -> None:
        if event.get("path") == "artifact/data.bin":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(local_transport(), big, None, options, cut)
    (part,) = root.glob("staging/*/parts/*")
    deploy(local_transport(), big, None, with_bad_block(options, part))
    faults.check(root, {hash_of(big)}, "part")


def test_status_names_what_a_bad_block_took(pair: Any, fresh: Any) -> None:
    root, options = fresh()
    first = (root / "current").resolve()
    deploy(local_transport(), pair[1], None, options)
    failing = with_bad_block(options, first / "artifact/weights.bin")
    found = status(local_transport(), failing, check=True)["releases"]
    said = {release["name"]: release["fault"] for release in found}
    assert said.pop(first.name) == "artifact/weights.bin cannot be read: Input/output error"
    assert list(said.values()) == [None]
    with pytest.raises(DeployError, match=r"damaged: .*Input/output error: deploy it again"):
        rollback(local_transport(), None, failing)
    assert live_content(root) == hash_of(pair[1])


@pytest.mark.parametrize("name", ["map.placemap", "map.placemap.journal"])
def test_a_rollback_leaves_a_map_behind_that_cannot_be_read(
    ram_path: Path, board: Board, name: str
) -> None:
    root, options = board
    first = (root / "current").resolve()
    deploy(local_transport(), same_model(ram_path, "second"), None, options)
    add_on_board(root, 5)
    failing = with_bad_block(options, live_map(root).resolve().with_name(name))
    said: list[Any] = []
    rollback(local_transport(), None, failing, said.append)
    assert (root / "current").resolve() == first
    (told,) = [str(event["text"]) for event in said if event["event"] == "warning"]
    assert f"{name} cannot be read: Input/output error" in told and "stay" in told
    assert not list(first.glob("map.*.new"))  # nor is half of it left

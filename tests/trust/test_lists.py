"""Once a machine insists on signatures it insists for every reader, and whatever happens to its
lists, they never let in more than before."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from support.board import make_artifact
from support.keys import Keys
from tatvpr_edge.runtime import trust
from tatvpr_edge.runtime.signature import artifact_verifier, signer_line
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import SignatureError, ToolError

Enforce = Callable[..., Path]
NOWHERE = Path("/dev/null/tatvpr-edge")


def read(folder: Path, root: Path, system: Path = NOWHERE) -> None:
    """Read an artifact as ``Localizer`` does on a board."""
    read_artifact(folder, verify_signature=artifact_verifier(root, system))


def refused(folder: Path, root: Path, says: str | None, system: Path = NOWHERE) -> None:
    with pytest.raises(SignatureError, match=says):
        read(folder, root, system)


# ---- for whom ----------------------------------------------------------------------------------


def test_a_machine_that_enforces_does_so_for_every_root(
    tmp_path: Path, enforce: Enforce, keys: Keys, signed: Path
) -> None:
    system = enforce(tmp_path / "etc")
    unsigned = make_artifact(tmp_path / "unsigned").root
    own = tmp_path / "own-root"
    read(unsigned, own)  # nothing is enforced: as ever
    for root in (own, tmp_path / "home" / ".local" / "share" / "tatvpr-edge"):
        read(signed, root, system)
        refused(unsigned, root, "is unsigned", system)
    # A root of one's own that trusts a key of one's own adds nothing to the machine's list.
    sign_artifact(unsigned, keys.private("stranger"), serial=200)
    enforce(own)
    trust.signers_path(own).write_text(signer_line("me", keys.public("stranger")))
    read(unsigned, own)
    refused(unsigned, own, "does not trust", system)


def test_home_and_user_do_not_matter_to_a_machine_that_enforces(
    tmp_path: Path, enforce: Enforce, signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = enforce(tmp_path / "etc")
    unsigned = make_artifact(tmp_path / "unsigned").root
    for name, value in (("HOME", "/nonexistent"), ("TATVPR_EDGE_ROOT", str(tmp_path / "x"))):
        monkeypatch.setenv(name, value)
        with pytest.raises(SignatureError, match="is unsigned"):
            read_artifact(unsigned, verify_signature=artifact_verifier(None, system))
        read_artifact(signed, verify_signature=artifact_verifier(None, system))


def test_a_home_that_is_no_folder_enforces_nothing(tmp_path: Path, signed: Path) -> None:
    for root in (
        "/dev/null",
        "/dev/null/.local/share/tatvpr-edge",
        tmp_path / "none" / "at" / "all",
    ):
        assert artifact_verifier(root, NOWHERE) is None


def test_ssh_keygen_is_not_taken_from_path(
    tmp_path: Path, enforce: Enforce, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = enforce(tmp_path / "root")
    foreign = make_artifact(tmp_path / "foreign").root
    sign_artifact(foreign, keys.private("stranger"), serial=1)
    liar = tmp_path / "bin" / "ssh-keygen"
    liar.parent.mkdir()
    liar.write_text("#!/bin/sh\necho ours\n")
    liar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{liar.parent}:{os.environ['PATH']}")
    refused(foreign, root, "does not trust")
    monkeypatch.setattr("tatvpr_edge.runtime.signature._PLACES", (str(tmp_path / "nowhere"),))
    with pytest.raises(ToolError, match="ssh-keygen is missing"):
        read(foreign, root)
    liar.chmod(0o777)
    monkeypatch.setattr("tatvpr_edge.runtime.signature._PLACES", (str(liar.parent),))
    with pytest.raises(ToolError, match="can be written by others"):
        read(foreign, root)


# ---- damage ------------------------------------------------------------------------------------


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def rotten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def second_name(path: Path) -> None:
    os.link(path, path.with_name("also"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def endless(path: Path) -> None:
    path.write_bytes(b"# \n" * (1 << 19))


def others_may_write(path: Path) -> None:
    path.chmod(0o666)


def group_may_write(path: Path) -> None:
    path.chmod(0o664)


DAMAGE = [
    *(emptied, removed, cut, rotten, zeros, link, dangling, loop, second_name, pipe, a_socket),
    *(folder, endless, others_may_write, group_may_write),
]


@pytest.mark.parametrize("damage", [emptied, dangling, loop, pipe])
def test_a_machine_s_place_that_is_no_folder_trusts_nothing(
    tmp_path: Path, enforce: Enforce, signed: Path, damage: Callable[[Path], None]
) -> None:
    system = enforce(tmp_path / "etc")
    system.rename(tmp_path / "away")
    system.touch()
    damage(system)
    refused(signed, tmp_path / "own-root", "is not a folder: nothing is trusted", system)


@pytest.mark.parametrize("scope", ["root", "machine"])
@pytest.mark.parametrize("name", ["allowed_signers", "revoked_keys"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_list_trusts_nothing(
    tmp_path: Path,
    enforce: Enforce,
    keys: Keys,
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    name: str,
    scope: str,
) -> None:
    base = enforce(tmp_path / "place", keys.bare("second"))
    root, system = (base, NOWHERE) if scope == "root" else (tmp_path / "other", base)
    read(signed, root, system)
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    damage(base / "trust" / name)
    unsigned = make_artifact(tmp_path / "unsigned").root
    refused(unsigned, root, None, system)
    refused(signed, root, None, system)


@pytest.mark.parametrize("scope", ["root", "machine"])
@pytest.mark.parametrize("damage", [one for one in DAMAGE if one is not removed])
def test_a_damaged_mark_still_insists(
    tmp_path: Path,
    enforce: Enforce,
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    scope: str,
) -> None:
    base = enforce(tmp_path / "place")
    root, system = (base, NOWHERE) if scope == "root" else (tmp_path / "other", base)
    monkeypatch.chdir(tmp_path)
    damage(trust.mark_path(base))
    refused(make_artifact(tmp_path / "unsigned").root, root, None, system)
    refused(signed, root, None, system)
    # With both lists gone too, the mark alone is enough.
    for path in (trust.signers_path(base), trust.revoked_path(base)):
        path.unlink()
    refused(signed, root, None, system)


def test_every_bit_of_a_mark_matters(tmp_path: Path, enforce: Enforce, signed: Path) -> None:
    root = enforce(tmp_path / "place")
    path = trust.mark_path(root)
    for downgrades in (True, False):
        whole = trust.mark_text("raspberry-pi-5", downgrades)
        path.write_bytes(whole)
        assert trust.read(root).board == "raspberry-pi-5"
        for bit in range(8 * len(whole)):
            rotten = bytearray(whole)
            rotten[bit // 8] ^= 1 << bit % 8
            path.write_bytes(rotten)
            with pytest.raises(SignatureError, match="is damaged: trust a key again"):
                trust.read(root)
    # A key trusted again says what the board insists on anew, and old marks are still read.
    assert trust.read(root, renew=True).board is None
    path.write_bytes(b'{"board": "raspberry-pi-5", "format": 1}\n')
    assert (trust.read(root).board, trust.read(root).downgrades) == ("raspberry-pi-5", False)
    for other in (b'{"boaRd": "x", "format": 1}', b'{"format": 1}', b"{}", b"[]", b"1"):
        path.write_bytes(other)
        refused(signed, root, "is damaged")


def test_lists_without_their_mark_still_insist(
    tmp_path: Path, enforce: Enforce, signed: Path
) -> None:
    root = enforce(tmp_path / "place")
    trust.mark_path(root).unlink()
    read(signed, root)
    refused(make_artifact(tmp_path / "unsigned").root, root, "is unsigned")


@pytest.mark.parametrize("scope", ["root", "machine"])
@pytest.mark.parametrize(
    "damage", [None, *(one for one in DAMAGE if one not in (removed, second_name))]
)
def test_the_folder_of_the_lists_lost_or_exchanged_trusts_nothing(
    tmp_path: Path,
    enforce: Enforce,
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None] | None,
    scope: str,
) -> None:
    base = enforce(tmp_path / "place")
    root, system = (base, NOWHERE) if scope == "root" else (tmp_path / "other", base)
    monkeypatch.chdir(tmp_path)
    place = base / "trust"
    if damage in (link, others_may_write, group_may_write):
        damage(place)  # whole, and not to be believed all the same
        place.chmod(place.stat().st_mode | 0o111)
    else:
        place.rename(tmp_path / "away")
        if damage is not None:
            place.write_bytes(b"x" * 100)
            damage(place)
    refused(signed, root, None, system)
    refused(make_artifact(tmp_path / "unsigned").root, root, None, system)


@pytest.mark.parametrize(("mode", "says"), [(0o777, "other users"), (0o775, "other users")])
def test_a_root_that_others_may_write_is_not_believed(
    tmp_path: Path, enforce: Enforce, signed: Path, mode: int, says: str
) -> None:
    root = enforce(tmp_path / "place")
    root.chmod(mode)
    refused(signed, root, says)
    root.chmod(0o755)
    read(signed, root)
    # Whoever may rename in the folder above may put another root there; a sticky one is fine.
    tmp_path.chmod(0o777)
    refused(signed, root, "can be written by every user")
    tmp_path.chmod(0o1777)
    read(signed, root)


def test_the_list_of_revoked_keys_never_loses_a_line_without_a_word(
    tmp_path: Path, enforce: Enforce, keys: Keys, signed: Path
) -> None:
    root = enforce(tmp_path / "place", keys.bare("second"), keys.bare("ours"))
    refused(signed, root, "its key is revoked")
    path = trust.revoked_path(root)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(signed, root, "damaged or was edited")
    lines = whole.splitlines(keepends=True)
    for one in range(len(lines)):
        path.write_bytes(b"".join(lines[:one] + lines[one + 1 :]))
        refused(signed, root, "damaged or was edited|its key is revoked")


def test_folders_of_an_artifact_that_others_may_write_are_refused(
    tmp_path: Path, enforce: Enforce, signed: Path
) -> None:
    root = enforce(tmp_path / "root")
    for place in (signed, signed / "lib"):
        place.chmod(0o777)
        refused(signed, root, "can be written by other users")
        place.chmod(0o755)
    read(signed, root)


def test_the_lowest_serial_is_exact(tmp_path: Path, enforce: Enforce, signed: Path) -> None:
    root = enforce(tmp_path / "root")
    for floor in (99, 100):
        (root / "state.json").write_text(f'{{"floor": {floor}}}')
        read(signed, root)
    (root / "state.json").write_text('{"floor": 101}')
    refused(signed, root, "serial 100, older than the installed 101")

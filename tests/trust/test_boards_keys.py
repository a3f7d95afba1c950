"""Making a board insist on signatures, and making it stop: what the commands do to its lists."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    board_modules,
    local_transport,
    make_artifact,
    make_wheel,
    quick_options,
    system_folder,
)
from support.keys import Keys
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.push import Options, accept_unsigned, deploy, revoke, status, trust
from tatvpr_edge.runtime import trust as lists
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import SignatureError

Board = tuple[Path, Options]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path)


@pytest.fixture(params=["machine", "root"])
def board(request: pytest.FixtureRequest, tmp_path: Path, wheel: Path) -> Board:
    """A board whose user may write the machine's folder, and one whose user may not."""
    root = tmp_path / "root"
    modules = board_modules(root, machine=request.param == "machine")
    return root, quick_options(root, wheel, modules=modules)


def place(board: Board) -> Path:
    """Where the lists of this board lie."""
    found = status(local_transport(), board[1])["trust"]
    assert isinstance(found, str)
    return Path(found)


def accepts(board: Board, folder: Path, root: Path | None = None) -> bool:
    """Whether a program on the board accepts an artifact; ``root``: one with another root."""
    try:
        verifier = artifact_verifier(root or board[0], system_folder(board[0]))
        read_artifact(folder, verify_signature=verifier)
    except SignatureError:
        return False
    return True


def test_from_the_first_trusted_key_on_the_board_insists(
    board: Board, tmp_path: Path, keys: Keys, signed: Path
) -> None:
    root, options = board
    unsigned = make_artifact(tmp_path / "unsigned").root
    assert status(local_transport(), options)["enforced"] is None
    assert accepts(board, unsigned)
    warnings: list[dict[str, Any]] = []
    found = trust(local_transport(), "ours", keys.public("ours"), False, options, warnings.append)
    machine = place(board) == system_folder(root)
    assert found["enforced"] == ("machine" if machine else "root")
    assert [key["name"] for key in found["keys"]] == ["ours"]
    assert accepts(board, signed) and not accepts(board, unsigned)
    # Where /etc cannot be written, that is said, and another root is not held to it.
    assert accepts(board, unsigned, tmp_path / "another") == (not machine)
    said = [str(event["text"]) for event in warnings if event["event"] == "warning"]
    assert bool(said) == (not machine) and all("only programs that use" in text for text in said)
    done = deploy(local_transport(), signed, None, replace(options, sign=keys.private("ours")))
    assert done.signer == "ours" and bool(done.warnings) == (not machine)
    for path in (lists.mark_path, lists.signers_path, lists.revoked_path):
        assert path(place(board)).stat().st_mode & 0o777 == 0o644


def test_turning_it_off_is_a_command_and_keeps_revoked_keys(
    board: Board, tmp_path: Path, keys: Keys
) -> None:
    _, options = board
    with pytest.raises(SignatureError, match="nothing to turn off"):
        accept_unsigned(local_transport(), options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    revoke(local_transport(), keys.public("second"), options)
    unsigned = make_artifact(tmp_path / "unsigned").root
    where = place(board)
    assert accept_unsigned(local_transport(), options)["was"] == str(where)
    assert status(local_transport(), options)["enforced"] is None
    assert accepts(board, unsigned)
    with pytest.raises(SignatureError, match="is revoked on this board"):
        trust(local_transport(), "second", keys.public("second"), options=options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    assert not accepts(board, unsigned)


def test_the_command_that_turns_it_off_warns_and_asks(
    tmp_path: Path,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "root"
    modules = board_modules(root, machine=False)
    monkeypatch.setattr("tatvpr_edge.deploy.session.agent_modules", lambda: modules)
    trust(local_transport(), "ours", keys.public("ours"), options=Options(root=str(root)))
    unsigned = make_artifact(tmp_path / "unsigned").root
    words = ["keys", "accept-unsigned", "local:", "--root", str(root)]
    words += ["--python", shlex.quote(sys.executable)]
    board = root, Options()
    assert main(words) == 1, "nobody was asked"
    said = capsys.readouterr().err
    assert "warning: local: will run artifacts that nobody signed" in said and "--yes" in said
    assert not accepts(board, unsigned)
    assert main([*words, "--yes"]) == 0
    said = capsys.readouterr()
    assert "warning: " in said.err and "enforces signatures no longer" in said.out
    assert accepts(board, unsigned)


def test_lost_and_damaged_lists_are_told_and_can_be_renewed(
    board: Board, tmp_path: Path, keys: Keys, signed: Path
) -> None:
    _, options = board
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    revoke(local_transport(), keys.public("second"), options)
    base = place(board)
    # The list of signers is lost: trusting a key again renews it.
    lists.signers_path(base).unlink()
    assert "is lost" in str(status(local_transport(), options)["trust_fault"])
    assert not accepts(board, signed)
    with pytest.raises(SignatureError, match="is lost"):
        deploy(local_transport(), signed, None, options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    assert accepts(board, signed)
    # The mark is damaged: so too.
    lists.mark_path(base).write_bytes(b"\0\0")
    assert not accepts(board, signed)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    assert accepts(board, signed)
    # The list of revoked keys is lost: nothing renews it by the way.
    lists.revoked_path(base).unlink()
    for change in (
        lambda: trust(local_transport(), "ours", keys.public("ours"), options=options),
        lambda: revoke(local_transport(), keys.public("stranger"), options),
    ):
        with pytest.raises(SignatureError, match=r"is lost.*--new-list"):
            change()
    assert not accepts(board, signed)
    revoke(local_transport(), keys.public("second"), options, new_list=True)
    assert accepts(board, signed)
    sign_artifact(signed, keys.private("second"), serial=101)
    assert not accepts(board, signed)


def test_a_user_who_may_not_write_the_machines_lists_is_told(
    tmp_path: Path, wheel: Path, keys: Keys, enforce: Callable[..., Path]
) -> None:
    root = tmp_path / "root"
    modules = board_modules(root, machine=True)
    system = enforce(system_folder(root))
    place = [name for name, _ in modules].index("tatvpr_edge.deploy.disk")
    refusing = (
        "\ndef _create(self, path, executable=False, real=Disk.create):\n"
        f"    if path.startswith({str(system)!r}):\n"
        "        raise PermissionError(13, 'Permission denied', path)\n"
        "    return real(self, path, executable)\n"
        "Disk.create = _create\n"
    )
    modules[place] = (modules[place][0], modules[place][1] + refusing)
    options = quick_options(root, wheel, modules=modules)
    for change in (trust, lambda t, _, key, options: revoke(t, key, options)):
        with pytest.raises(SignatureError, match="log in as root"):
            change(local_transport(), "second", keys.public("second"), options=options)
    assert "second" not in lists.signers_path(system).read_text()


def test_becoming_root_carries_the_lists_of_the_root_over(
    tmp_path: Path, wheel: Path, keys: Keys, signed: Path
) -> None:
    root = tmp_path / "root"
    plain = quick_options(root, wheel)
    trust(local_transport(), "ours", keys.public("ours"), options=plain)
    revoke(local_transport(), keys.public("stranger"), plain)
    as_root = quick_options(root, wheel, modules=board_modules(root, machine=True))
    found = trust(local_transport(), "second", keys.public("second"), options=as_root)
    assert [key["name"] for key in found["keys"]] == ["ours", "second"]
    board = (root, as_root)
    assert accepts(board, signed, tmp_path / "another")
    sign_artifact(signed, keys.private("stranger"), serial=101)
    assert not accepts(board, signed)


def test_revoking_a_key_on_a_board_that_insists_on_nothing_says_so(
    tmp_path: Path,
    keys: Keys,
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "root"
    modules = board_modules(root, machine=False)
    monkeypatch.setattr("tatvpr_edge.deploy.session.agent_modules", lambda: modules)
    public = tmp_path / "ours.pub"
    public.write_text(keys.public("ours"))
    words = [str(public), "local:", "--root", str(root), "--python", shlex.quote(sys.executable)]
    board = root, Options()
    assert main(["keys", "revoke", *words]) == 0
    said = capsys.readouterr()
    assert "as soon as it insists on signatures" in said.out
    assert "accepts unsigned artifacts, and so this key's" in said.err and accepts(board, signed)
    public.write_text(keys.public("second"))
    assert main(["keys", "trust", *words, "--name", "second"]) == 0
    assert not accepts(board, signed)
    public.write_text(keys.public("stranger"))
    capsys.readouterr()
    assert main(["keys", "revoke", *words]) == 0
    said = capsys.readouterr()
    assert "from now on" in said.out and "warning" not in said.err


def test_a_key_is_revoked_also_where_the_live_release_is_damaged(
    board: Board, keys: Keys, signed: Path
) -> None:
    """Its manifest could not be read, and so a stolen key stayed trusted."""
    root, options = board
    deploy(local_transport(), signed, None, replace(options, sign=keys.private("ours")))
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    (root / "current" / "artifact" / "manifest.json").unlink()
    with pytest.raises(SignatureError, match=r"would be refused from now on .*or use --force"):
        trust(local_transport(), "second", keys.public("second"), options=options)
    found = revoke(local_transport(), keys.public("ours"), options)
    assert [key["revoked"] for key in found["keys"]] == [True]


def test_keys_are_listed_whatever_lies_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keys: Keys
) -> None:
    """A folder, or bytes that are no text, ended the list; an empty file was a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "tatvpr-edge" / "keys"
    folder.mkdir(parents=True)
    (folder / "ours.pub").write_text(keys.public("ours"))
    (folder / "folder.pub").mkdir()
    (folder / "bytes.pub").write_bytes(b"\xff\xfe")
    (folder / "empty.pub").write_bytes(b"")
    assert main(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert "ours" in said.out and len(said.out.splitlines()) == 2
    assert said.err.count("is no public key") == 3

"""One signature over all of a release that runs: what is not in the signed list does not."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.board import (
    Sshd,
    board_modules,
    live_content,
    local_transport,
    make_artifact,
    make_wheel,
    quick_options,
    running_sshd,
)
from support.keys import Keys
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.push import Options, deploy, revoke, rollback, status, trust
from tatvpr_edge.runtime import Localizer, deployed, whole
from tatvpr_edge.runtime.signing import sign_artifact, sign_bytes
from tatvpr_edge.runtime.table import parse_table
from tatvpr_edge.runtime.trust import mark_path, mark_text, signers_path
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import DeployError, SignatureError, TatvprError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

DAY_S = 86_400
Signed = Callable[..., Path]
Board = tuple[Path, Options]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on loopback."""
    with running_sshd(tmp_path_factory.mktemp("sshd") / "etc") as board:
        yield board


@pytest.fixture
def artifact(tmp_path: Path, keys: Keys) -> Signed:
    """Makes a whole artifact that our key signed."""

    def make(name: str, serial: int = 100, board: str = "host") -> Path:
        make_artifact(tmp_path / name, name.encode(), board=board)
        sign_artifact(tmp_path / name, keys.private("ours"), serial)
        return tmp_path / name

    return make


@pytest.fixture
def board(tmp_path: Path, keys: Keys, artifact: Signed) -> Board:
    """A board that trusts our key and runs a release that it signed."""
    key = keys.private("ours")
    options = quick_options(tmp_path / "root", make_wheel(tmp_path), sign=key)
    deploy(local_transport(), artifact("first"), None, options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    return tmp_path / "root", options


# ---- installing --------------------------------------------------------------------------------


def test_an_unsigned_runtime_or_map_is_refused_before_it_is_sent(
    board: Board, artifact: Signed, sshd: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = board
    live = live_content(root)
    for unsigned in (replace(options, sign=None), replace(options, sign=None, runtime="never")):
        with pytest.raises(
            SignatureError, match=r"is unsigned \(its runtime and map too\).*--sign"
        ):
            deploy(sshd.transport(), artifact("next" + unsigned.runtime), None, unsigned)
    assert live_content(root) == live and not list((root / "staging").iterdir())
    done = deploy(sshd.transport(), artifact("signed"), None, options)
    assert done.signer == "ours" and live_content(root) != live
    release = (root / "current").resolve()
    said = json.loads((release / "release.json").read_text())
    assert said["board"] == "host" and said["requires"] == [] and said["serial"] > 1e9
    assert main(["status", "local:", "--root", str(root)]) == 0
    assert capsys.readouterr().out.count("signed by ours") == 2
    rollback(sshd.transport(), None, options)
    assert live_content(root) == live


def test_the_commands_as_a_user_types_them(
    board: Board, artifact: Signed, capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = board
    there = ["local:", "--root", str(root)]
    words = ["deploy", str(artifact("next")), *there, "--wheel", str(options.wheel)]
    words += ["--watch-seconds", "0", "--python", shlex.quote(sys.executable)]
    assert main(words) == 1
    assert "deploy it with `tatvpr-edge deploy --sign KEY`" in capsys.readouterr().err
    assert main([*words, "--expires-days", "30"]) != 0, "an expiry that nobody signs"
    capsys.readouterr()
    assert main([*words, "--sign", str(options.sign), "--expires-days", "30"]) == 0
    said = capsys.readouterr()
    assert "signed by ours" in said.out and "only programs that use" in said.err
    assert main(["status", *there]) == 0
    assert "signed by ours, expires 2" in capsys.readouterr().out


def test_the_same_again_is_the_same_release_also_signed_by_another_key(
    board: Board, artifact: Signed, keys: Keys, tmp_path: Path
) -> None:
    root, options = board
    first = tmp_path / "first"
    before = (root / "current").resolve()
    done = deploy(local_transport(), first, None, options)
    assert not done.changed and done.release == before.name
    trust(local_transport(), "second", keys.public("second"), options=options)
    again = replace(options, sign=keys.private("second"))
    done = deploy(local_transport(), first, None, again)
    assert not done.changed and done.signer == "second"
    sign_artifact(first, keys.private("second"), 101)
    deploy(local_transport(), first, None, again)
    revoke(local_transport(), keys.public("ours"), again)  # signs nothing that is live
    said = {r["name"]: r["signed"] for r in status(local_transport(), options)["releases"]}
    live = said.pop(str(status(local_transport(), options)["live"]))
    assert live["by"] == live["artifact_by"] == "second"
    assert "revoked" in next(iter(said.values()))["fault"]


def test_an_older_list_an_expired_one_and_one_for_another_board_are_refused(
    board: Board, artifact: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, options = board
    now = int(time.time())

    def refused(folder: Path, says: str, **changes: Any) -> None:
        live = live_content(root)
        with pytest.raises(TatvprError, match=says):
            deploy(local_transport(), folder, None, replace(options, **changes))
        assert live_content(root) == live

    # A newer artifact under an older list: a list that was withheld, and sent late.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(now - 10 * DAY_S))
    refused(artifact("older", 300), f"serial {now - 10 * DAY_S}, older than the installed")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(now + 30 * DAY_S))
    refused(artifact("early", 300), "days in the future")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(now + 5))
    late = board_modules(root)
    place = [name for name, _ in late].index("tatvpr_edge.runtime.signature")
    late[place] = (
        late[place][0],
        late[place][1] + "\ntime.time = lambda real=time.time: real() + 86400 * 3\n",
    )
    refused(artifact("late", 300), "expired .* days ago", expires_days=1.0, modules=late)
    # What is installed goes on when it expires.
    deploy(local_transport(), artifact("kept", 300), None, replace(options, expires_days=1.0))
    assert status(local_transport(), replace(options, modules=late))["releases"][-1]["signed"]["by"]
    # The board insists on its own kind.
    mark_path(root).write_bytes(mark_text("raspberry-pi-5"))
    ours = artifact("host", 301)
    refused(ours, "accepts releases for raspberry-pi-5 only")
    mark_path(root).write_bytes(mark_text("host"))
    deploy(local_transport(), ours, None, options)


def test_what_is_signed_for_something_else_is_refused(
    board: Board, artifact: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, options = board
    folder = artifact("next", 200)
    live = live_content(root)
    from tatvpr_edge.deploy import push, release

    def signing(data: bytes, key: Any, namespace: str) -> bytes:
        return sign_bytes(data, key, "tatvpr-artifact")

    with monkeypatch.context() as patched:  # a host that signs for another purpose
        patched.setattr(release.signing, "sign_bytes", signing)
        with pytest.raises(SignatureError, match="signature refused"):
            push.deploy(local_transport(), folder, None, options)
    with pytest.raises(SignatureError, match="does not trust"):
        stranger = replace(options, sign=keys.private("stranger"))
        push.deploy(local_transport(), folder, None, stranger)
    # A key that an earlier version trusted for artifacts only says so, and is trusted again.
    lines = signers_path(root).read_text()
    signers_path(root).write_text(lines.replace(",tatvpr-release", ""))
    with pytest.raises(SignatureError, match="trust it again with `keys trust`"):
        push.deploy(local_transport(), folder, None, options)
    assert live_content(root) == live
    with pytest.raises(
        SignatureError, match="--force"
    ):  # not what is trusted is asked, but will be
        trust(local_transport(), "second", keys.public("second"), options=options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    assert signers_path(root).read_text() == lines
    push.deploy(local_transport(), folder, None, options)


def test_a_key_is_not_trusted_while_the_live_runtime_is_unsigned(
    tmp_path: Path, keys: Keys, artifact: Signed
) -> None:
    options = quick_options(tmp_path / "root", make_wheel(tmp_path))
    deploy(local_transport(), artifact("first"), None, options)
    with pytest.raises(SignatureError, match=r"would be refused from now on.*runtime and map"):
        trust(local_transport(), "ours", keys.public("ours"), options=options)
    assert status(local_transport(), options)["enforced"] is None
    assert status(local_transport(), options)["releases"][0]["signed"]["present"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"requires": ["thresholds"]},
        {"requires": None},
        {"serial": 0},
        {"serial": True},
        {"serial": 1.5},
        {"serial": 2**60},
        {"expires": -1},
        {"expires": "tomorrow"},
        {"board": "../x"},
        {"board": None},
        {"format": 3},
    ],
)
def test_a_list_that_this_reader_does_not_understand_is_refused(change: dict[str, Any]) -> None:
    good = {
        "format": 2,
        "label": "micro",
        "files": [["artifact/a", 1, "0" * 64, 0]],
        "serial": 5,
        "expires": None,
        "board": "host",
        "requires": [],
    }
    table = parse_table(good)
    assert parse_table(json.loads(table.text())) == table and table.stamp is not None
    assert replace(table, stamp=None).content == table.content
    with pytest.raises(DeployError):
        parse_table({**good, **change})
    with pytest.raises(DeployError):
        parse_table({key: value for key, value in good.items() if key not in change})


# ---- starting ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tiny_host: Path, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board that insists, with one real release: artifact, runtime and a map."""
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(tiny_host, folder / "artifact")
    sign_artifact(folder / "artifact", keys.private("ours"), serial=100)
    place_map = write_places(folder / "m.placemap", tiny_host, seed=1)
    options = quick_options(
        folder / "root", runtime="always", health_s=120.0, sign=keys.private("ours")
    )
    deploy(local_transport(), folder / "artifact", place_map, options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    return folder / "root"


def write_places(path: Path, artifact: Path, seed: int) -> Path:
    """A map of an artifact's model: three places, drawn by ``seed``."""
    model = read_artifact(artifact).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    rows = np.random.default_rng(seed).standard_normal((3, model.descriptor_size))
    places = make_places(info, [rows.astype(np.float32)], None, [f"{seed}.{i}" for i in range(3)])
    write_map(path, info, [places])
    return path


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("runtime/tatvpr_edge/runtime/search.py", "search.py is not what was sent"),
        ("python", "python is not what was sent"),
        ("artifact/manifest.sig", "does not trust|signature refused"),
        ("release.json", "does not trust|signature refused"),
        ("release.sig", "does not trust|signature refused"),
        ("an endless signature", "release.sig is larger than 65536 bytes"),
        ("no signature", "is unsigned"),
        ("no list", "release.json is missing"),
        ("a map", "map.placemap is not what was signed: its SHA-256 differs"),
        ("no map", "map.placemap is missing"),
        ("a file", "'notes.txt' is in the release and not in its list"),
        ("a module", "'runtime/numpy.py' is in the release and not in its list"),
        ("compiled", "'runtime/tatvpr_edge/__pycache__' is in the release and not in its list"),
    ],
)
def test_localizer_starts_nothing_that_is_not_in_the_signed_list(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, says: str
) -> None:
    root = tmp_path / "root"
    shutil.copytree(template, root, symlinks=True)
    monkeypatch.setenv(deployed.ROOT_VARIABLE, str(root))
    release = (root / "current").resolve()
    with Localizer() as localizer:
        assert localizer.artifact.root == release / "artifact"
    held = len(os.listdir("/proc/self/fd"))
    if what == "an endless signature":
        signature = release / "release.sig"
        signature.write_bytes(signature.read_bytes().ljust(65537, b"\n"))
    elif what == "no signature":
        (release / "release.sig").unlink()
    elif what == "no list":
        (release / "release.json").unlink()
    elif what == "a map":  # a good one that nobody signed
        write_places(release / "map.placemap", release / "artifact", seed=2)
    elif what == "no map":
        (release / "map.placemap").unlink()
    elif what == "a file":
        (release / "notes.txt").write_bytes(b"unsigned")
    elif what == "a module":
        (release / "runtime" / "numpy.py").write_text("print('unsigned')\n")
    elif what == "compiled":
        (release / "runtime" / "tatvpr_edge" / "__pycache__").mkdir()
    else:
        data = bytearray((release / what).read_bytes())
        data[len(data) // 2] ^= 1
        (release / what).write_bytes(data)
    with pytest.raises(TatvprError, match=says):
        Localizer()
    assert len(os.listdir("/proc/self/fd")) == held
    assert main_serves(root) == 1


def test_a_signed_map_that_is_exchanged_while_or_after_it_is_opened_is_not_searched(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(template, root, symlinks=True)
    monkeypatch.setenv(deployed.ROOT_VARIABLE, str(root))
    release = (root / "current").resolve()
    path, other = release / "map.placemap", tmp_path / "other.placemap"
    write_places(other, release / "artifact", seed=2)
    frame = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    with Localizer() as localizer:
        assert localizer.map is not None
        before = localizer.query(frame)
        path.write_bytes(other.read_bytes())  # the same file, other bytes
        after = localizer.query(frame)
        assert before.tag.startswith("1.")
        assert (before.tag, before.score) == (after.tag, after.score)
    shutil.copy(template / "releases" / release.name / "map.placemap", path)
    checked = whole.check_files

    def and_then_exchanged(*given: Any, **options: Any) -> None:
        checked(*given, **options)
        shutil.copy(other, path)

    monkeypatch.setattr(whole, "check_files", and_then_exchanged)
    with pytest.raises(TatvprError, match=r"map\.placemap is not what was signed"):
        Localizer()


def main_serves(root: Path) -> int:
    """The exit status of ``serve``."""
    from tatvpr_edge.runtime.__main__ import main as board_main

    return board_main(["serve", "--root", str(root)])

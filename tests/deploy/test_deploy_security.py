"""What is malicious, altered or merely strange: refused or handled, and nothing of it is run."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.board import Sshd, live_content, local_transport, make_artifact, quick_options
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.health import seconds
from tatvpr_edge.deploy.push import Options, deploy, status
from tatvpr_edge.deploy.session import Session, agent_modules
from tatvpr_edge.runtime.table import Row, Table, make_table, parse_table
from tatvpr_edge.spec.errors import (
    ArtifactError,
    DeployError,
    SignatureError,
    TatvprError,
    UsageError,
)
from tatvpr_edge.spec.text import printable

HOSTILE = [
    "two words",
    "quote's \" ` back\\slash",
    "$(touch PWNED)",
    "; touch PWNED #",
    "a\nb\ntouch PWNED",
    "&& touch PWNED |",
    "-rf",
    "~root",
    "*?[a-z]",
    "%n%s",
    "ünïcödé ☃",
]


@pytest.fixture(autouse=True)
def nothing_is_run(ram_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test of this file may leave a file PWNED where it would appear."""
    monkeypatch.chdir(ram_path)
    yield
    for folder in (ram_path, Path.home(), Path("/")):
        assert not list(folder.glob("*PWNED*")) or folder == ram_path
    assert not (ram_path / "PWNED").exists()


# ---- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [HOSTILE[:5], HOSTILE[5:]])
def test_strange_paths_on_both_ends_are_just_paths(
    ram_path: Path, sshd: Sshd, wheel: Path, names: list[str]
) -> None:
    here = ram_path.joinpath(*names)
    here.mkdir(parents=True)
    artifact = make_artifact(here / names[0])
    own = here / (names[-1] + ".whl")
    shutil.copy(wheel, own)
    root = here / names[1]
    options = quick_options(root, own)
    deploy(sshd.transport(), here / names[0], None, options)
    assert live_content(root) == artifact.manifest.model.hash
    assert status(sshd.transport(), options)["root"] == printable(root)


def test_strange_words_where_a_name_is_wanted_are_refused(ram_path: Path, wheel: Path) -> None:
    options = quick_options(ram_path / "root", wheel)
    deploy(local_transport(), make_artifact(ram_path / "a"), None, options)
    with Session(local_transport(), options.python) as session:
        session.hello(options.root)
        for name in HOSTILE:
            with pytest.raises(DeployError, match="is not installed"):
                session.ask({"op": "rollback", "to": name})
            with pytest.raises(SignatureError, match="is no name of a key"):
                session.ask({"op": "trust", "name": name, "key": "ssh-ed25519 AAAA"})
            for request in (
                {"op": "revoke", "key": name},
                {"op": "trust", "name": "a", "key": name},
            ):
                with pytest.raises(SignatureError, match="not an OpenSSH public key"):
                    session.ask(request)
    for name in HOSTILE:
        with pytest.raises(TatvprError):
            deploy(local_transport(), ram_path / name, None, options)
        for python in ("'" + name, shlex.quote(name)):
            with pytest.raises(DeployError):
                status(local_transport(), replace(options, python=python))
    for python in ("venv/bin/python3", "'~/venv/bin/python3' -X utf8"):
        with pytest.raises(DeployError, match="give its whole path on the board"):
            status(local_transport(), replace(options, python=python))


BAD_PATHS = [
    "../x",
    "/etc/cron.d/x",
    "artifact/../../x",
    "artifact//x",
    "artifact/./x",
    "artifact/x/",
    "",
    ".",
    "releases/x",
    "lock",
    "artifact/.hidden",
    "artifact/-rf",
    "artifact/a b",
    "artifact/a\x00b",
    "artifact/a\nb",
    "artifact/" + "a" * 200,
    "artifact",
    "map.placemap/x",
    "python/x",
    7,
    None,
]


def test_paths_that_climb_are_refused_by_the_board(ram_path: Path) -> None:
    with Session(local_transport(), shlex.quote(sys.executable)) as session:
        session.hello(str(ram_path / "root"))
        for path in BAD_PATHS:
            table = {"format": 1, "label": "micro", "files": [[path, 1, "0" * 64, 0]]}
            with pytest.raises(DeployError):
                session.ask({"op": "begin", "table": table})
        assert session.ask({"op": "status"})["live"] is None
    assert not (ram_path / "root").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"label": "../x"},
        {"label": "-x"},
        {"label": "a/b"},
        {"label": None},
        {"files": [["artifact/a", -1, "0" * 64, 0]]},
        {"files": [["artifact/a", True, "0" * 64, 0]]},
        {"files": [["artifact/a", 1, "0" * 63, 0]]},
        {"files": [["artifact/a", 1, "0" * 64, 0]] * 2},
        {"files": [["artifact/a", 1, "0" * 64, 0], ["artifact/a/b", 1, "0" * 64, 0]]},
        {"files": "x"},
        {"files": [["artifact/a"]]},
        {"format": 2},
    ],
)
def test_malformed_tables_are_refused(change: dict[str, Any]) -> None:
    good = {"format": 1, "label": "micro", "files": [["artifact/a", 1, "0" * 64, 0]]}
    parse_table(good)
    with pytest.raises(DeployError):
        parse_table({**good, **change})


def test_malformed_requests_are_refused_and_the_agent_lives(ram_path: Path) -> None:
    table = {"format": 1, "label": "micro", "files": [["artifact/a", 5, "0" * 64, 0]]}
    with Session(local_transport(), shlex.quote(sys.executable)) as session:
        session.hello(str(ram_path / "root"))
        for request in (
            {"op": "hello", "root": "a\0b"},
            {"op": "hello", "root": 7},
            {"op": "commit"},
            {"op": "launch"},
            {"op": ["hello"]},
        ):
            with pytest.raises(DeployError):
                session.ask(request)
        session.ask({"op": "begin", "table": table})
        for index in (None, 1, -1, "x", [0]):
            with pytest.raises(DeployError):
                session.ask({"op": "drop", "index": index})
        with pytest.raises(DeployError, match="artifact/a"):
            session.ask({"op": "commit"})
        session.tell({"op": "file", "index": 0, "offset": 6})
        with pytest.raises(DeployError):
            session.ask({"op": "status"})


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), -1.0, 1e6, 2**70, "3", None, True])
def test_a_step_that_may_take_for_ever_is_refused_on_both_ends(odd: Any) -> None:
    """It would hold the board's lock as long, also where the host went away."""
    for name in ("golden_s", "finish_s", "health_s", "settle_s"):
        with pytest.raises(UsageError, match=f"{name} is"):
            Options(**{name: odd})
        with pytest.raises(DeployError, match=f"{name} is"):
            seconds({name: odd}, name, 3.0)
        assert seconds({}, name, 3.0) == 3.0 == seconds({name: 3}, name, 1.0)


def test_a_watch_for_ever_is_told_before_anything_is_sent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["deploy", str(tmp_path / "A"), "local:", "--root", str(tmp_path / "root")]
    for odd in ("1e400", "nan", "1e9"):
        assert main([*words, "--watch-seconds", odd]) == 1
        assert "settle_s is" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=20,
    )
)
def test_any_json_is_a_table_or_refused(document: Any) -> None:
    with contextlib.suppress(DeployError):
        assert isinstance(parse_table(document), Table)


def test_a_releases_name_holds_all_its_content() -> None:
    rows = [Row("artifact/a", 1, "0" * 64), Row("artifact/b", 2, "1" * 64)]
    names = {
        make_table("m", rows).name,
        make_table("m", [rows[0]]).name,
        make_table("m", [replace(rows[0], bytes=2), rows[1]]).name,
        make_table("m", [replace(rows[0], sha256="2" * 64), rows[1]]).name,
        make_table("m", [replace(rows[0], executable=True), rows[1]]).name,
        make_table("n", rows).name,
    }
    assert len(names) == 6
    assert make_table("m", rows[::-1]).name == make_table("m", rows).name


# ---- planted things ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["releases", "staging", "trash", "trust", "root"])
def test_a_link_in_place_of_a_folder_of_the_root_is_refused(
    ram_path: Path, wheel: Path, what: str
) -> None:
    outside = ram_path / "outside"
    outside.mkdir()
    root = ram_path / "root"
    options = quick_options(root, wheel)
    artifact = make_artifact(ram_path / "a")
    if what == "root":
        # The user's own choice of a place: followed, once.
        root.symlink_to(outside)
        deploy(local_transport(), artifact, None, options)
        assert live_content(root) == artifact.manifest.model.hash
        return
    root.mkdir()
    (root / what).symlink_to(outside)
    with pytest.raises(DeployError, match="is not a folder: move it away"):
        deploy(local_transport(), artifact, None, options)
    assert not list(outside.iterdir())


def test_a_root_that_no_search_path_can_name_is_refused(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "a:b" / "root"
    with pytest.raises(DeployError, match=r"a:b/root on the board holds a ':'.*another --root"):
        deploy(local_transport(), make_artifact(ram_path / "a"), None, quick_options(root, wheel))
    assert not root.parent.exists()


def test_links_planted_in_a_half_assembled_release_are_removed(ram_path: Path, wheel: Path) -> None:
    artifact = make_artifact(ram_path / "a")
    first = quick_options(ram_path / "first", wheel)
    name = deploy(local_transport(), artifact, None, first).release
    secret = ram_path / "secret"
    secret.mkdir()
    (secret / "weights.bin").write_bytes(b"mine")
    for planted in ("tree", "parts", "tree/artifact", "tree/artifact/weights.bin", "hard"):
        root = ram_path / ("root-" + planted.replace("/", "-"))
        staged = root / "staging" / name
        staged.mkdir(parents=True)
        if planted == "hard":
            (staged / "tree" / "artifact").mkdir(parents=True)
            os.link(secret / "weights.bin", staged / "tree" / "artifact" / "weights.bin")
        else:
            (staged / planted).parent.mkdir(parents=True, exist_ok=True)
            target = secret / "weights.bin" if planted.endswith(".bin") else secret
            (staged / planted).symlink_to(target)
        done = deploy(local_transport(), artifact, None, quick_options(root, wheel))
        assert live_content(root) == artifact.manifest.model.hash
        assert any("was removed" in text for text in done.warnings), planted
        assert os.listdir(secret) == ["weights.bin"]
        assert (secret / "weights.bin").read_bytes() == b"mine"


def test_a_root_that_others_may_write_is_refused(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "root"
    root.mkdir()
    artifact, options = make_artifact(ram_path / "a"), quick_options(root, wheel)
    for mode in (0o777, 0o775, 0o757):
        root.chmod(mode)
        with pytest.raises(DeployError, match="can be written by other users"):
            deploy(local_transport(), artifact, None, options)
    root.chmod(0o755)
    # Whoever may rename in the folder above may put another root there; a sticky one is fine.
    ram_path.chmod(0o777)
    with pytest.raises(DeployError, match="can be written by every user"):
        deploy(local_transport(), artifact, None, options)
    ram_path.chmod(0o1777)
    deploy(local_transport(), artifact, None, options)
    assert (root / "lock").stat().st_mode & 0o777 == 0o600


# ---- altered content ---------------------------------------------------------------------------


def test_one_altered_byte_in_any_file_is_refused_before_sending(
    ram_path: Path, wheel: Path
) -> None:
    artifact = make_artifact(ram_path / "a")
    options = quick_options(ram_path / "root", wheel)
    for entry in artifact.manifest.files:
        path = ram_path / "a" / entry.path
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ArtifactError):
            deploy(local_transport(), ram_path / "a", None, options)
        path.write_bytes(data)
    assert not (ram_path / "root").exists()


def test_one_altered_byte_in_any_file_on_its_way_is_refused_by_the_board(
    ram_path: Path, wheel: Path, faults: Any
) -> None:
    artifact = make_artifact(ram_path / "a")
    root = ram_path / "root"
    options = quick_options(root, wheel)
    for entry in artifact.manifest.files:
        modules = agent_modules()
        flip = (
            "\ndef _flip(self, index, offset, chunks, real=Assembly.receive):\n"
            f"    if self.table.rows[index].path == 'artifact/{entry.path}':\n"
            "        chunks = (bytes([c[0] ^ 1]) + c[1:] for c in chunks)\n"
            "    real(self, index, offset, chunks)\n"
            "Assembly.receive = _flip\n"
        )
        place = [name for name, _ in modules].index("tatvpr_edge.deploy.assembly")
        modules[place] = (modules[place][0], modules[place][1] + flip)
        shutil.rmtree(root, ignore_errors=True)
        with pytest.raises(DeployError, match=f"artifact/{entry.path} is not what was sent"):
            deploy(local_transport(), artifact, None, replace(options, modules=modules))
        faults.check(root, {None}, entry.path)
    # What arrived whole is kept, and only the altered file is sent again.
    done = deploy(local_transport(), artifact, None, options)
    assert live_content(root) == artifact.manifest.model.hash
    assert done.reused_bytes > 0


def test_one_altered_byte_in_any_installed_file_is_found(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "root"
    options = quick_options(root, wheel)
    name = deploy(local_transport(), make_artifact(ram_path / "a"), None, options).release
    deploy(local_transport(), make_artifact(ram_path / "b", b"b"), None, options)
    release = root / "releases" / name
    files = [path for path in release.rglob("*") if path.is_file()]
    assert len(files) > 8
    with Session(local_transport(), shlex.quote(sys.executable)) as session:
        session.hello(str(root))
        for path in files:
            data = path.read_bytes()
            if not data:
                continue
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            found = session.ask({"op": "status", "check": True})["releases"]
            assert next(r for r in found if r["name"] == name)["fault"], path
            with pytest.raises(DeployError, match="damaged"):
                session.ask({"op": "rollback", "to": name, "settle_s": 0})
            path.write_bytes(data)
        assert session.ask({"op": "rollback", "to": name, "settle_s": 0})["changed"]

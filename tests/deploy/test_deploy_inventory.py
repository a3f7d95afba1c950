"""Many boards from one file: the canary first, and none is begun after a failure."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    Sshd,
    board_modules,
    inventory,
    live_content,
    local_transport,
    make_artifact,
    quick_options,
)
from support.board_maps import places
from support.interrupts import heeded
from support.tools import require_tool
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.inventory import deploy_all, read_inventory
from tatvpr_edge.deploy.naming import lead
from tatvpr_edge.deploy.push import Options, deploy
from tatvpr_edge.deploy.release import open_artifact
from tatvpr_edge.deploy.session import Session
from tatvpr_edge.runtime import signature
from tatvpr_edge.runtime.mapjournal import append, read_map
from tatvpr_edge.spec.errors import DeployError


@pytest.mark.slow
def test_an_inventory_is_deployed_canary_first(ram_path: Path, wheel: Path) -> None:
    begun = []
    options = quick_options(None or ram_path / "unused", wheel)
    outcomes = list(
        deploy_all(
            read_inventory(inventory(ram_path, wheel)),
            None,
            None,
            options,
            None,
            4,
            lambda board: begun.append(Path(str(board.root)).name),
        )
    )
    assert begun[0] == "two" and sorted(begun) == ["five", "four", "one", "three", "two"]
    assert all(outcome.result is not None for outcome in outcomes)
    assert all(live_content(ram_path / name) for name in begun)


def test_a_canary_that_fails_keeps_all_others_as_they_were(ram_path: Path, wheel: Path) -> None:
    options = quick_options(ram_path / "unused", wheel)
    boards = read_inventory(inventory(ram_path, wheel, bad="two"))
    outcomes = list(deploy_all(boards, None, None, options))
    assert outcomes[0].error is not None and "went back" in outcomes[0].error
    assert all(outcome.result is None and outcome.error is None for outcome in outcomes[1:])
    assert [p.name for p in ram_path.iterdir() if (p / "releases").exists()] == ["two"]


def test_a_map_that_grows_after_it_was_checked_leaves_no_places_behind(
    ram_path: Path, wheel: Path, hall: Any
) -> None:
    """Boards were sent its file alone, without the places that lay beside it by then."""
    boards = read_inventory(inventory(ram_path, wheel))
    place_map = hall(open_artifact(ram_path / "good", None))

    def grows(_: object) -> None:
        append(place_map, places(read_map(place_map).base.info, 2))

    options = quick_options(ram_path / "unused", wheel)
    outcomes = list(deploy_all(boards, None, place_map, options, on_begin=grows))
    assert outcomes[0].error is not None and "places in its journal (2)" in outcomes[0].error
    assert not any((ram_path / "two" / name).exists() for name in ("current", "releases"))


def test_no_new_board_is_begun_after_a_failure(ram_path: Path, wheel: Path) -> None:
    options = quick_options(ram_path / "unused", wheel)
    boards = read_inventory(inventory(ram_path, wheel, bad="three"))
    outcomes = list(deploy_all(boards, None, None, options, parallel=1))
    states = {
        Path(str(o.board.root)).name: "done" if o.result else ("failed" if o.error else "not begun")
        for o in outcomes
    }
    assert states == {
        "two": "done",
        "one": "done",
        "three": "failed",
        "four": "not begun",
        "five": "not begun",
    }


def fleet(folder: Path, wheel: Path, *boards: str) -> dict[str, str]:
    """What becomes of boards: "off" answers no ssh, "bare" has no Python, "bad" takes what does not
    work, "*" before a name makes it a canary."""
    require_tool("ssh", "openssh-client")
    if not (folder / "good").exists():
        inventory(folder, wheel)
    lines = ['artifact = "good"']
    for name in boards:
        kind = name.lstrip("*")
        off = kind.startswith("off")
        lines += ["[[board]]", 'host = "127.0.0.1"\nport = 1' if off else 'host = "local:"']
        lines += [f'root = "{folder}/boards/{kind}"', f"canary = {str(name != kind).lower()}"]
        lines += ['python = "no-such-python"'] * (kind == "bare")
        lines += ['artifact = "bad"'] * (kind == "bad")
    (folder / "boards.toml").write_text("\n".join(lines))
    options = quick_options(folder / "unused", wheel)
    outcomes = deploy_all(read_inventory(folder / "boards.toml"), None, None, options, parallel=1)
    return {
        Path(str(o.board.root)).name: "has it" if o.result else (o.error or "not begun")
        for o in outcomes
    }


def test_a_board_that_is_off_is_told_and_stops_no_other(ram_path: Path, wheel: Path) -> None:
    """One robot that was off or had no Python kept all that stood after it as they were."""
    ends = fleet(ram_path, wheel, "*one", "off", "bare", "two", "bad", "last")
    assert "cannot connect" in ends["off"] and "no no-such-python" in ends["bare"]
    assert ends["one"] == ends["two"] == "has it"
    assert "went back" in ends["bad"] and ends["last"] == "not begun"


def test_without_a_canary_the_first_board_that_takes_it_is_it(ram_path: Path, wheel: Path) -> None:
    """Where the first one was off, none was begun."""
    ends = fleet(ram_path, wheel, "off", "one", "two")
    assert "cannot connect" in ends.pop("off") and set(ends.values()) == {"has it"}
    ends = fleet(ram_path, wheel, "off", "bad", "two")
    assert "went back" in ends["bad"] and ends["two"] == "not begun"


def test_the_others_wait_for_a_canary_that_was_named(ram_path: Path, wheel: Path) -> None:
    ends = fleet(ram_path, wheel, "one", "*off", "two")
    assert ends["one"] == ends["two"] == "not begun"
    ends = fleet(ram_path, wheel, "one", "*off", "*two")
    assert ends["one"] == ends["two"] == "has it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no boards"),
        ("[[board]]\n", "has no host"),
        ('[[board]]\nhost = "a"\nports = 3', "'ports' is unknown"),
        ('[[board]]\nhost = "a"\nport = "22"', "'port' is unknown or wrong"),
        ('[[board]]\nhost = "a"\n[[board]]\nhost = "a"', "listed twice"),
        ("artefact = 3\n[[board]]\nhost = 'a'", "unknown key 'artefact'"),
        ("[[board]", "not valid TOML"),
        ("board = [1, 2]", "has no host"),
        ('board = ["robot@jetson-1"]', "has no host"),
        ("board = [[]]", "has no host"),
        ('[[board]]\nhost = "a"\nport = 0', "port is 0: 1 to 65535"),
        ('[[board]]\nhost = "a"\nport = 99999999999999999999', "1 to 65535"),
        ('port = 70000\n[[board]]\nhost = "a"', "1 to 65535"),
        ('[[board]]\nhost = "a"\nroot = "/a\\u0000b"', "no root can be called so"),
        ('[[board]]\nhost = "a"\nroot = ""', "no root can be called so"),
        ('[[board]]\nhost = "a"\npython = "a\\u0000b"', "no python can be called so"),
        ('[[board]]\nhost = "a"\nartifact = "a\\u0000b"', "no artifact can be called so"),
        ('map = "a\\u0000b"\n[[board]]\nhost = "a"', "no map can be called so"),
    ],
)
def test_a_wrong_inventory_is_refused_by_name(ram_path: Path, text: str, says: str) -> None:
    path = ram_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(DeployError, match=says):
        read_inventory(path)


def test_a_line_about_a_board_begins_with_its_name_and_one_colon(
    ram_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [lead(name) for name in ("local:", "robot@jetson-1", "fd00::")] == [
        *("local:", "robot@jetson-1:", "fd00:::")
    ]
    there = ["local:", "--root", str(ram_path / "root")]
    assert main(["status", *there]) == 0
    assert capsys.readouterr().out.startswith("local: nothing is live below ")
    assert main(["rollback", *there]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: local: ")
    assert main(["status", *there, "--python", "no-such-python"]) == 1
    assert "error: local: no no-such-python on the board" in capsys.readouterr().err
    path = ram_path / "boards.toml"
    path.write_text('[[board]]\nhost = "local:"\ncolour = "red"\n')
    with pytest.raises(DeployError, match="board local: 'colour' is unknown or wrong"):
        read_inventory(path)
    path.write_text('[[board]]\nhost = "local:"\n')
    with pytest.raises(DeployError, match="no artifact for local: name one"):
        list(deploy_all(read_inventory(path), None, None, Options()))


def fleet_words(path: Path, wheel: Path) -> list[str]:
    """Deploys the boards of an inventory, one at a time."""
    quick = ["--wheel", str(wheel), "--watch-seconds", "0", "--parallel", "1"]
    return ["deploy", "--inventory", str(path), "--python", shlex.quote(sys.executable), *quick]


def test_an_interrupted_fleet_says_which_boards_have_it(
    ram_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waited for what had begun and said nothing of it; with --json it said nothing at all."""
    ctrl_c = ram_path / "ctrl-c"
    ctrl_c.write_text(f"#!/bin/sh\nkill -INT {os.getpid()}\n")
    ctrl_c.chmod(0o755)
    path = inventory(ram_path, wheel, bad="three")
    shutil.rmtree(ram_path / "bad")
    make_artifact(ram_path / "bad", b"bad", f"verify={ctrl_c}")  # as its golden vectors run
    with heeded():
        assert main([*fleet_words(path, wheel), "--json"]) == 130
        told = json.loads(capsys.readouterr().out)
        for name in ("one", "two", "three"):
            shutil.rmtree(ram_path / name)
        assert main(fleet_words(path, wheel)) == 130
    said = capsys.readouterr()
    ends = {one["board"].rpartition("/")[2]: one["result"] is not None for one in told}
    assert ends == {"two": True, "one": True, "three": True, "four": False, "five": False}
    assert [one["error"] for one in told] == [None] * 5
    assert said.out.count(" is live") == 3 and said.out.count(" not begun") == 2
    assert "3 of 5 boards have it; mend what failed" in said.err
    assert f"no further board is begun; waiting for local: --root {ram_path}/three (" in said.err
    assert all(live_content(ram_path / name) for name in ("one", "two", "three"))


@pytest.mark.parametrize("canary", [True, False])
def test_ctrl_c_at_a_terminal_waits_for_the_boards_in_progress(
    ram_path: Path, wheel: Path, sshd: Sshd, canary: bool
) -> None:
    """It went to their ssh, too, which ended; and a canary was not waited for at all."""
    ctrl_c, pid = ram_path / "ctrl-c", ram_path / "pid"
    ctrl_c.write_text(f"#!/bin/sh\nkill -INT -$(cat {pid})\n")
    ctrl_c.chmod(0o755)
    os.mkfifo(pid)
    make_artifact(ram_path / "good", b"good")
    make_artifact(ram_path / "slow", b"slow", f"verify={ctrl_c}")  # as its golden vectors run
    lines = []
    for name, slow in (("one", canary), ("two", not canary), ("three", False)):
        lines += [
            "[[board]]",
            f'host = "127.0.0.1"\nport = {sshd.port}',
            f'artifact = "{"slow" if slow else "good"}"',
        ]
        lines += [f'root = "{ram_path}/{name}"', f"canary = {str(name == 'one').lower()}"]
    (ram_path / "boards.toml").write_text("\n".join(lines))
    words = fleet_words(ram_path / "boards.toml", wheel)
    host = subprocess.Popen(
        [sys.executable, "-m", "tatvpr_edge", *words, "--ssh-config", str(sshd.config)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    pid.write_text(str(host.pid))
    said = host.communicate()[0]
    assert host.returncode == 130
    assert said.count(" is live") == (1 if canary else 2), said
    assert said.count(" not begun") == (2 if canary else 1), said


def test_boards_of_one_address_are_told_apart(
    ram_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind one router each had the same name in the report."""
    path = ram_path / "boards.toml"
    text = '[[board]]\nhost = "robot@gate"\nport = 2201\n[[board]]\nhost = "robot@gate"\n'
    path.write_text(text + 'port = 2202\nroot = "/data/my robot"\n[[board]]\nhost = "robot@a"\n')
    names = [board.name for board in read_inventory(path)]
    there = "robot@gate --port 2202 --root '/data/my robot'"
    assert names == ["robot@gate --port 2201", there, "robot@a"]
    assert main([*fleet_words(inventory(ram_path, wheel, bad="one"), wheel), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert len({one["board"] for one in told}) == 5
    assert told[0]["result"]["board"] == told[0]["board"] == f"local: --root {ram_path}/two"
    assert told[1]["board"] == f"local: --root {ram_path}/one" and "went back" in told[1]["error"]


def test_a_fleet_asks_for_a_passphrase_one_board_at_a_time(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many boards as are served at a time asked on one terminal, all at once."""
    require_tool("ssh-keygen", "openssh-client")
    key, asks, log = ram_path / "key", ram_path / "asks", ram_path / "log"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True)
    asks.write_text(
        f"#!/bin/sh\nmkdir {log}.now || echo at once >> {log}\nsleep .2\nrmdir {log}.now\n"
        f"echo asked >> {log}\necho secret\n"
    )
    asks.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(asks))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    options = quick_options(ram_path / "unused", wheel, sign=key)
    boards = read_inventory(inventory(ram_path, wheel))
    outcomes = list(deploy_all(boards, None, None, options))
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert log.read_text().splitlines() == ["asked"] * 5


def test_a_board_waits_for_who_is_away_from_a_passphrase(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended after five minutes, as for a host that is gone, though nobody waits for its lock
    yet; and ssh-keygen itself after one."""
    monkeypatch.setattr(signature, "_SECONDS", 0.001)
    require_tool("ssh-keygen", "openssh-client")
    key, asks = ram_path / "key", ram_path / "asks"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True)
    asks.write_text("#!/bin/sh\nsleep 1\necho secret\n")
    asks.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(asks))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    root = ram_path / "root"
    modules = [
        (name, text + "\nLOCKED_S = 0.2\n" * name.endswith(".channel"))
        for name, text in board_modules(root)
    ]
    options = quick_options(root, wheel, sign=key, modules=modules)
    deploy(local_transport(), make_artifact(ram_path / "a"), None, options)
    assert live_content(root)
    with Session(local_transport(), options.python, modules=modules) as session:
        session.hello(str(root))
        with pytest.raises(DeployError, match="no earlier release"):
            session.ask({"op": "rollback", "who": "me"})  # it holds the lock from now on
        assert session._link.process.wait(60) == 0

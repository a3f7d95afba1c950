"""Whatever is found on a board, and whatever the new release does: what is live stays whole, and
the next deploy succeeds."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import threading
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
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.health import Health
from tatvpr_edge.deploy.push import deploy, rollback, status
from tatvpr_edge.deploy.session import agent_modules
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.spec.errors import DeployError

# ---- what is at current ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "file", "elsewhere"])
def test_current_that_no_deploy_made_is_left_alone(
    pair: Any, fresh: Any, tmp_path: Path, what: str
) -> None:
    root, options = fresh()
    current = root / "current"
    live = current.resolve()
    current.unlink()
    if what == "folder":
        current.mkdir()
        (current / "mine").write_text("precious")
    elif what == "file":
        current.write_text("precious")
    else:
        (tmp_path / "other").mkdir()
        current.symlink_to(tmp_path / "other")
    with pytest.raises(DeployError, match=r"current on the board .*(move it away|remove the link)"):
        deploy(local_transport(), pair[1], None, options)
    if what == "folder":
        assert (current / "mine").read_text() == "precious"
        shutil.rmtree(current)
    else:
        assert what == "elsewhere" or current.read_text() == "precious"
        current.unlink()
    current.symlink_to(Path("releases") / live.name)
    deploy(local_transport(), pair[1], None, options)
    assert live_content(root) == hash_of(pair[1])


@pytest.mark.parametrize("target", ["releases/gone", "current", "/nowhere/at/all", "current.next"])
def test_current_that_leads_nowhere_is_replaced(
    pair: Any, fresh: Any, faults: Any, target: str
) -> None:
    root, options = fresh()
    (root / "current").unlink()
    (root / "current").symlink_to(target)
    if target == "current.next":
        (root / "current.next").symlink_to("current")
    result = deploy(local_transport(), pair[1], None, options)
    assert ["led nowhere" in text for text in result.warnings] == [True]  # once
    faults.check(root, {hash_of(pair[1])}, target)


@pytest.mark.parametrize(
    "damage",
    ["weights", "list", "extra file", "link", "state", "state, a pipe", "state, without end"],
)
def test_a_damaged_release_is_sent_again_and_damaged_state_is_healed(
    pair: Any, fresh: Any, faults: Any, damage: str
) -> None:
    root, options = fresh()
    live = (root / "current").resolve()
    if damage == "weights":
        data = bytearray((live / "artifact/weights.bin").read_bytes())
        data[100] ^= 1
        (live / "artifact/weights.bin").write_bytes(data)
    elif damage == "list":
        (live / "release.json").write_text("{}")
    elif damage == "extra file":
        (live / "artifact/more.bin").write_bytes(b"more")
    elif damage == "link":
        (live / "artifact/weights.bin").unlink()
        (live / "artifact/weights.bin").symlink_to("/etc/passwd")
    elif damage == "state, a pipe":
        (root / "state.json").unlink()
        os.mkfifo(root / "state.json")
    elif damage == "state, without end":
        (root / "state.json").unlink()
        (root / "state.json").symlink_to("/dev/zero")
    else:
        (root / "state.json").write_text(
            '{"history": [1, 2], "pending": "x", "floor": "y", "failed": "z"}'
        )
    result = deploy(local_transport(), pair[0], None, options)
    faults.check(root, {hash_of(pair[0])}, damage)
    assert any("damaged" in text for text in result.warnings) or damage == "list"
    assert result.changed == (not damage.startswith("state"))
    deploy(local_transport(), pair[1], None, options)
    assert live_content(root) == hash_of(pair[1])


def test_the_release_before_is_known_by_its_date_where_the_state_is_lost(
    ram_path: Path, wheel: Path
) -> None:
    root = ram_path / "root"
    options = quick_options(root, wheel)
    for content in (b"a", b"b", b"c"):
        artifact = make_artifact(ram_path / content.decode(), content)
        assert not deploy(local_transport(), artifact, None, options).warnings
    live = (root / "current").resolve()
    others = sorted(set((root / "releases").iterdir()) - {live}, reverse=True)
    for date, release in enumerate([*others, live]):  # the first by name came last
        os.utime(release, (date, date))
    (root / "state.json").unlink()
    assert rollback(local_transport(), None, options).release == others[-1].name


@pytest.mark.parametrize("lost", [False, True])
def test_a_copy_that_somebody_made_beside_the_releases_is_let_be(
    pair: Any, fresh: Any, faults: Any, lost: bool
) -> None:
    """Every command on that board ended in "is no name of a release: see `tatvpr-edge status`"."""
    root, options = fresh()
    first = (root / "current").resolve()
    mine = {first.with_name(name) for name in (f"{first.name} (copy)", f"{first.name}~", ".old")}
    for copy in mine:
        shutil.copytree(first, copy)
    if lost:
        (root / "state.json").unlink()
    assert [r["name"] for r in status(local_transport(), options)["releases"]] == [first.name]
    deploy(local_transport(), pair[1], None, replace(options, keep=2))
    rollback(local_transport(), None, options)
    faults.check(root, {hash_of(pair[0])}, "copies")
    assert all((copy / "release.json").is_file() for copy in mine)


def nest(folder: Path, name: str, times: int) -> None:
    """Folders in folders, deeper than a path may be long."""
    inside = os.open(folder, os.O_DIRECTORY)
    for _ in range(times):
        os.mkdir(name, dir_fd=inside)
        below = os.open(name, os.O_DIRECTORY, dir_fd=inside)
        os.close(inside)
        inside = below
    os.close(inside)


@pytest.mark.parametrize(("name", "times"), [("d", 3000), ("d" * 250, 40)])
def test_folders_deeper_than_a_path_may_be_long_stop_no_deploy(
    pair: Any, fresh: Any, faults: Any, name: str, times: int
) -> None:
    root, options = fresh()
    live = (root / "current").resolve()
    nest(live / "artifact", name, times)
    nest(root / "staging", name, times)
    result = deploy(local_transport(), pair[0], None, options)
    faults.check(root, {hash_of(pair[0])}, "deep")
    assert any("damaged" in text for text in result.warnings)
    deploy(local_transport(), pair[1], None, replace(options, keep=2))
    assert not live.exists() and os.listdir(root / "trash") == os.listdir(root / "staging") == []
    rollback(local_transport(), None, options)
    assert live_content(root) == hash_of(pair[0])


# ---- health ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("golden-fails", "golden vectors at k = 0.2 differ"),
        ("golden-crashes", "ended by signal 11"),
        ("golden-hangs", "took more than 0.5 s"),
        ("no-service", "the library does not load"),
        ("service-hangs", "did not answer in time"),
        ("service-wrong", "descriptors differ"),
        ("service-dies", "ended by signal 9"),
        ("service-fat", "MB of memory; its artifact states"),
        ("service-leaks", "leaks descriptors"),
        ("service-opens-3", "leaks descriptors: 5 open, then 8"),
    ],
)
def test_a_release_that_does_not_work_goes_back_by_itself_and_says_why(
    ram_path: Path, pair: Any, fresh: Any, faults: Any, behaviour: str, says: str
) -> None:
    root, options = fresh()
    # Only what hangs has a short limit: a busy machine is no fault of the others.
    golden_s = 0.5 if behaviour == "golden-hangs" else 60.0
    health_s = 0.5 if behaviour == "service-hangs" else 60.0
    options = replace(options, golden_s=golden_s, health_s=health_s, settle_s=0.1)
    bad = make_artifact(ram_path / "bad", b"bad", behaviour)
    with pytest.raises(DeployError, match=says) as caught:
        deploy(local_transport(), bad, None, options)
    faults.check(root, {hash_of(pair[0])}, behaviour)
    if not behaviour.startswith("golden"):
        assert "went back" in str(caught.value)
    # It is not remembered as good: the same release is tried, and refused, again.
    with pytest.raises(DeployError, match=says):
        deploy(local_transport(), bad, None, options)
    faults.check(root, {hash_of(pair[0])}, behaviour)
    patient = replace(options, golden_s=60.0, health_s=60.0)
    deploy(local_transport(), pair[1], None, patient)
    assert live_content(root) == hash_of(pair[1])


_DEAF = """
import socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--socket") + 1])
listener.listen()
connections = []
while True:
    connection, _ = listener.accept()
    connections.append(connection)
    length, blob = struct.unpack(">II", connection.recv(8, socket.MSG_WAITALL))
    if not blob:
        connection.sendall(struct.pack(">II", 11, 0) + b'{"ok":true}')
"""


def test_a_service_that_takes_no_frame_holds_nobody(ram_path: Path) -> None:
    """More than a socket holds was sent to it without a limit of time."""
    (ram_path / "release").mkdir()
    make_artifact(ram_path / "release" / "artifact", side=1000)
    (ram_path / "release" / "map.placemap").touch()
    (ram_path / "deaf.py").write_text(_DEAF)
    python = [sys.executable, str(ram_path / "deaf.py")]
    health = Health(str(ram_path / "root"), str(ram_path / "release"), python)
    with pytest.raises(DeployError, match="takes no query: still running"):
        health.alive(1.0, 0)


def test_a_file_or_two_that_a_service_opens_once_are_no_leak(ram_path: Path, fresh: Any) -> None:
    root, options = fresh()
    opens = make_artifact(ram_path / "opens", b"opens", "service-opens-2")
    done = deploy(local_transport(), opens, None, replace(options, settle_s=0.1))
    assert live_content(root) == hash_of(opens) and done.health["descriptors"] == 7


def test_no_release_is_live_where_the_one_before_an_unfinished_deploy_is_gone(
    ram_path: Path, pair: Any, fresh: Any
) -> None:
    """``current`` led to it, nowhere, and it was said to be live again."""
    root, options = fresh()
    before = (root / "current").resolve()
    bad = make_artifact(ram_path / "bad", b"bad", "service-wrong")
    modules = board_modules(root)
    dies = "\nHealth.alive = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    modules[-1] = (modules[-1][0], modules[-1][1] + dies)
    with pytest.raises(DeployError, match="ended early"):
        deploy(local_transport(), bad, None, replace(options, modules=modules))
    shutil.rmtree(before)
    done = deploy(local_transport(), pair[1], None, options)
    assert any("and no release is live again" in text for text in done.warnings)
    assert not any("led nowhere" in text for text in done.warnings)
    assert done.before is None and live_content(root) == hash_of(pair[1])


def test_of_releases_that_failed_the_last_one_stays(
    ram_path: Path, pair: Any, fresh: Any, faults: Any
) -> None:
    """All of them did, until one worked or the disk was full."""
    root, options = fresh()
    good = deploy(local_transport(), pair[1], None, options).before
    for content in (b"x", b"y", b"z"):
        bad = make_artifact(ram_path / content.decode(), content, "service-wrong")
        with pytest.raises(DeployError, match="went back"):
            deploy(local_transport(), bad, None, options)
        faults.check(root, {hash_of(pair[1])}, content)
    releases = status(local_transport(), options)["releases"]
    assert [bool(release["failed"]) for release in releases] == [True, False, False]
    assert good in os.listdir(root / "releases") and len(os.listdir(root / "releases")) == 3
    rollback(local_transport(), None, options)
    assert live_content(root) == hash_of(pair[0])


def test_first_release_that_does_not_work_leaves_nothing_live(
    ram_path: Path, wheel: Path, pair: Any, faults: Any
) -> None:
    options = quick_options(ram_path / "root", wheel)
    bad = make_artifact(ram_path / "bad", b"bad", "service-wrong")
    with pytest.raises(DeployError, match="went back, no release is live"):
        deploy(local_transport(), bad, None, options)
    faults.check(ram_path / "root", {None}, "first")
    deploy(local_transport(), pair[0], None, options)
    assert live_content(ram_path / "root") == hash_of(pair[0])


def test_rollback_to_a_release_that_no_longer_works_returns_to_the_live_one(
    pair: Any, fresh: Any, faults: Any
) -> None:
    root, options = fresh()
    first = (root / "current").resolve()
    deploy(local_transport(), pair[1], None, options)
    (first / "artifact/weights.bin").write_bytes(b"rotten")
    with pytest.raises(DeployError, match=r"damaged: .*deploy it again"):
        rollback(local_transport(), None, options)
    faults.check(root, {hash_of(pair[1])}, "rollback")


def test_a_deploy_to_this_machine_that_is_interrupted_finishes_by_itself(
    pair: Any, fresh: Any, faults: Any
) -> None:
    """Its agent was killed five seconds after Ctrl-C, which left the release unconfirmed; then, the
    user waited for it."""
    root, options = fresh()

    def ctrl_c(event: dict[str, Any]) -> None:
        if event.get("name") == "health":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(local_transport(), pair[1], None, replace(options, settle_s=1.0), ctrl_c)
    with open(root / "lock") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until its agent ends
    faults.check(root, {hash_of(pair[1])}, "Ctrl-C")
    assert status(local_transport(), options)["unconfirmed"] is False


# ---- locks and clocks --------------------------------------------------------------------------


def test_two_deploys_at_once_one_wins_and_the_other_is_told_who(
    ram_path: Path, pair: Any, fresh: Any, faults: Any
) -> None:
    root, options = fresh()
    slow = make_artifact(ram_path / "slow", b"slow", "golden-hangs")
    started, said = threading.Event(), []

    def first() -> None:
        try:
            deploy(
                local_transport(),
                slow,
                None,
                replace(options, golden_s=3),
                lambda event: started.set() if event.get("name") == "golden" else None,
            )
        except DeployError as error:
            said.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(20)
    with pytest.raises(DeployError, match=r"another deploy .* is running: .*kill \d+"):
        deploy(local_transport(), pair[1], None, options)
    thread.join()
    assert "took more than 3 s" in said[0]
    faults.check(root, {hash_of(pair[0])}, "two at once")
    deploy(local_transport(), pair[1], None, options)
    assert live_content(root) == hash_of(pair[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        json.dumps({"pid": 1, "boot": "another", "since": 9e12, "who": "ghost"}).encode(),
        json.dumps({"pid": -1, "boot": "", "since": -1, "who": "\x1b[31m"}).encode(),
    ],
)
def test_the_lock_of_a_dead_process_does_not_matter(
    pair: Any, fresh: Any, faults: Any, content: bytes
) -> None:
    root, options = fresh()
    (root / "lock").write_bytes(content)
    deploy(local_transport(), pair[1], None, options)
    faults.check(root, {hash_of(pair[1])}, content)


def test_a_lock_that_another_program_holds_is_told(pair: Any, fresh: Any) -> None:
    root, options = fresh()
    with open(root / "lock", "w") as held:
        held.write("not json")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeployError, match="is running: another process: wait for it"):
            deploy(local_transport(), pair[1], None, options)


def test_a_program_that_just_looks_whether_a_deploy_runs_is_none(tmp_path: Path) -> None:
    """It holds the lock meanwhile, and a deploy that came then was told of another one."""
    with open(tmp_path / "lock", "w") as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        store = Store(str(tmp_path), Disk(), looks.close)
        store.lock("a deploy")
    store.unlock()


@pytest.mark.parametrize("clock", [0.0, -1e9, 4e9])
def test_a_clock_that_jumps_does_not_matter(
    ram_path: Path, pair: Any, fresh: Any, faults: Any, clock: float
) -> None:
    root, options = fresh()
    modules = agent_modules()
    jump = f"import time\ntime.time = lambda: {clock}\n"
    modules[0] = (modules[0][0], modules[0][1] + jump)
    for folder in (root / "releases").iterdir():
        os.utime(folder, (4e9, 4e9))
    (root / "state.json").unlink()
    jumping = replace(options, modules=modules, keep=2)
    deploy(local_transport(), pair[1], None, jumping)
    faults.check(root, {hash_of(pair[1])}, clock)
    for name in (b"third", b"fourth"):
        more = make_artifact(ram_path / name.decode(), name)
        deploy(local_transport(), more, None, jumping)
        faults.check(root, {hash_of(more)}, clock)
    rollback(local_transport(), None, jumping)
    assert live_content(root) is not None and len(os.listdir(root / "releases")) == 2

"""Deploy, deploy again, roll back, ask: over a real sshd, as a user does."""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    Sshd,
    free_port,
    live_content,
    local_transport,
    make_artifact,
    quick_options,
    running_sshd,
)
from support.tools import require_tool
from tatvpr_edge.cli import main
from tatvpr_edge.deploy import push
from tatvpr_edge.deploy.inventory import deploy_all, read_inventory
from tatvpr_edge.deploy.push import Options, deploy, rollback, status
from tatvpr_edge.deploy.release import open_artifact
from tatvpr_edge.deploy.session import Session, agent_modules
from tatvpr_edge.deploy.transport import LocalTransport, SshTransport
from tatvpr_edge.spec.errors import BoardError, DeployError, TatvprError, UsageError


def test_deploy_again_rollback_and_status(ram_path: Path, sshd: Sshd, wheel: Path) -> None:
    first = make_artifact(ram_path / "first", b"first")
    second = make_artifact(ram_path / "second", b"second")
    root = ram_path / "root"
    options, board = quick_options(root, wheel), sshd.transport()
    assert status(board, options)["live"] is None and not root.exists()
    events: list[dict[str, Any]] = []
    done = deploy(board, first, None, options, events.append)
    assert live_content(root) == first.manifest.model.hash
    assert done.changed and done.before is None and done.reused_bytes == 0
    # Progress: every file to its end.
    ends = {e["path"] for e in events if e["event"] == "file" and e["bytes"] == e["total"]}
    assert {"artifact/weights.bin", "artifact/manifest.json", "python"} <= ends

    again = deploy(board, first, None, options)
    assert not again.changed and again.sent_bytes < 64_000

    third = deploy(board, second, None, options)
    assert live_content(root) == second.manifest.model.hash and third.before == done.release
    assert third.reused_bytes > 0  # the runtime and the golden frame

    back = rollback(board, None, options)
    assert back.release == done.release and live_content(root) == first.manifest.model.hash
    found = status(board, options, check=True)
    assert found["live"] == done.release and found["previous"] == third.release
    assert [r["name"] for r in found["releases"] if r["fault"] is None] == [
        third.release,
        done.release,
    ]
    with pytest.raises(DeployError, match="is live already"):
        rollback(board, done.release, options)
    rollback(board, third.release, options)
    assert live_content(root) == second.manifest.model.hash


@pytest.mark.parametrize(
    ("left", "version"),
    [
        ("tatvpr_edge-0.9.1.dist-info", "0.9.1"),
        ("Tatvpr_Edge-0.9.1-py3.11.egg-info", "0.9.1"),
        ("tatvpr_edge_other-2.0.dist-info", None),
    ],
)
def test_a_board_says_which_packages_its_python_has(
    ram_path: Path, left: str, version: str | None
) -> None:
    (ram_path / "there" / left).mkdir(parents=True)
    board = LocalTransport(environment=(("PYTHONPATH", str(ram_path / "there")),))
    with Session(board, f"{shlex.quote(sys.executable)} -S") as session:  # without this machine's
        hello = session.hello(str(ram_path / "root"))
        assert (hello["runtime"], hello["numpy"]) == (version, False)
        (ram_path / "there" / "numpy").mkdir()
        (ram_path / "there" / "numpy" / "__init__.py").write_text("raise SystemExit('imported')\n")
    with Session(board, f"{shlex.quote(sys.executable)} -S") as session:
        assert session.hello(str(ram_path / "root"))["numpy"] is True


def test_the_oldest_releases_go_the_live_one_and_the_one_before_stay(
    ram_path: Path, wheel: Path
) -> None:
    root = ram_path / "root"
    options = quick_options(root, wheel, keep=3)
    names = []
    for number in range(5):
        artifact = make_artifact(ram_path / f"a{number}", f"content {number}".encode())
        names.append(deploy(local_transport(), artifact, None, options).release)
    assert sorted(os.listdir(root / "releases")) == sorted(names[2:])
    rollback(local_transport(), names[2], options)
    artifact = make_artifact(ram_path / "a5", b"content 5")
    last = deploy(local_transport(), artifact, None, replace(options, keep=2)).release
    assert sorted(os.listdir(root / "releases")) == sorted([names[2], last])
    assert not os.listdir(root / "trash") and not os.listdir(root / "staging")
    with pytest.raises(UsageError, match="keep is 1"):
        Options(keep=1)


def test_full_board_makes_room_by_removing_old_releases(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "root"
    options = quick_options(root, wheel, keep=9)
    for number in range(4):
        artifact = make_artifact(ram_path / f"a{number}", f"content {number}".encode())
        deploy(local_transport(), artifact, None, options)
    modules = agent_modules()
    # A disk on which there is too little room as long as there are more than three releases.
    small = (
        "\nclass _SmallDisk:\n"
        "    def __getattr__(self, name, real=os): return getattr(real, name)\n"
        "    def statvfs(self, path, real=os.statvfs):\n"
        "        found, n = real(path), len(os.listdir(path + '/releases'))\n"
        "        return found if n < 4 else type(found)([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])\n"
    )
    place = [name for name, _ in modules].index("tatvpr_edge.deploy.assembly")
    text = modules[place][1].replace("os.statvfs(", "_SmallDisk().statvfs(") + small
    modules[place] = (modules[place][0], text)
    last = make_artifact(ram_path / "last", b"last")
    deploy(local_transport(), last, None, replace(options, modules=modules))
    assert live_content(root) == last.manifest.model.hash
    assert len(os.listdir(root / "releases")) == 3


class Cut(Exception):
    pass


def cut_after(size: int) -> Any:
    """An on_event that ends the host's work after so many bytes of data.bin."""

    def on_event(event: dict[str, Any]) -> None:
        if event.get("path") == "artifact/data.bin" and event["bytes"] >= size:
            raise Cut

    return on_event


def test_a_cut_transfer_goes_on_where_it_was(ram_path: Path, sshd: Sshd, wheel: Path) -> None:
    data = os.urandom(6_000_000)
    big = make_artifact(ram_path / "big", b"big", files={"data.bin": data})
    options, board = quick_options(ram_path / "root", wheel), sshd.transport()
    with pytest.raises(Cut):
        deploy(board, big, None, options, cut_after(4_000_000))
    assert live_content(ram_path / "root") is None
    done = deploy(board, big, None, options)
    assert done.reused_bytes >= 2_500_000 and done.sent_bytes < 3_600_000
    assert live_content(ram_path / "root") == big.manifest.model.hash


def test_a_part_of_what_is_no_longer_the_file_is_sent_anew(ram_path: Path, wheel: Path) -> None:
    data = os.urandom(3_000_000)
    big = make_artifact(ram_path / "big", b"big", files={"data.bin": data})
    root = ram_path / "root"
    options = quick_options(root, wheel)
    with pytest.raises(Cut):
        deploy(local_transport(), big, None, options, cut_after(1_500_000))
    part = max((root / "staging").rglob("parts/*"), key=lambda path: path.stat().st_size)
    spoiled = bytearray(part.read_bytes())
    assert len(spoiled) >= 1_000_000
    spoiled[10] ^= 1
    part.write_bytes(spoiled)
    done = deploy(local_transport(), big, None, options)
    assert done.sent_bytes > 3_000_000 and live_content(root) == big.manifest.model.hash


@pytest.mark.parametrize("change", ["altered", "shorter", "longer"])
def test_a_source_that_changes_while_it_is_sent_is_noticed(
    ram_path: Path, wheel: Path, change: str
) -> None:
    data = os.urandom(3_000_000)
    big = make_artifact(ram_path / "big", b"big", files={"data.bin": data})
    source = ram_path / "big" / "data.bin"
    changed = {
        "altered": data[:2_500_000] + b"?" + data[2_500_001:],
        "shorter": data[:2_000_000],
        "longer": data + b"more",
    }[change]

    def on_event(event: dict[str, Any]) -> None:
        if event.get("path") == "artifact/data.bin" and event["bytes"] < 1_500_000:
            source.write_bytes(changed)

    options = quick_options(ram_path / "root", wheel)
    with pytest.raises(DeployError, match=r"data.bin changed while it was sent: run again"):
        deploy(local_transport(), big, None, options, on_event)
    assert live_content(ram_path / "root") is None
    with pytest.raises(TatvprError, match=r"data.bin"):
        deploy(local_transport(), ram_path / "big", None, options)
    source.write_bytes(data)
    deploy(local_transport(), ram_path / "big", None, options)
    assert live_content(ram_path / "root") == big.manifest.model.hash


def test_the_runtime_travels_when_it_is_missing_or_older(ram_path: Path) -> None:
    artifact = make_artifact(ram_path / "a", b"a")
    options = quick_options(ram_path / "root")
    facts = {"runtime": None}
    for installed, travels in ((None, True), ("0.0.9", True), ("0.1.0", False), ("9.0", False)):
        facts["runtime"] = installed
        assert push._runtime_travels(options, facts) is travels
    assert push._runtime_travels(replace(options, runtime="always"), facts)
    assert not push._runtime_travels(replace(options, runtime="never"), {"runtime": None})
    # A wheel is taken as it is; what is not ours is refused.
    bad = ram_path / "bad.whl"
    bad.write_bytes(b"PK no zip")
    with pytest.raises(DeployError, match="is no wheel"):
        deploy(local_transport(), artifact, None, replace(options, wheel=bad))


def test_the_releases_own_python_runs_with_its_runtime(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "with space" / "root"
    deploy(local_transport(), make_artifact(ram_path / "a"), None, quick_options(root, wheel))
    program = "import tatvpr_edge; print(tatvpr_edge.__file__)"
    command = f"cd / && {shlex.quote(str(root / 'current' / 'python'))} -c {shlex.quote(program)}"
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert said.startswith(str((root / "current").resolve()) + "/runtime/")


# ---- the way to the board ----------------------------------------------------------------------


def test_unknown_and_changed_host_keys_are_refused_with_the_command_to_fix_it(
    ram_path: Path, sshd: Sshd, wheel: Path
) -> None:
    artifact = make_artifact(ram_path / "a")
    options = quick_options(ram_path / "root", wheel)
    known = ram_path / "known"
    config = ram_path / "config"
    config.write_text(sshd.config.read_text().replace(str(sshd.folder / "known_hosts"), str(known)))
    board = SshTransport("127.0.0.1", sshd.port, str(config), batch=True)
    known.write_text("")
    with pytest.raises(DeployError, match=r"host key is unknown: .*`ssh .*127.0.0.1 true`"):
        deploy(board, artifact, None, options)
    other = (sshd.folder / "user_key.pub").read_text()
    known.write_text(f"tatvpr-test-board {other}")
    with pytest.raises(DeployError, match=r"host key CHANGED .*`ssh-keygen -R "):
        deploy(board, artifact, None, options)
    assert not (ram_path / "root").exists()
    assert known.read_text() == f"tatvpr-test-board {other}", "ssh learned a key by itself"


def test_who_cannot_log_in_is_told_so(ram_path: Path, sshd: Sshd, wheel: Path) -> None:
    options = quick_options(ram_path / "root", wheel)
    artifact = make_artifact(ram_path / "a")
    config = ram_path / "config"
    config.write_text(sshd.config.read_text().replace("user_key", "host_key"))
    with pytest.raises(DeployError, match="login refused"):
        deploy(SshTransport("127.0.0.1", sshd.port, str(config), True), artifact, None, options)
    with pytest.raises(DeployError, match="cannot connect"):
        deploy(SshTransport("127.0.0.1", 1, str(sshd.config), True), artifact, None, options)


@pytest.mark.parametrize(
    "target",
    [
        *("-oProxyCommand=touch x", "a b", "host;id", "$(id)", "`id`", "a@b@c", "", "x\ny", "%h"),
        *(
            "-v",
            "root@",
            "@host",
            "a%eth0",
            "::1%",
            "::1%$(id)",
            "::1%a b",
            "1:2:3",
            "[::1",
            "::1]",
        ),
        *("[::1]:0", "[::1]:99999", "[::1]22", "[host]", "[host]:22", "host:22", "[-v]", "::1%-/x"),
    ],
)
def test_what_is_no_board_is_refused_before_ssh_sees_it(target: str) -> None:
    with pytest.raises(DeployError, match="is no board"):
        SshTransport(target)


def test_a_link_local_address_without_its_interface_is_told_so() -> None:
    with pytest.raises(DeployError, match=r"fe80::1 is a link-local .*: fe80::1%eth0"):
        SshTransport("root@fe80::1")
    with pytest.raises(DeployError, match="name two ports"):
        SshTransport("[::1]:2222", port=22)


def own_addresses() -> list[str]:
    """This machine's IPv6 addresses of one machine or link, with the interface where one is
    needed."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        digits, _, _, scope, _, interface = line.split()
        if scope in ("10", "20"):  # loopback and link
            address = str(ipaddress.IPv6Address(int(digits, 16)))
            found.append(address if scope == "10" else f"{address}%{interface}")
    return found


def test_boards_of_ipv6_are_named_as_ssh_and_scp_name_them(ram_path: Path, wheel: Path) -> None:
    addresses = own_addresses()
    if "::1" not in addresses:
        pytest.skip("this machine has no IPv6")
    artifact = make_artifact(ram_path / "a")
    options = quick_options(ram_path / "root", wheel)
    with running_sshd(ram_path / "etc", also=tuple(addresses)) as sshd:
        deploy(sshd.transport(), artifact, None, options)
        for address in addresses:
            user = getpass.getuser()
            ways = [
                (address, sshd.port),
                (f"[{address}]", sshd.port),
                (f"{user}@{address}", sshd.port),
                (f"{user}@[{address}]:{sshd.port}", None),
            ]
            for target, port in ways:
                board = SshTransport(target, port, str(sshd.config), batch=True)
                assert status(board, options)["live"], target
        # What ssh says is explained with words that ssh itself understands.
        known = ram_path / "known"
        known.write_text("")
        config = ram_path / "config"
        text = sshd.config.read_text().replace(str(sshd.folder / "known_hosts"), str(known))
        config.write_text(text)
        with pytest.raises(DeployError, match=rf"`ssh .*-p {sshd.port} ::1 true`"):
            status(SshTransport(f"[::1]:{sshd.port}", None, str(config), True), options)


def test_a_host_that_is_set_up_for_logging_in_by_hand_is_a_board_too(
    ram_path: Path, sshd: Sshd, wheel: Path
) -> None:
    config = ram_path / "config"
    config.write_text(
        "Host robot\n  HostName 127.0.0.1\n"
        f"  Port {sshd.port}\n  RemoteCommand tmux attach\n  RequestTTY force\n"
        f"  LocalForward {free_port()} 127.0.0.1:9\n  PermitLocalCommand yes\n"
        f"  LocalCommand touch {ram_path}/ran\n\n" + sshd.config.read_text()
    )
    options = quick_options(ram_path / "root", wheel)
    artifact = make_artifact(ram_path / "a")
    deploy(SshTransport("robot", None, str(config), True), artifact, None, options)
    assert live_content(ram_path / "root") == artifact.manifest.model.hash
    assert not (ram_path / "ran").exists()


# ---- file systems from which nothing starts ------------------------------------------------------


def on_noexec(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command where ``folder`` is a file system that is mounted noexec."""
    require_tool("unshare", "util-linux")
    folder.mkdir()
    mount = f"mount -t tmpfs -o noexec,nosuid,mode=755 none {shlex.quote(str(folder))}"
    words = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if subprocess.run([*words, mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of its own")
    return subprocess.run(
        [*words, f"{mount} && {command}"], capture_output=True, text=True, cwd=folder.parent
    )


def test_a_root_that_is_mounted_noexec_is_named_with_what_to_do(
    ram_path: Path, wheel: Path
) -> None:
    make_artifact(ram_path / "a")
    python = shlex.quote(sys.executable)
    disk = ram_path / "disk"
    said = on_noexec(
        disk,
        f"{python} -m tatvpr_edge deploy {ram_path}/a local: --root {disk}/root --python {python} "
        f"--wheel {wheel} --watch-seconds 0 && sh {disk}/root/current/python -c 'print(6 * 7)' && "
        f"{disk}/root/current/python -c 'print(8)'",
    )
    assert "is live" in said.stdout and "42" in said.stdout and "8" not in said.stdout.split()
    assert said.returncode == 126, "the test's file system is not noexec"
    (warning,) = [line for line in said.stderr.splitlines() if line.startswith("warning: ")]
    for words in (f"{disk} on the board is mounted noexec", f"mount -o remount,exec {disk}", "sh "):
        assert words in warning


def test_a_python_that_may_not_be_started_is_named(ram_path: Path) -> None:
    disk = ram_path / "disk"
    said = on_noexec(
        disk,
        f"cp /bin/true {disk}/python3 && {shlex.quote(sys.executable)} -m tatvpr_edge status "
        f"local: --python {disk}/python3",
    )
    assert said.returncode == 1
    assert f"may not start {disk}/python3" in said.stderr and "mounted noexec" in said.stderr


def test_boards_that_cannot_run_the_agent_are_named(ram_path: Path, sshd: Sshd) -> None:
    artifact, board = make_artifact(ram_path / "a"), sshd.transport()
    with pytest.raises(DeployError, match="no no-such-python on the board"):
        deploy(board, artifact, None, quick_options(ram_path / "r", python="no-such-python"))
    old = ram_path / "old-python"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 8, 10); "
        'exec(sys.argv[1])\' "$2"\n'
    )
    old.chmod(0o755)
    with pytest.raises(DeployError, match=r"Python is 3.8: tatvpr-edge needs 3.10"):
        deploy(board, artifact, None, quick_options(ram_path / "r", python=str(old)))
    bare = f"{sys.executable} -I -S"
    with pytest.raises(DeployError, match=r"has no NumPy: install python3-numpy"):
        deploy(board, artifact, None, quick_options(ram_path / "r", python=bare))
    assert not (ram_path / "r").exists()


@pytest.mark.slow
def test_a_noisy_login_does_not_matter_and_an_endless_one_is_an_error(
    ram_path: Path, wheel: Path
) -> None:
    noisy = ram_path / "noisy"
    noisy.write_text(
        "#!/bin/sh\n"
        "echo 'Welcome! $(touch pwned) {\"answer\": {}}'\n"
        "printf '\\ntatvpr-edge agent fake\\nJ\\0'\n"
        "head -c 100000 /dev/urandom\necho warning >&2\n"
        'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    noisy.chmod(0o755)
    artifact = make_artifact(ram_path / "a")
    options = quick_options(ram_path / "root", wheel)
    with running_sshd(ram_path / "etc", str(noisy)) as sshd:
        deploy(sshd.transport(), artifact, None, options)
        assert live_content(ram_path / "root") == artifact.manifest.model.hash
        assert status(sshd.transport(), options)["live"]
        noisy.write_text("#!/bin/sh\nexec head -c 9000000 /dev/zero\n")
        with pytest.raises(DeployError, match="login shell prints without end"):
            status(sshd.transport(), options)
        noisy.write_text("#!/bin/sh\necho This account is not available. >&2\nexit 1\n")
        with pytest.raises(DeployError, match="did not start: This account is not available"):
            status(sshd.transport(), options)


def test_a_microcontroller_has_no_ssh(ram_path: Path) -> None:
    make_artifact(ram_path / "a", board="stm32h7", kind="static-library")
    with pytest.raises(BoardError, match=r"stm32h7, which has no SSH: .*STM32_Programmer_CLI"):
        open_artifact(ram_path / "a", None)


def test_an_artifact_for_another_processor_is_refused_before_it_is_sent(
    ram_path: Path, wheel: Path
) -> None:
    artifact = make_artifact(ram_path / "a", triple="riscv64-linux-gnu")
    with pytest.raises(TatvprError, match=r": the artifact is for board host .riscv64., this"):
        deploy(local_transport(), artifact, None, quick_options(ram_path / "root", wheel))
    assert not (ram_path / "root").exists()


def test_a_board_looks_at_the_processor_itself(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(ram_path / "a", triple="riscv64-linux-gnu")
    # A host that does not ask.
    monkeypatch.setattr("tatvpr_edge.deploy.push.check_processor", lambda manifest, machine: None)
    with pytest.raises(TatvprError, match=r"is for board host .riscv64., this board is"):
        deploy(local_transport(), artifact, None, quick_options(ram_path / "root", wheel))
    assert live_content(ram_path / "root") is None


# ---- many boards -------------------------------------------------------------------------------


def inventory(folder: Path, wheel: Path, bad: str = "") -> Path:
    """Five boards on this machine, one of which may carry a bad artifact."""
    make_artifact(folder / "good", b"good")
    make_artifact(folder / "bad", b"bad", "service-wrong")
    lines = ['artifact = "good"']
    for name in ("one", "two", "three", "four", "five"):
        lines += ["[[board]]", 'host = "local:"', f'root = "{folder}/{name}"']
        if name == "two":
            lines.append("canary = true")
        if name == bad:
            lines.append('artifact = "bad"')
    path = folder / "boards.toml"
    path.write_text("\n".join(lines))
    return path


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


# ---- the command line --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_as_a_user_types_them(
    ram_path: Path, sshd: Sshd, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_artifact(ram_path / "one", b"one")
    make_artifact(ram_path / "two", b"two")
    way = ["--port", str(sshd.port), "--ssh-config", str(sshd.config)]
    way += ["--root", str(ram_path / "root"), "--python", shlex.quote(sys.executable)]
    quick = ["--wheel", str(wheel), "--watch-seconds", "0.1"]
    for name in ("one", "two"):
        assert main(["deploy", str(ram_path / name), "127.0.0.1", *way, *quick]) == 0
        said = capsys.readouterr()
        assert "is live" in said.out and "checking health" in said.err
        assert len(said.out.splitlines()) == 1
    assert main(["rollback", "127.0.0.1", *way, "--json", "--watch-seconds", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert main(["status", "127.0.0.1", *way, "--check"]) == 0
    said = capsys.readouterr()
    assert (
        "live" in said.out
        and "every byte as sent" in said.out
        and "unsigned artifacts are accepted" in said.out
    )
    assert main(["status", "127.0.0.1", *way, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["releases"]) == 2
    assert main(["deploy", str(ram_path / "one")]) == 2
    assert main(["deploy", str(ram_path / "none"), "127.0.0.1", *way]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: ") and not said.out
    assert (
        main(
            [
                "deploy",
                "--inventory",
                str(inventory(ram_path, wheel, "two")),
                *quick,
                "--python",
                shlex.quote(sys.executable),
            ]
        )
        == 1
    )
    said = capsys.readouterr()
    assert "FAILED" in said.out and said.out.count("not begun") == 4


def test_the_agent_ends_when_its_host_does_and_leaves_nothing_behind(
    ram_path: Path, wheel: Path
) -> None:
    artifact = make_artifact(ram_path / "a")
    session = Session(local_transport(), shlex.quote(sys.executable))
    session.hello(str(ram_path / "root"))
    process = session._link.process
    session.close()
    assert process.poll() == 0
    before = set(os.listdir(ram_path))
    deploy(local_transport(), artifact, None, quick_options(ram_path / "root", wheel))
    assert set(os.listdir(ram_path)) - before == {"root"}

"""The way to a board: names, keys, logins and a real sshd, as a user's own ssh goes it."""

from __future__ import annotations

import getpass
import ipaddress
import os
import shlex
import subprocess
import sys
from pathlib import Path

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
from tatvpr_edge.cli import main
from tatvpr_edge.deploy import transport
from tatvpr_edge.deploy.command import _where, live_manifest, run_on_board
from tatvpr_edge.deploy.push import deploy, status
from tatvpr_edge.deploy.session import Session
from tatvpr_edge.deploy.transport import LocalTransport, SshTransport
from tatvpr_edge.spec.errors import DeployError, UsageError


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
    with pytest.raises(DeployError, match=r"host key CHANGED .*`ssh-keygen -f .* -R "):
        deploy(board, artifact, None, options)
    assert not (ram_path / "root").exists()
    assert known.read_text() == f"tatvpr-test-board {other}", "ssh learned a key by itself"


def test_a_key_that_changed_is_forgotten_by_the_name_that_ssh_knows_it_by(
    ram_path: Path, sshd: Sshd
) -> None:
    """The command named what the user had typed, and found nothing to forget."""
    known, config = ram_path / "known hosts", ram_path / "config"
    other = (sshd.folder / "user_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    config.write_text(
        f"Host robot\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        f'  UserKnownHostsFile "{known}"\n  GlobalKnownHostsFile none\n'
    )
    robot = SshTransport("robot", None, str(config), True)
    with pytest.raises(DeployError, match="host key CHANGED") as said:
        status(robot)
    words = shlex.split(str(said.value).split("`")[1])
    assert subprocess.run(words, capture_output=True).returncode == 0
    with pytest.raises(DeployError, match=r"host key is unknown: .*`ssh -F .* robot true`"):
        status(robot)


def test_what_a_board_refuses_is_not_taken_for_a_refused_login(ram_path: Path, sshd: Sshd) -> None:
    python = ram_path / "python3"
    python.write_text("#!/bin/sh\n")
    options = quick_options(ram_path / "root", python=str(python))
    with pytest.raises(DeployError, match=r"may not start .*Permission denied.*: its file system"):
        status(sshd.transport(), options)
    python.write_text("#!/bin/sh\necho 'error: camera: Connection refused' >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(DeployError, match=r"127.0.0.1: camera: Connection refused$"):
        run_on_board(sshd.transport(), ["power"], str(ram_path / "root"), str(python))


def test_who_cannot_log_in_is_told_so(ram_path: Path, sshd: Sshd, wheel: Path) -> None:
    options = quick_options(ram_path / "root", wheel)
    artifact = make_artifact(ram_path / "a")
    config = ram_path / "config"
    config.write_text(sshd.config.read_text().replace("user_key", "host_key"))
    with pytest.raises(DeployError, match="login refused"):
        deploy(SshTransport("127.0.0.1", sshd.port, str(config), True), artifact, None, options)
    with pytest.raises(DeployError, match="cannot connect"):
        deploy(SshTransport("127.0.0.1", 1, str(sshd.config), True), artifact, None, options)


def test_the_command_that_helps_reaches_the_board_as_the_user_did(
    ram_path: Path, sshd: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    board = SshTransport("127.0.0.1", sshd.port, str(sshd.config), batch=True)
    root, python = str(ram_path / "no release"), sys.executable
    with pytest.raises(DeployError, match="nothing is deployed below") as said:
        run_on_board(board, ["power"], root, python, on_artifact=True)
    given = ["--port", str(sshd.port), "--ssh-config", str(sshd.config), "--root", root]
    line = shlex.join(["127.0.0.1", *given, "--python", python])
    assert str(said.value).endswith(f"run `tatvpr-edge deploy ARTIFACT {line}` first")
    words = shlex.split(str(said.value).split("`")[1])[1:]
    assert main(words) == 1  # it is a command that we take; its artifact alone is not there
    assert "ARTIFACT" in capsys.readouterr().err


def test_a_login_shell_that_knows_no_posix_runs_the_runtime_all_the_same(
    ram_path: Path, wheel: Path
) -> None:
    """fish and csh do not: this one splits words and nothing else."""
    shell = ram_path / "shell"
    shell.write_text(
        f"#!{sys.executable}\nimport os, shlex\n"
        "words = shlex.split(os.environ['SSH_ORIGINAL_COMMAND'])\nos.execvp(words[0], words)\n"
    )
    shell.chmod(0o755)
    options = quick_options(ram_path / "my root", wheel)
    with running_sshd(ram_path / "etc", str(shell)) as sshd:
        deploy(sshd.transport(), make_artifact(ram_path / "a"), None, options)
        where = (options.root, options.python)
        said = run_on_board(sshd.transport(), ["verify"], *where, on_artifact=True)
        assert said == '{"golden": "passed"}\n'
        assert live_manifest(sshd.transport(), *where).startswith(b"{")


class _Elsewhere(LocalTransport):
    """A board, whose folders are not those of this process."""

    def placed(self, root: str | None) -> str | None:
        return root


@pytest.mark.parametrize("root", ["data/my $robot", "~", "~/x y", "~root", "~root/'x' y", "/a b"])
def test_commands_find_the_root_where_deploy_put_it(root: str, tmp_path: Path) -> None:
    """One relative to the home, or another user's home, was sought elsewhere."""
    line = f'r={_where(root)}; cd /; printf %s "$r"'
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], env=home, capture_output=True, text=True, check=True)
    with pytest.raises(UsageError, match="root is empty"):
        quick_options("")
    board = _Elsewhere(environment=(("HOME", str(tmp_path)),))
    with Session(board, shlex.quote(sys.executable)) as session:
        assert os.path.normpath(done.stdout) == session.hello(root)["root"]


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


@pytest.mark.slow
def test_a_noisy_login_does_not_matter_and_an_endless_one_is_an_error(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
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
        with monkeypatch.context() as patch:
            patch.setattr(transport, "_END_S", 0.1)  # it does not end by itself
            with pytest.raises(DeployError, match="login shell prints without end"):
                status(sshd.transport(), options)
        noisy.write_text("#!/bin/sh\necho This account is not available. >&2\nexit 1\n")
        with pytest.raises(DeployError, match="did not start: This account is not available"):
            status(sshd.transport(), options)


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

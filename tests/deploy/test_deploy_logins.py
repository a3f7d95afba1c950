"""Logins that come to nothing: each is told in one line with what helps."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from pathlib import Path

import pytest

from support.board import Sshd, make_artifact, quick_options, running_sshd
from tatvpr_edge.deploy import session
from tatvpr_edge.deploy.command import _MARKED, _line, live_manifest, run_on_board
from tatvpr_edge.deploy.push import Options, deploy, status
from tatvpr_edge.deploy.transport import SshTransport
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.manifest import MANIFEST


def configured(sshd: Sshd, config: Path, before: str) -> SshTransport:
    """The way to ``sshd`` with settings that win over its own."""
    config.write_text(f"Host *\n{before}\n" + sshd.config.read_text())
    return SshTransport("127.0.0.1", sshd.port, str(config), batch=True)


def refused(board: SshTransport, options: Options) -> list[str]:
    """What both kinds of conversation with a board say: the agent's, and one command's."""
    said = []
    for ask in (lambda: status(board, options), lambda: live_manifest(board, options.root)):
        with pytest.raises(DeployError) as caught:
            ask()
        said.append(str(caught.value))
    return said


def test_a_user_who_may_run_nothing_is_told_in_the_board_s_words(ram_path: Path) -> None:
    """nologin, and an sshd that serves SFTP alone, say it on standard output: nothing of it was
    told."""
    shell = ram_path / "nologin"
    shell.write_text("#!/bin/sh\necho 'This account is currently not available.'\nexit 1\n")
    shell.chmod(0o755)
    with running_sshd(ram_path / "etc", str(shell)) as sshd:
        for said in refused(sshd.transport(), quick_options(ram_path / "root")):
            assert "This account is currently not available." in said


def test_a_login_that_fails_says_which_setting_or_command_helps(ram_path: Path, sshd: Sshd) -> None:
    """ "The board's agent did not start", and "failed with exit status 255: nothing said"."""
    options, config = quick_options(ram_path / "root"), ram_path / "config"
    names = [ram_path / f"key{number}" for number in range(7)]
    for name in names:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(name)]
        subprocess.run(words, check=True)
    many = "\n".join(f'  IdentityFile "{name}"' for name in names)
    for said in refused(configured(sshd, config, many), options):
        assert "login refused (Too many authentication failures)" in said
        assert "`IdentitiesOnly yes`" in said
    helps = f"try `ssh -F {config} -p {sshd.port} 127.0.0.1 true`"
    for setting in ("KexAlgorithms diffie-hellman-group1-sha1", "NoSuchSetting yes"):
        for said in refused(configured(sshd, config, "  " + setting), options):
            assert "127.0.0.1: the connection failed (" in said and said.endswith(helps)


def test_a_key_that_nobody_may_ask_about_is_given_to_the_agent(ram_path: Path, sshd: Sshd) -> None:
    """`ssh board true` asks for its passphrase and succeeds; a fleet's deploy never does."""
    key, config = ram_path / "key", ram_path / "config"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True)
    config.write_text(sshd.config.read_text().replace(str(sshd.folder / "user_key"), str(key)))
    with pytest.raises(DeployError, match=r"login refused .*Permission denied.*ssh-add"):
        status(SshTransport("127.0.0.1", sshd.port, str(config), batch=True))


def test_what_a_login_shell_complains_of_is_not_why_the_connection_ended(ram_path: Path) -> None:
    """A login was said to be refused that had been let in, and was cut later."""
    shell = ram_path / "shell"
    shell.write_text(
        "#!/bin/sh\necho '.bashrc: /opt/ros/setup.bash: Permission denied (no matter)' >&2\n"
        'trap "kill -9 $PPID" EXIT\nsh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    shell.chmod(0o755)
    options = quick_options(ram_path / "root")
    # The agent ends after its greeting, and the connection with it.
    dies = [
        (name, text + "\nAgent.serve = lambda self: 0\n" * name.endswith("agent"))
        for name, text in options.modules or ()
    ]
    options = quick_options(ram_path / "root", modules=dies)
    with running_sshd(ram_path / "etc", str(shell)) as sshd, pytest.raises(DeployError) as caught:
        status(sshd.transport(), options)
    assert "the connection ended early" in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("echo Welcome; echo '{'", "echo goodbye"),
        ("printf Welcome", "printf goodbye"),  # within the lines that are ours
        ("head -c 9000 /dev/urandom", "head -c 9000 /dev/urandom; exit $s"),
    ],
)
def test_what_a_login_prints_around_a_command_is_not_its_answer(
    ram_path: Path, wheel: Path, before: str, after: str
) -> None:
    """`profile --on` and `power --on --json` took what comes last, and a ForceCommand whose last
    program is another one made every failure a success."""
    shell, options = ram_path / "shell", quick_options(ram_path / "root", wheel)
    shell.write_text(f'#!/bin/sh\n{before}\nsh -c "$SSH_ORIGINAL_COMMAND"\ns=$?\n{after}\n')
    shell.chmod(0o755)
    where, artifact = (options.root, options.python), make_artifact(ram_path / "a")
    with running_sshd(ram_path / "etc", str(shell)) as sshd:
        board = sshd.transport()
        deploy(board, artifact, None, options)
        assert live_manifest(board, *where) == (ram_path / "a" / MANIFEST).read_bytes()
        said = run_on_board(board, ["verify"], *where, on_artifact=True)
        assert said == '{"golden": "passed"}\n'
        how = ram_path / "root" / "current" / "artifact" / "behaviour.txt"
        how.write_text("golden-fails")
        with pytest.raises(DeployError, match=r"exit status 1: golden vectors at k = 0.2 differ"):
            run_on_board(board, ["verify"], *where, on_artifact=True)
        with pytest.raises(DeployError, match=r"power failed with exit status 255: odd$"):
            run_on_board(board, ["power"], str(ram_path / "none"), "sh -c 'echo odd >&2; exit 255'")
        shell.write_text("#!/bin/sh\necho Commands are not run here\n")
        with pytest.raises(DeployError, match=r"'Commands are not run here': can this user run"):
            run_on_board(board, ["verify"], *where, on_artifact=True)


def test_a_login_that_reads_what_is_sent_is_named(
    ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .bashrc that asks "ROS 1 or 2?": a SyntaxError of our own lines, or silence."""
    shell, options = ram_path / "shell", quick_options(ram_path / "root")
    shell.touch(0o755)
    monkeypatch.setattr(session, "GREETING_S", 3.0)
    with running_sshd(ram_path / "etc", str(shell)) as sshd:
        for reads in ("read x", "cat > /dev/null"):
            shell.write_text(f'#!/bin/sh\n{reads}\nsh -c "$SSH_ORIGINAL_COMMAND"\n')
            with pytest.raises(DeployError, match=r"does a script of its login .* `\[ -t 0 \] \|"):
                status(sshd.transport(), options)
        says = pytest.raises(DeployError, match=r"more than 1 s: does a script of its login")
        with says:  # which waits for what is never sent
            run_on_board(sshd.transport(), ["power"], options.root, limit_s=1.0)


def test_what_a_logout_complains_of_does_not_hide_our_own_line(ram_path: Path) -> None:
    python, shell = ram_path / "python3", ram_path / "shell"
    python.write_text("#!/bin/sh\necho 'error: no sensors here' >&2; exit 1\n")
    shell.write_text(
        '#!/bin/sh\nsh -c "$SSH_ORIGINAL_COMMAND"\necho "clear: TERM is not set" >&2\nexit 1\n'
    )
    for program in (python, shell):
        program.chmod(0o755)
    says = pytest.raises(DeployError, match=r"127.0.0.1: no sensors here$")
    with running_sshd(ram_path / "etc", str(shell)) as sshd, says:
        run_on_board(sshd.transport(), ["power"], str(ram_path / "root"), str(python))


def test_a_configuration_that_is_a_pipe_is_refused_not_waited_for(ram_path: Path) -> None:
    os.mkfifo(ram_path / "pipe")
    for name in ("pipe", "no such", "."):
        with pytest.raises(DeployError, match=r"--ssh-config .* is no file"):
            SshTransport("board", None, str(ram_path / name))
    for word in ("none", "/dev/null"):  # ssh's own for no settings, and everybody's before it
        assert SshTransport("board", None, word).config == word


def test_a_command_on_a_board_ends_with_the_connection(
    ram_path: Path, sshd: Sshd, wheel: Path
) -> None:
    """An interrupted `profile --on` went on for minutes there, beside the one that came next."""
    runs, pipe = ram_path / "runs", ram_path / "pipe"
    os.mkfifo(pipe)
    runs.write_text(
        "#!/bin/sh\np=$PPID\n"  # the runtime, or the shell in which it starts this
        "grep -qa tatvpr_edge.runtime /proc/$p/cmdline || read -r _ _ _ p _ < /proc/$p/stat\n"
        f"echo $p > {pipe}\n"
    )
    runs.chmod(0o755)
    options = quick_options(ram_path / "root", wheel)
    deploy(sshd.transport(), make_artifact(ram_path / "a"), None, options)
    how = ram_path / "root" / "current" / "artifact" / "behaviour.txt"
    how.write_text(f"verify={runs} golden-hangs")
    line = _line(["verify"], options.root, options.python, on_artifact=True)
    line = _MARKED.format(mark="0", line=line)
    link = sshd.transport().start("sh -c " + shlex.quote(line))
    runtime = os.pidfd_open(int(pipe.read_text()))
    link.process.kill()
    link.close()
    assert select.select([runtime], [], [], 60)[0], "it goes on"
    os.close(runtime)
    how.write_text("golden-fails")
    with pytest.raises(DeployError, match=r"exit status 1: golden vectors at k = 0.2 differ"):
        run_on_board(sshd.transport(), ["verify"], options.root, options.python, on_artifact=True)

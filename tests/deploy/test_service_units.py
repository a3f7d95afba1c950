"""Units of systemd: the service's own, which deploy writes, and the robot's, which it restarts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.board import hash_of, live_content, local_transport, make_artifact, quick_options
from support.tools import lacking
from tatvpr_edge.deploy import service
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.push import Options, deploy
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import DeployError


@pytest.mark.parametrize("root", ["/srv/tatvpr", '/srv/a b/100%/$HOME/"q"/back\\slash'])
def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path, root: str) -> None:
    program = shutil.which("systemd-analyze")
    text = service.unit_text(root, [sys.executable])
    assert "WatchdogSec=30" in text and "Restart=always" in text
    if program is None:
        lacking("systemd-analyze", "apt-get install systemd")
    assert program is not None
    place = tmp_path / root.strip("/")
    (place / "current").mkdir(parents=True)
    unit = tmp_path / "tatvpr-edge.service"
    unit.write_text(service.unit_text(str(place), [sys.executable]))
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True)
    about_us = [line for line in done.stderr.splitlines() if "tatvpr-edge.service" in line]
    assert done.returncode == 0 and not about_us, done.stderr


def test_a_root_that_no_unit_can_name_is_refused() -> None:
    with pytest.raises(DeployError, match="no --service"):
        service.unit_text("/srv/a\nb", ["python3"])
    with pytest.raises(DeployError, match="no --service"):
        service.unit_text("/srv/a", ["python3"], ["--budget", "5W\nExecStartPre=x"])


def test_the_unit_serves_with_what_deploy_was_told() -> None:
    text = service.unit_text("/srv/a", ["python3"], ["--k", "auto", "--budget", "5W"])
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert start.endswith('"--root" "/srv/a" "--k" "auto" "--budget" "5W"'), start


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "5W"], "belongs to --service"),
        (["--expires-days", "3"], "--expires-days belongs to --sign"),
        (["--service", "--budget", "5W"], "belong to --k auto"),
        (["--service", "--k", "auto"], "needs a --budget"),
        (["--service", "--k", "auto", "--budget", "much"], "not understood"),
        (["--service", "--k", "fast"], "a fraction such as 0.2, or auto"),
        (["--service", "--k", "2"], "above 0 and at most 1"),
    ],
)
def test_deploy_refuses_what_the_unit_could_not_serve(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    from tatvpr_edge.cli import main

    assert main(["deploy", "nowhere", "local:", *words]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("fails", ["", "restart"])
def test_the_unit_is_installed_restarted_and_its_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f'case "$*" in *{fails or "no-such-word"}*) echo Job failed >&2; exit 1;; esac\n'
        "echo active\n"
    )
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    unit = tmp_path / "units" / service.UNIT
    monkeypatch.setattr(service, "unit_path", lambda: str(unit))
    store = Store(str(tmp_path), Disk())
    assert service.after_switch(store, ["python3"], None) is None and not log.exists()
    if fails:
        with pytest.raises(DeployError, match=r"systemctl restart .* failed on the board: Job"):
            service.after_switch(store, ["python3"], True)
    else:
        assert service.after_switch(store, ["python3"], True) == "active"
        assert "daemon-reload" in log.read_text() and "enable" in log.read_text()
        # Another root's service is not touched.
        log.unlink()
        other = Store(str(tmp_path / "other"), Disk())
        assert service.after_switch(other, ["python3"], None) is None and not log.exists()
        assert str(tmp_path) in unit.read_text()
        assert service.after_switch(store, ["python3"], False) is None
        assert "disable --now" in log.read_text()
    # A unit that failed to install, or is no longer wanted, meets no later deploy.
    assert not unit.exists()
    assert service.after_switch(store, ["python3"], None) is None


@pytest.mark.parametrize("lingers", ["yes", "no"])
def test_what_ends_a_service_without_a_word_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Path, lingers: str
) -> None:
    """The end of a user's last login; and another install root's service of the same user."""
    loginctl = systemd.parent / "bin" / "loginctl"
    loginctl.write_text(f"#!/bin/sh\necho {lingers}\n")
    loginctl.chmod(0o755)
    monkeypatch.setattr(service, "unit_path", lambda: str(tmp_path / service.UNIT))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    first, second = (Store(str(tmp_path / name), Disk()) for name in ("a b", "other"))
    for _ in range(2):
        service.after_switch(first, ["python3"], True)
    service.after_switch(second, ["python3"], True)
    ends = "run `sudo loginctl enable-linger 1000` there"
    assert [text.endswith(ends) for text in first.warnings] == [True] * 2 * (lingers == "no")
    assert f"{service.UNIT} served {tmp_path}/a b until now" in second.warnings[0]


def test_another_roots_service_that_is_put_back_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Path
) -> None:
    """Its unit was there again, and went on with the release of the deploy that failed."""
    monkeypatch.setattr(service, "unit_path", lambda: str(tmp_path / service.UNIT))
    first, second = (Store(str(tmp_path / name), Disk()) for name in ("first", "second"))
    service.after_switch(first, ["python3"], True)
    before = service.unit()
    service.after_switch(second, ["python3"], True)
    systemd.write_text("")
    service.put_back(second, before)
    assert service.unit() == before
    assert systemd.read_text().splitlines()[-1].endswith(f"restart {service.UNIT}")


def test_a_restart_that_takes_long_is_waited_for_and_the_host_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two minutes of silence the host took the board for gone."""
    systemctl, heard = tmp_path / "systemctl", tmp_path / "heard"
    systemctl.write_text(f"#!/bin/sh\nuntil [ -e {heard} ]; do sleep 0.02; done\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    service.restart_units(["robot.service"], heard.touch)
    heard.unlink()
    monkeypatch.setattr(service, "RESTART_S", 0.1)
    with pytest.raises(DeployError, match=r"restart robot.service took more than 0 s"):
        service.restart_units(["robot.service"], lambda: None)


@pytest.mark.parametrize("runs", [True, False])
def test_systemd_is_looked_for_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if not runs:
        (programs / "systemctl").write_text(
            "#!/bin/sh\necho System has not been booted with systemd >&2; exit 1\n"
        )
        (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    service.look(None)
    service.look(False)
    with pytest.raises(DeployError, match=r"systemd.*: deploy without --service"):
        service.look(True)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that knows every unit but ``unknown``, starts all but ``broken``; its log."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        'case "$*" in\n'
        "*show*unknown*) echo not-found;;\n"
        "*show*) echo loaded;;\n"
        "*restart*broken*) echo Job for broken.service failed >&2; exit 1;;\n"
        "esac\n"
    )
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return log


def deploy_command(
    root: Path, wheel: Path, artifact: Artifact, *words: str, command: str = "deploy"
) -> int:
    """The command line's exit status, for this machine as the board."""
    from tatvpr_edge.cli import main

    named = [str(artifact.root)] if command == "deploy" else []
    given = ["--wheel", str(wheel), *words] if command == "deploy" else list(words)
    where = ["--root", str(root), "--python", shlex.quote(sys.executable)]
    return main([command, *named, "local:", *where, "--watch-seconds", "0.1", *given])


def test_deploy_restarts_the_robot_s_own_units(
    ram_path: Path,
    wheel: Path,
    pair: tuple[Artifact, Artifact],
    systemd: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, (old, new) = ram_path / "root", pair
    units = ["--restart", "robot", "--restart", "cam@1.service"]
    assert deploy_command(root, wheel, old, *units) == 0
    assert "restarted robot.service, cam@1.service" in capsys.readouterr().out
    asked = [line.split()[-1] for line in systemd.read_text().splitlines() if "restart" in line]
    assert asked == ["robot.service", "cam@1.service"]
    assert deploy_command(root, wheel, new) == 0
    systemd.write_text("")
    assert deploy_command(root, wheel, old, "--restart", "robot", command="rollback") == 0
    assert live_content(root) == hash_of(old) and "restart robot.service" in systemd.read_text()


@pytest.fixture
def serving_old(ram_path: Path, wheel: Path, systemd: Path) -> Options:
    """To a board that serves its old release by a unit; what was asked of systemd is forgotten."""
    unit, options = ram_path / "units" / service.UNIT, quick_options(ram_path / "root", wheel)
    modules = [
        (name, text + f"\ndef unit_path(): return {str(unit)!r}\n" * name.endswith(".service"))
        for name, text in options.modules or ()
    ]
    options = replace(options, modules=modules, service=True)
    deploy(local_transport(), make_artifact(ram_path / "old", b"old"), None, options)
    assert unit.exists()
    systemd.write_text("")
    return replace(options, service=None)


def with_agent(options: Options, text: str) -> Options:
    """To a board whose agent has these lines, too."""
    modules = list(options.modules or ())
    modules[-1] = (modules[-1][0], modules[-1][1] + text)
    return replace(options, modules=modules)


_FULL_AT_LAST = """
def _full(self, descriptor, data):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
def _step(self, name, real=Agent._step):
    real(self, name)
    if name == "back":
        Disk.write = _full
Agent._step = _step
"""


_KEEPS_ITS_SPARE = """
def _stays(self):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
Store.is_short, Store.drop_spare = lambda self: True, _stays
"""


@pytest.mark.parametrize("fails", ["", _FULL_AT_LAST, _KEEPS_ITS_SPARE])
def test_the_service_runs_the_old_release_again_where_the_new_one_fails(
    ram_path: Path, serving_old: Options, systemd: Path, fails: str
) -> None:
    bad = make_artifact(ram_path / "bad", b"bad", "service-wrong")
    with pytest.raises(DeployError, match="went back"):
        deploy(local_transport(), bad, None, with_agent(serving_old, fails))
    asked = [line for line in systemd.read_text().splitlines() if "restart" in line]
    assert len(asked) == 1 and asked[0].endswith(f"restart {service.UNIT}")


@pytest.mark.parametrize("again", [False, True])
def test_a_deploy_that_goes_back_leaves_the_service_as_it_was(
    ram_path: Path, serving_old: Options, systemd: Path, again: bool
) -> None:
    """It was gone, or another one, where a unit of the robot's did not start after it."""
    unit = ram_path / "units" / service.UNIT
    before = unit.read_bytes()
    wanted = replace(serving_old, service=again, restart=("broken",), serve=("--k", "0.2") * again)
    new = make_artifact(ram_path / "new", b"new")
    with pytest.raises(DeployError, match="went back"):
        deploy(local_transport(), new, None, wanted)
    assert unit.read_bytes() == before
    asked = systemd.read_text().split("\n")
    assert f"enable {service.UNIT}" in asked[-4] and f"restart {service.UNIT}" in asked[-3]
    # So it is where the release is live already, and nothing goes back.
    deploy(local_transport(), new, None, serving_old)
    systemd.write_text("")
    with pytest.raises(DeployError, match="is live already, and fails"):
        deploy(local_transport(), new, None, wanted)
    assert unit.read_bytes() == before
    assert systemd.read_text().splitlines()[-1].endswith(f"restart {service.UNIT}")
    # Nor is one left where there was none.
    deploy(local_transport(), new, None, replace(serving_old, service=False))
    with pytest.raises(DeployError, match="is live already, and fails"):
        deploy(local_transport(), new, None, replace(wanted, service=True))
    assert not unit.exists()


@pytest.mark.parametrize("behaviour", ["", "service-wrong"])
def test_the_service_runs_what_an_interrupted_deploy_is_settled_to(
    ram_path: Path, serving_old: Options, systemd: Path, behaviour: str
) -> None:
    """It went on with the release that failed, or with the one before that was confirmed."""
    new = make_artifact(ram_path / "new", b"new", behaviour)
    dies = "\nHealth.alive = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    with pytest.raises(DeployError, match="ended early"):
        deploy(local_transport(), new, None, with_agent(serving_old, dies))
    assert "restart" not in systemd.read_text()
    refused = make_artifact(ram_path / "refused", b"refused", "golden-fails")
    with pytest.raises(DeployError, match="golden vectors"):
        deploy(local_transport(), refused, None, serving_old)
    assert f"restart {service.UNIT}" in systemd.read_text()


def test_a_host_that_leaves_as_a_deploy_is_settled_leaves_the_service_what_was_settled(
    ram_path: Path, serving_old: Options, systemd: Path
) -> None:
    """systemctl was killed before it had asked, and nobody asks again."""
    new = make_artifact(ram_path / "new", b"new")
    dies = "\nHealth.alive = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    leaves = """
def _left(*words, real=service.restart_after_return):
    Channel.host_gone = lambda self: True
    real(*words)
service.restart_after_return = _left
"""
    for text in (dies, leaves):
        with pytest.raises(DeployError, match="ended early"):
            deploy(local_transport(), new, None, with_agent(serving_old, text))
    assert f"restart {service.UNIT}" in systemd.read_text()


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("broken", r"systemctl .*restart broken.service failed .*: Job.*: went back, .* is live"),
        ("unknown", r"unit unknown.service cannot be restarted: it is not-found"),
        ("--now", r"'--now' is no name of a systemd unit"),
        ("a b", r"'a b' is no name of a systemd unit"),
    ],
)
def test_a_unit_that_does_not_start_leaves_the_release_before(
    ram_path: Path,
    wheel: Path,
    pair: tuple[Artifact, Artifact],
    systemd: Path,
    capsys: pytest.CaptureFixture[str],
    unit: str,
    said: str,
) -> None:
    root, (old, new) = ram_path / "root", pair
    assert deploy_command(root, wheel, old) == 0
    assert deploy_command(root, wheel, new, f"--restart={unit}", "--restart=robot") == 1
    assert re.search(said, capsys.readouterr().err)
    assert live_content(root) == hash_of(old)
    if unit == "broken":  # the program that was asked for runs on the old release again
        assert systemd.read_text().splitlines()[-1].endswith("restart robot.service")
        state = root / "state.json"
        assert list(json.loads(state.read_text())["failed"].values())
        assert deploy_command(root, wheel, new) == 0  # and is no failed one any longer
        assert json.loads(state.read_text())["failed"] == {}
    else:
        assert "restart" not in (systemd.read_text() if systemd.exists() else "")

"""Boards that lack what they need, or are other machines: named, with what to do."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.board import (
    Sshd,
    board_modules,
    live_content,
    local_transport,
    make_artifact,
    quick_options,
)
from support.tools import require_tool
from tatvpr_edge.deploy.push import deploy
from tatvpr_edge.deploy.release import open_artifact
from tatvpr_edge.deploy.session import Session
from tatvpr_edge.deploy.transport import LocalTransport
from tatvpr_edge.spec.errors import ArtifactError, BoardError, DeployError, TatvprError


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


def test_a_disk_that_became_read_only_is_not_taken_for_somebody_else_s(
    ram_path: Path, wheel: Path
) -> None:
    """As a kernel mounts a card that failed: `chown` was the remedy."""
    make_artifact(ram_path / "a")
    python, disk = shlex.quote(sys.executable), ram_path / "disk"
    deploys = (
        f"{python} -m tatvpr_edge deploy {ram_path}/a local: --root {disk}/root --python {python} "
        f"--wheel {wheel} --watch-seconds 0"
    )
    said = on_noexec(
        disk,
        f"mount -t tmpfs none {disk} && {deploys} && mount -o remount,ro {disk} && {{ {deploys}; "
        f"{python} -m tatvpr_edge rollback local: --root {disk}/root --python {python}; "
        f"{deploys.replace('/root', '/another')}; }}",
    )
    assert "is live" in said.stdout
    errors = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert all("mounted read-only" in line and "remount it" in line for line in errors)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is another user, too")
def test_a_root_of_another_user_names_who_may_write_it(ram_path: Path, wheel: Path) -> None:
    (ram_path / "packages" / "numpy").mkdir(parents=True)
    (ram_path / "packages" / "numpy" / "__init__.py").write_text("")
    ram_path.chmod(0o755)
    if not all(folder.stat().st_mode & 0o001 for folder in ram_path.parents):
        pytest.skip("another user does not get to this machine's folder of temporary files")
    python = require_tool("/usr/bin/python3", "python3")
    other = require_tool("setpriv", "util-linux") + " --reuid 1000 --regid 1000 --clear-groups env"
    other += f" HOME=/nonexistent PYTHONPATH={ram_path}/packages {python}"
    artifact = make_artifact(ram_path / "a")
    deploy(local_transport(), artifact, None, quick_options(ram_path / "root", wheel))
    for root in (ram_path / "root", ram_path / "new"):
        says = rf"may not read or write {root} .*as its owner, `chown` it"
        with pytest.raises(DeployError, match=says):
            deploy(local_transport(), artifact, None, quick_options(root, wheel, python=other))
    assert live_content(ram_path / "root")


def test_a_numpy_that_lacks_its_libraries_is_named(ram_path: Path) -> None:
    """The last line of a page was told, without what it is about."""
    numpy = ram_path / "packages" / "numpy" / "__init__.py"
    numpy.parent.mkdir(parents=True)
    numpy.write_text(
        "raise ImportError('\\n\\nImporting the numpy C-extensions failed.\\n\\nOriginal error "
        "was: libopenblas.so.0: cannot open shared object file\\n')"
    )
    python = f"env PYTHONPATH={numpy.parent.parent} {shlex.quote(sys.executable)}"
    options = quick_options(ram_path / "root", runtime="always", python=python)
    says = r"NumPy of .* \(.*libopenblas.so.0: .* file\): install python3-numpy"
    with pytest.raises(DeployError, match=says):
        deploy(local_transport(), make_artifact(ram_path / "a"), None, options)


def test_a_disk_of_temporary_files_that_is_full_is_not_taken_for_wrong_vectors(
    ram_path: Path, wheel: Path
) -> None:
    """What the runtime said had no room: "the golden vectors did not pass: nothing said"."""
    make_artifact(ram_path / "a")
    python, disk = shlex.quote(sys.executable), ram_path / "disk"
    said = on_noexec(
        disk,
        f"mount -t tmpfs -o size=16k none {disk} && head -c 12288 /dev/zero > {disk}/fill && "
        f"TMPDIR={disk} {python} -m tatvpr_edge deploy {ram_path}/a local: --root {ram_path}/root "
        f"--python {python} --wheel {wheel} --watch-seconds 0",
    )
    assert "is live" in said.stdout, said.stderr


def test_a_python_without_files_in_memory_hears_what_its_runtime_says(
    ram_path: Path, wheel: Path
) -> None:
    """One that was built for an old C library: the agent itself ended with an AttributeError."""
    root = ram_path / "root"
    modules = [
        (name, text + "\ndel os.memfd_create\n" * name.endswith(".health"))
        for name, text in board_modules(root)
    ]
    options = quick_options(root, wheel, modules=modules)
    artifact = make_artifact(ram_path / "a", b"a", "golden-fails")
    with pytest.raises(DeployError, match=r"did not pass: .*golden vectors at k = 0.2 differ"):
        deploy(local_transport(), artifact, None, options)


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


def test_a_system_of_32_bits_on_a_kernel_of_64_is_another_processor(ram_path: Path) -> None:
    """All was sent before its golden vectors did not load."""
    options = quick_options(ram_path / "root")
    modules = [
        (name, text + "\nsys.maxsize = 2**31 - 1\n" * name.endswith(".admission"))
        for name, text in options.modules or ()
    ]
    with pytest.raises(ArtifactError, match=rf"this board is 32-bit \({platform.machine()}\)"):
        deploy(
            local_transport(),
            make_artifact(ram_path / "a"),
            None,
            replace(options, modules=modules),
        )
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

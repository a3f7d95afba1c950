"""Deploy, deploy again, roll back, ask: as a user does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tatvpr_edge
from support.board import (
    Sshd,
    inventory,
    live_content,
    local_transport,
    make_artifact,
    quick_options,
)
from tatvpr_edge.cli import main
from tatvpr_edge.deploy import push
from tatvpr_edge.deploy.push import Options, deploy, rollback, status
from tatvpr_edge.deploy.script import release_script
from tatvpr_edge.deploy.session import agent_modules
from tatvpr_edge.deploy.transport import LocalTransport
from tatvpr_edge.spec.errors import DeployError, TatvprError, UsageError


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
    assert set(json.loads((root / "state.json").read_text())["history"]) == {names[2], last}
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


def test_the_runtime_travels_when_it_is_missing_or_older(
    ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a checkout's: two hosts' wheels of 0.2.0.dev0 were taken for the same."""
    artifact = make_artifact(ram_path / "a", b"a")
    options = quick_options(ram_path / "root")
    facts: dict[str, str | None] = {"runtime": None}
    monkeypatch.setattr(tatvpr_edge, "__version__", "0.2.0")
    known = {None: True, "0.1.9": True, "0.2.0": False, "9.0": False, "9.0.dev0": True, "a": True}
    for facts["runtime"], travels in known.items():
        assert push._runtime_travels(options, facts) is travels
    monkeypatch.setattr(tatvpr_edge, "__version__", "0.2.0.dev0")
    for facts["runtime"] in ("0.2.0.dev0", "0.2.0", "9.0"):
        assert push._runtime_travels(options, facts)
    assert push._runtime_travels(replace(options, runtime="always"), facts)
    assert not push._runtime_travels(replace(options, runtime="never"), {"runtime": None})
    # A wheel is taken as it is; what is not ours is refused.
    bad = ram_path / "bad.whl"
    bad.write_bytes(b"PK no zip")
    with pytest.raises(DeployError, match="is no wheel"):
        deploy(local_transport(), artifact, None, replace(options, wheel=bad))


def test_where_the_boards_own_runtime_refuses_a_release_the_option_is_named(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board with a runtime of the same number, of another day, was told to update tatvpr-edge."""
    artifact = make_artifact(ram_path / "a", b"a", "golden-fails")
    (ram_path / "there" / "tatvpr_edge-9.0.dist-info").mkdir(parents=True)
    board = LocalTransport(environment=(("PYTHONPATH", str(ram_path / "there")),))
    monkeypatch.setattr(tatvpr_edge, "__version__", "9.0")
    with pytest.raises(DeployError, match=r"golden .*own runtime 9.0 ran it: .*--runtime always"):
        deploy(board, artifact, None, quick_options(ram_path / "root"))
    with pytest.raises(DeployError, match="golden") as caught:
        deploy(local_transport(), artifact, None, quick_options(ram_path / "other", wheel))
    assert "--runtime" not in str(caught.value)


def test_the_releases_own_python_runs_with_its_runtime(ram_path: Path, wheel: Path) -> None:
    root = ram_path / "with space" / "root"
    deploy(local_transport(), make_artifact(ram_path / "a"), None, quick_options(root, wheel))
    program = "import tatvpr_edge; print(tatvpr_edge.__file__)"
    command = f"cd / && {shlex.quote(str(root / 'current' / 'python'))} -c {shlex.quote(program)}"
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert said.startswith(str((root / "current").resolve()) + "/runtime/")


def test_a_releases_python_answers_from_its_own_root_with_the_boards_runtime_as_well(
    ram_path: Path,
) -> None:
    root = ram_path / "with space" / "releases" / "root"
    script = root / "releases" / "one" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(release_script([sys.executable]))
    program = "from tatvpr_edge.runtime.deployed import install_root; print(install_root())"
    there = {name: os.environ[name] for name in ("HOME", "PATH")}
    for env, answers in ((there, root), ({**there, "TATVPR_EDGE_ROOT": "/else"}, Path("/else"))):
        command = ["sh", script, "-c", program]
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        assert Path(said.strip()) == answers


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

"""A board's live release is profiled where it lies: by its own command, and over SSH."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from support.board import deployed, quick_options, running_sshd
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.push import deploy
from tatvpr_edge.deploy.transport import LocalTransport
from tatvpr_edge.profile.document import check_document
from tatvpr_edge.profile.remote import profile_on
from tatvpr_edge.runtime.__main__ import main as board_main
from tatvpr_edge.runtime.profile import settings_for
from tatvpr_edge.runtime.profiling import Plan, Setting
from tatvpr_edge.spec.artifact import MANIFEST, read_artifact
from tatvpr_edge.spec.errors import DeployError, UsageError
from tatvpr_edge.spec.manifest import seal


def test_the_boards_own_command(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--k", "1,.2", "--tokens", "1,.5", "--repeats", "3", "--warmup", "0"]
    assert board_main(["profile", str(tiny_artifact), *words]) == 0
    captured = capsys.readouterr()
    document = check_document(json.loads(captured.out), "what the board printed")
    assert [(p["k"], p["tokens"]) for p in document["points"]] == [
        (1.0, 1.0), (0.2, 1.0), (1.0, 0.5), (0.2, 0.5)
    ]  # fmt: skip
    assert board_main(["profile", str(tiny_artifact), "--k", "fast"]) == 1
    assert capsys.readouterr().err.startswith("error: 'fast'")


def test_a_board_measures_its_live_release(tiny_artifact: Path, tmp_path: Path) -> None:
    root = tmp_path / "board with spaces"
    deployed(root, tiny_artifact)
    told: list[str] = []
    plan = Plan((Setting(1.0), Setting(0.2)), warmup=0, repeats=3)
    document = profile_on(
        LocalTransport(), tiny_artifact, plan, str(root), sys.executable, tell=told.append
    )
    assert [point["k"] for point in document["points"]] == [1.0, 0.2]
    assert any(line.startswith("k=0.2") for line in told)


def test_a_board_measures_the_frontier_alone_and_not_every_pair_of_its_numbers(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    document = json.loads((tiny_artifact / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 0.5, "recall": 48.0}]  # fmt: skip
    (tiny_artifact / MANIFEST).write_bytes(seal(document))
    deployed(tmp_path, tiny_artifact)

    def measured(settings: tuple[Setting, ...]) -> list[tuple[float, float]]:
        plan = Plan(settings, warmup=0, repeats=3)
        there = profile_on(LocalTransport(), tiny_artifact, plan, str(tmp_path), sys.executable)
        return [(point["k"], point["tokens"]) for point in there["points"]]

    assert measured(settings_for(tiny_artifact, None, None)) == [(1.0, 1.0), (0.4, 0.5)]
    grid = settings_for(tiny_artifact, [1.0, 0.4], [1.0, 0.5])
    assert len(measured(grid)) == 4
    with pytest.raises(UsageError, match="these settings are neither"):
        measured((*grid[:2], Setting(0.2, 0.5)))


def test_a_board_without_a_release_or_with_another(tiny_artifact: Path, tmp_path: Path) -> None:
    plan = Plan((Setting(1.0),), warmup=0, repeats=1)
    with pytest.raises(DeployError, match="nothing is deployed") as empty:
        profile_on(LocalTransport(), tiny_artifact, plan, str(tmp_path), sys.executable)
    reaching = shlex.join(["local:", "--root", str(tmp_path), "--python", sys.executable])
    assert str(empty.value).endswith(f"run `tatvpr-edge deploy ARTIFACT {reaching}` first")
    root, other = tmp_path / "root", tmp_path / "other"
    deployed(root, tiny_artifact)
    with pytest.raises(DeployError, match="exit status 127"):
        profile_on(LocalTransport(), tiny_artifact, plan, str(root), "no-such-python")
    shutil.copytree(tiny_artifact, other)
    golden = next((other / "golden").glob("*.rgb"))
    golden.write_bytes(bytes(255 - byte for byte in golden.read_bytes()))
    manifest = json.loads((other / MANIFEST).read_text())
    for entry in manifest["files"]:
        if entry["path"] == f"golden/{golden.name}":
            entry["sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (other / MANIFEST).write_bytes(seal(manifest))
    (root / "current/python").write_text('echo measured > "$0.ran"; exit 1\n')
    with pytest.raises(DeployError, match="runs another artifact") as differs:
        profile_on(LocalTransport(), other, plan, str(root), sys.executable)
    assert not (root / "current/python.ran").exists()  # told before minutes of measuring
    reaching = shlex.join([str(other), "local:", "--root", str(root), "--python", sys.executable])
    assert str(differs.value).endswith(f"deploy it first (tatvpr-edge deploy {reaching})")


@pytest.mark.slow
def test_profile_on_a_board_over_ssh(tiny_artifact: Path, tmp_path: Path) -> None:
    """A real deploy over a real sshd, then the command as a user types it."""
    root, out = tmp_path / "root", tmp_path / "out"
    with running_sshd(tmp_path / "etc") as sshd:
        deploy(
            sshd.transport(),
            tiny_artifact,
            options=quick_options(root, runtime="always", python=sys.executable),
        )
        words = ["profile", str(tiny_artifact), "--on", "127.0.0.1", "--port", str(sshd.port)]
        words += ["--ssh-config", str(sshd.config), "--root", str(root), "--k", "1,.2"]
        assert main([*words, "--repeats", "5", "--recall", "none", "-o", str(out)]) == 0
    document = json.loads((out / "profile.json").read_text())
    assert [point["k"] for point in document["points"]] == [1.0, 0.2]
    assert "plot-latency" in (out / "report.html").read_text()
    points = read_artifact(tiny_artifact).manifest.profile["points"]
    assert points[0]["latency_ms"]["p50"] > 0

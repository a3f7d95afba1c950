"""``build`` and ``verify``: what is good is accepted, everything else is one line and no folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.cli import main
from tatvpr_edge.cli.build import next_step
from tatvpr_edge.spec.artifact import MANIFEST

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_build_for_another_machine_says_what_comes_next(tmp_path: Path) -> None:
    assert next_step(tmp_path, "host") is None
    sent = next_step(tmp_path / "my pi", "raspberry-pi-5")
    assert sent == f"send it: tatvpr-edge deploy '{tmp_path}/my pi' USER@HOST"
    (tmp_path / "MEMORY.md").touch()
    told = next_step(tmp_path, "stm32h7")
    assert told is not None and f"{tmp_path}/example/main.c" in told


def test_a_model_is_built_for_this_machine_and_verified(
    tatvpr: Run, tiny_onnx: Path, tmp_path: Path
) -> None:
    done = tatvpr("build", "--board", "host", "--model", tiny_onnx, "-o", "A", "--json")
    document = json.loads(done.stdout)
    assert document["board"] == "host" and not document["signed"] and done.stderr == ""
    verified = tatvpr("verify", "A", "--board", "host")
    assert "agree byte for byte" in verified.stdout
    results = json.loads(tatvpr("verify", "A", "--json").stdout)
    assert results["model_hash"] == document["model_hash"] and results["golden_note"] is None
    assert {result["k"] for result in results["golden"]} >= {1.0, 0.6, 0.4, 0.2, 0.05}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A"]


def test_the_same_build_gives_the_same_artifact(
    tatvpr: Run, tiny_onnx: Path, tiny_host: Path, tmp_path: Path
) -> None:
    tatvpr("build", "--board", "host", "--model", tiny_onnx, "-o", "A")
    assert (tmp_path / "A" / MANIFEST).read_bytes() == (tiny_host / MANIFEST).read_bytes()


def test_an_artifact_of_another_machine_is_verified_without_running(
    tatvpr: Run, tiny_arm64: Path
) -> None:
    done = tatvpr("verify", tiny_arm64, "--board", "jetson-orin-nano")
    assert "golden: not run (aarch64)" in done.stdout


@pytest.mark.parametrize("artifact", ["tiny_host", "tiny_arm64"])
def test_verify_refuses_what_was_harmed(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    artifact: str,
) -> None:
    def refusal(*options: str) -> str:
        assert main(["verify", str(copy), *options]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1
        return shown.err

    good: Path = request.getfixturevalue(artifact)
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert path.name in refusal()
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    (copy / "weights.bin").rename(tmp_path / "aside")
    assert "weights.bin is missing" in refusal()
    (tmp_path / "aside").rename(copy / "weights.bin")
    assert "not stm32h7" in refusal("--board", "stm32h7")
    document = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**document, "format_version": 3}))
    assert "format 3 is newer" in refusal()
    (copy / MANIFEST).write_text(json.dumps({**document, "format_version": 1}))
    assert f"tatvpr-edge build --board {document['board']} --model tiny" in refusal()


def test_a_wrong_golden_vector_is_told(tatvpr: Run, tiny_host: Path, tmp_path: Path) -> None:
    """Hashes alone do not make an artifact good: what it computes is compared too."""
    from tatvpr_edge.spec.artifact import read_artifact, write_artifact

    good = read_artifact(tiny_host)
    files = {entry.path: good.path(entry.path).read_bytes() for entry in good.manifest.files}
    name = next(point.path for point in good.manifest.golden.points if point.k == 0.4)
    files[name] = bytes([files[name][0] ^ 1]) + files[name][1:]
    write_artifact(tmp_path / "A", good.manifest, files)
    assert "golden vectors differ at k=0.4" in tatvpr("verify", "A", status=1).stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tatvpr: Run, tiny_onnx: Path, tmp_path: Path
) -> None:
    arguments = ["build", "--board", "host", "--model", tiny_onnx, "--dry-run"]
    document = json.loads(tatvpr(*arguments, "--json").stdout)
    assert document["board"] == "host" and document["arena_bytes"] > 0
    assert "MAC" in tatvpr(*arguments).stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("board", "model", "whose"),
    [
        ("host", "micro", "this machine"),
        ("raspberry-pi-5", "mini", "boards like raspberry-pi-5"),
        ("stm32h7", "nano", "boards like stm32h7"),
    ],
)
def test_a_build_without_a_model_takes_the_boards_own_and_says_so(
    tatvpr: Run, board: str, model: str, whose: str
) -> None:
    told = tatvpr("build", "--board", board, "--dry-run").stdout.splitlines()
    assert told[0] == f"model: {model}, the shipped one for {whose}; --model names another"
    assert told[1].startswith(f"{model} (") and f" for {board}" in told[1]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--board", "toaster"], 1, "unknown board 'toaster'"),
        (["--board", "host", "--model", "nowhere.onnx"], 1, "no such ONNX file"),
        (["--board", "host", "--model", "giant"], 1, "unknown model 'giant'"),
        (["--board", "host", "-o", "exists"], 1, "exists"),
        (["--board", "host", "--k-range", "1:.2"], 1, "smaller k first"),
        (["--board", "host", "--k-range", "0:1"], 2, "above 0"),
        (["--board", "host", "--k-range", "fast"], 2, "not a range"),
        (["--board", "host", "--backend", "tensorrt"], 1, "no GPU"),
        (["--board", "host", "--backend", "magic"], 2, "magic"),
        ([], 2, "--board"),
    ],
)
def test_a_build_that_cannot_be_is_told(
    tatvpr: Run, tiny_onnx: Path, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    (tmp_path / "exists").mkdir()
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_onnx)]
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "made"]
    assert words in tatvpr("build", *arguments, status=status).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["exists"]
    assert list((tmp_path / "exists").iterdir()) == []

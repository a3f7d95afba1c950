"""What a newcomer types first, and what the shell completes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("words", [[], ["map"], ["keys"]])
def test_a_group_without_a_command_prints_its_help(tatvpr: Run, words: list[str]) -> None:
    done = tatvpr(*words)
    assert done.stdout.startswith("Usage: tatvpr-edge " + "".join(words))
    assert "Commands:" in done.stdout and done.stderr == ""
    assert done.stdout == tatvpr(*words, "--help").stdout


@pytest.mark.parametrize("words", [["map"], ["keys"]])
def test_the_help_of_a_group_has_whole_sentences(tatvpr: Run, words: list[str]) -> None:
    """click cut them: "Add the frames of FRAMES to MAP: all that can be used or, on..."."""
    commands = tatvpr(*words, "--help").stdout.split("Commands:\n")[1]
    told = re.split(r"\n(?=  \w)", commands.rstrip())
    assert len(told) > 5 and all(line.endswith(".") for line in told)
    assert "..." not in commands


@pytest.mark.parametrize(
    "words",
    [
        ["map", "build", "", "-o", "m.placemap"],
        ["query", ""],
        ["query", "frame.png", "--map", ""],
        ["query", "frame.png", "--map="],
        ["query", "frame.png", "--map", "m", "--k="],
        ["evaluate", "", "asked"],
        ["finetune", " "],
        ["build", "--board", "host", "--output", ""],
        ["deploy", "", "user@board"],
    ],
)
def test_an_empty_word_is_never_the_working_folder(
    tatvpr: Run, tmp_path: Path, words: list[str]
) -> None:
    """``map build "$FRAMES"`` with FRAMES unset mapped whatever lay in the working folder."""
    (tmp_path / "frame.png").touch()
    assert "an argument is empty" in tatvpr(*words, status=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["frame.png"]


def test_what_is_shipped_is_pointed_at(tatvpr: Run) -> None:
    """docs/training.md names files of a clone; who has installed a wheel has them elsewhere."""
    none = tatvpr("train", "--config", "models/train/recipes/micro.toml", status=1).stderr
    assert (Path(none.strip().rpartition("lie in ")[2]) / "micro.toml").is_file()
    asked = tatvpr("export", "micro", "--output", "m.onnx", status=1).stderr
    assert Path(asked.strip().rpartition("already: ")[2]).is_file()


def complete(folder: Path, *words: str) -> list[str]:
    """What bash would offer for the last of ``words``, asked as the script asks."""
    environment = {
        **os.environ,
        "_TATVPR_EDGE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["tatvpr-edge", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = "import sys; sys.argv = ['tatvpr-edge']; from tatvpr_edge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_boards_models_maps_and_artifacts_are_completed(tmp_path: Path) -> None:
    (tmp_path / "office.placemap").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "artifact").mkdir()
    (tmp_path / "own.onnx").touch()
    assert "evaluate" in complete(tmp_path, "e")
    assert complete(tmp_path, "build", "--board", "jetson-a") == ["jetson-agx-orin"]
    assert complete(tmp_path, "boards", "stm32h") == ["stm32h7"]
    assert "micro" in complete(tmp_path, "build", "--model", "m")
    assert complete(tmp_path, "build", "--model", "ow") == ["own.onnx"]
    assert complete(tmp_path, "map", "info", "o") == ["office.placemap"]
    assert complete(tmp_path, "query", "--map", "") == ["artifact/", "office.placemap"]
    assert complete(tmp_path, "verify", "") == ["artifact/"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_its_own(tatvpr: Run, shell: str) -> None:
    script = tatvpr("completion", shell).stdout
    assert "tatvpr-edge" in script and f"{shell}_complete" in script
    assert tatvpr("completion", SHELL=f"/usr/bin/{shell}").stdout == script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_told(tatvpr: Run) -> None:
    assert "bash, zsh, fish" in tatvpr("completion", status=1, SHELL="/bin/ksh").stderr

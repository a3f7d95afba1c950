"""Where a result cannot be written, that is told before the work is done, not after it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("describe", "frames", "-o", "{}.npy"),
        ("evaluate", "frames", "frames", "--html", "{}.html"),
        ("evaluate", "frames", "frames", "--csv", "{}.csv"),
        ("evaluate", "--data", "frames", "--protocol", "utm", "--plot", "{}.png"),
        ("evaluate", "frames", "frames", "--descriptors", "{}"),
        ("map", "build", "frames", "-o", "{}.placemap"),
        ("map", "merge", "m.placemap", "m.placemap", "-o", "{}.placemap"),
        ("demo", "-o", "{}.png"),
        ("watch", "frames", "--rerun", "{}.rrd"),
        ("profile", "artifact", "--output", "{}"),
        ("export", "nano", "--random", "1", "--output", "{}.onnx"),
        ("finetune", "frames", "--output", "{}"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
@pytest.mark.parametrize(
    ("target", "words"),
    [("file/a", "file is not a folder"), ("/proc/a", "/proc is not writable")],
)
def test_an_impossible_target_costs_no_work(
    tatvpr: Run,
    folder: Path,
    tiny_host: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    target: str,
    words: str,
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "frames").symlink_to(folder)
    (tmp_path / "artifact").symlink_to(tiny_host)
    wanted = [word.format(target) for word in arguments]
    told = tatvpr(*wanted, status=1).stderr
    assert f"cannot write {target}" in told and words in told
    assert "frames:" not in told and "measuring" not in told  # nothing was described or timed


def test_a_folder_that_is_missing_is_named(tatvpr: Run, folder: Path, tiny_host: Path) -> None:
    words = ("describe", folder, "-o", "no/where.npy", "--artifact", tiny_host)
    assert "no does not exist: create it first" in tatvpr(*words, status=1).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("describe", "frames", "-o", "a.txt"),
        ("evaluate", "--data", "frames", "--protocol", "utm", "--plot", "a.txt"),
        ("watch", "frames", "--rerun", "a.txt"),
    ],
    ids=lambda words: words[0],
)
def test_another_kind_of_file_is_told_first(
    tatvpr: Run, folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "frames").symlink_to(folder)
    assert "cannot write a.txt: name it with ." in tatvpr(*words, status=1).stderr

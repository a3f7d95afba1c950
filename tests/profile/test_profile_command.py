"""``tatvpr-edge profile`` of a real artifact: its settings, its files, and what it leaves alone."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_profile_files import check_trace

from support.board import deployed
from tatvpr_edge.cli import main
from tatvpr_edge.cli.profile import command
from tatvpr_edge.profile.recall import evaluated_recall
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.profile import fractions_from_text, settings_for
from tatvpr_edge.runtime.profiling import Plan, Setting, profile_artifact
from tatvpr_edge.spec.artifact import MANIFEST, read_artifact, replace_profile
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.manifest import seal


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_writes_every_file_and_the_artifacts_profile(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run(tiny_artifact, "--k", "1,.2", "--repeats", "20", "--warmup", "1", "-o", out,
              "--recall", "none", "--json")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    document = json.loads((out / "profile.json").read_text())
    assert printed == {**document, "files": str(out), "written": True}
    assert len(list(csv.DictReader((out / "profile.csv").read_text().splitlines()))) == 2
    check_trace(json.loads((out / "trace.json").read_text()))
    assert "plot-latency" in (out / "report.html").read_text()
    manifest = read_artifact(tiny_artifact).manifest
    assert [point["k"] for point in manifest.profile["points"]] == [1.0, 0.2]
    valid = [point["valid"] for point in manifest.profile["points"]]
    with Localizer(tiny_artifact, k="auto", preset="turbo") as localizer:
        assert localizer.governor is not None
        assert localizer.governor.ladder.measured is any(valid)
        assert localizer.governor.choose().k == 1.0


GOOD = [
    {"k": 0.2, "tokens": 1.0, "latency_ms": 2.5},
    {"k": 1.0, "tokens": 1.0, "latency_ms": 9},
]


@pytest.mark.parametrize("valid", [0, 1])
def test_where_no_point_is_valid_the_command_says_so(
    tiny_artifact: Path, tmp_path: Path, valid: int
) -> None:
    """The board is a program that prints what was measured here, throttled but for ``valid``."""
    plan = Plan((Setting(1.0), Setting(0.2)), warmup=0, repeats=3, attempts=1)
    document = profile_artifact(tiny_artifact, plan, root=str(tmp_path))
    for index, point in enumerate(document["points"]):
        point["valid"] = index < valid
        point["invalid"] = "" if index < valid else "7 thermal throttle events"
    (tmp_path / "said").write_text(json.dumps(document))
    board = tmp_path / "board"
    board.write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\n")
    board.chmod(0o755)
    deployed(tmp_path / "root", tiny_artifact)
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": []})
    words = (tiny_artifact, "--on", "local:", "--python", board, "--root", tmp_path / "root",
             "--k", "1,.2", "-o", tmp_path / "out", "--recall", "none")  # fmt: skip
    ran = run(*words)
    assert ran.exit_code == 0, ran.output
    assert "keeps the profile that it had" not in ran.stderr
    assert "left as it is" not in ran.stdout
    last = ran.stdout.splitlines()[-1]
    kept = read_artifact(tiny_artifact).manifest.profile["points"]
    assert [point["valid"] for point in kept] == [index < valid for index in range(2)]
    if valid:
        assert last == f"written into {tiny_artifact}: the governor uses the 1 valid of 2 points"
    else:
        assert last.startswith("no point is valid: ") and "nothing to go by" in last
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": GOOD})
    assert json.loads(run(*words, "--json").stdout)["written"] is bool(valid)


def test_no_write_leaves_the_artifact_as_it_was(tiny_artifact: Path, tmp_path: Path) -> None:
    before = (tiny_artifact / "manifest.json").read_bytes()
    ran = run(tiny_artifact, "--k", "1", "--repeats", "3", "-o", tmp_path / "out", "--no-write",
              "--recall", "none")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert "left as it is" in ran.stdout
    assert (tiny_artifact / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_recall_on_the_shipped_places(tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(tiny_artifact, "--k", "1", "--repeats", "3", "-o", out)
    assert ran.exit_code == 0, ran.output
    (point,) = json.loads((out / "profile.json").read_text())["points"]
    assert 0.0 < point["recall"] <= 1.0  # random weights recall little, but not nothing
    assert "98 queries, 49 places" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "0"], "above 0 and at most 1"),
        (["--k", "1.5"], "above 0 and at most 1"),
        (["--tokens", "fast"], "fast"),
        (["--recall", "nowhere.json"], "nowhere.json"),
        (["--k", "0.01"], "was built for 0.05 to 1"),
    ],
)
def test_wrong_arguments_are_one_line(
    tiny_artifact: Path, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(tiny_artifact), "--repeats", "1", *words]) in (1, 2)
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_a_full_disk_is_told_and_leaves_no_half_of_a_file(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "figures"
    words = ["profile", str(tiny_artifact), "--repeats", "1", "--recall", "none", "--no-write"]
    monkeypatch.setattr(os, "fsync", full)
    assert main([*words, "-o", str(folder)]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"error: cannot write {folder / 'profile.json'}: No space left on device"
    assert list(folder.iterdir()) == []


def test_a_signed_artifact_is_refused_before_it_is_measured(
    tiny_artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tiny_artifact / "manifest.sig").write_text("a signature\n")
    assert main(["profile", str(tiny_artifact)]) == 1
    assert "is signed" in capfd.readouterr().err


def test_a_profile_without_a_valid_point_does_not_replace_a_good_one(
    tiny_artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other programs use the processor while it is profiled: such points are for people alone."""
    replace_profile(tiny_artifact, {"device": {"cpu": "x"}, "points": GOOD})
    words = ["profile", str(tiny_artifact), "--k", "1,.2", "--recall", "none"]
    words += ["--repeats", "5", "--seconds", "1", "-o", str(tmp_path / "figures")]
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        assert main(words) == 0
    finally:
        for program in busy:
            program.kill()
            program.wait()
    said = capfd.readouterr()
    measured = json.loads((tmp_path / "figures" / "profile.json").read_text())["points"]
    assert [point["valid"] for point in measured] == [False, False]
    assert read_artifact(tiny_artifact).manifest.profile["points"] == GOOD
    assert "keeps the profile that it had" in said.err and "left as it is" in said.out


def test_settings_are_those_told_else_the_artifacts_frontier(
    tiny_host: Path, tmp_path: Path
) -> None:
    assert fractions_from_text("1,.2") == [1.0, 0.2] and fractions_from_text(None) is None
    with pytest.raises(UsageError, match="fractions with commas"):
        fractions_from_text("1;2")
    assert settings_for(tiny_host, [1.0, 0.2], [1.0, 0.5]) == (
        Setting(1.0, 1.0), Setting(0.2, 1.0), Setting(1.0, 0.5), Setting(0.2, 0.5)
    )  # fmt: skip
    assert [s.k for s in settings_for(tiny_host, None, None)] == [1.0, 0.6, 0.4, 0.2]
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 0.5, "recall": 48.0}]  # fmt: skip
    (tmp_path / "A" / MANIFEST).write_bytes(seal(document))
    assert settings_for(tmp_path / "A", None, None) == (Setting(1.0, 1.0), Setting(0.4, 0.5))
    assert settings_for(tmp_path / "A", [0.6], None) == (Setting(0.6, 1.0),)


def test_a_k_that_the_artifact_was_not_built_for_is_told_before_the_others_are_measured(
    tiny_host: Path, tmp_path: Path
) -> None:
    """A profile that names no k failed there, too, at k = 1 or after minutes at k = .2."""
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    (tmp_path / "A" / MANIFEST).write_bytes(
        seal({**document, "k_range": [0.3, 0.9], "defaults": {"k": 0.6, "tokens": 1.0}})
    )
    with pytest.raises(UsageError, match=r"k is 0.2: this artifact was built for 0.3 to 0.9"):
        settings_for(tmp_path / "A", [0.6, 0.2], None)
    assert [s.k for s in settings_for(tmp_path / "A", None, [0.5])] == [0.6, 0.4]


def test_what_each_setting_finds_comes_from_the_artifacts_frontier(
    tiny_host: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_host, tmp_path / "A")
    document = json.loads((tiny_host / MANIFEST).read_text())
    document["frontier"] = [{"k": 1.0, "tokens": 1.0, "recall": 50.0},
                            {"k": 0.4, "tokens": 1.0, "recall": 48.0}]  # fmt: skip
    (tmp_path / "A" / MANIFEST).write_bytes(seal(document))
    ran = run(tmp_path / "A", "--repeats", "3", "-o", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    made = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert [(p["k"], p["recall"]) for p in made["points"]] == [(1.0, 0.5), (0.4, 0.48)]
    profile = read_artifact(tmp_path / "A").manifest.profile
    assert [p["recall"] for p in profile["points"]] == [0.5, 0.48]
    assert "evaluation" in profile["device"]["recall_of"]
    frontier = read_artifact(tmp_path / "A").manifest.frontier
    assert evaluated_recall(frontier, (Setting(1.0), Setting(0.2))) is None
    assert evaluated_recall((), (Setting(1.0),)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": ()},
        {"settings": (Setting(0.0),)},
        {"settings": (Setting(1.0), Setting(1.0))},
        {"repeats": 0},
        {"attempts": 99},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Plan(**wrong)

"""``python -m tatvpr_edge.runtime``: the commands that a board has without click."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tatvpr_edge.runtime.__main__ import main


def test_help_lists_every_command_and_each_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("serve", "finish", "verify"):
        assert name in shown
        assert importlib.util.find_spec(f"tatvpr_edge.runtime.{name}") is not None


@pytest.mark.parametrize("words", [[], ["fly"], ["--json"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("usage: python -m tatvpr_edge.runtime")


def test_verify_prints_lines_or_one_document(
    tiny_host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny_host)]) == 0
    assert "agree byte for byte" in capsys.readouterr().out
    assert main(["verify", str(tiny_host), "--json", "--board", "host"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["board"] == "host" and all(g["identical"] for g in document["golden"])


def test_verify_refuses_with_one_line(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([str(tmp_path)], [str(tiny_host), "--board", "stm32h7"]):
        assert main(["verify", *words]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1
        assert shown.err.startswith("error: ")

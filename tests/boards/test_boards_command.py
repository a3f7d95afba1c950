"""`tatvpr-edge boards`: the list, one board, JSON, an unknown name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.cli.boards import command
from tatvpr_edge.spec.errors import BoardError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_has_one_line_for_each_board() -> None:
    lines = run().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(names())
    assert "512 KiB axi" in next(line for line in lines if line.startswith("stm32h7"))


@pytest.mark.parametrize("name", names())
def test_one_board_shows_limits_operators_and_verification(name: str) -> None:
    shown = run(name)
    for word in (name, "operators", "TopKGate", "compilers", "verified"):
        assert word in shown


def test_no_line_ends_in_blanks() -> None:
    """A pipe, a file or a forum gets what is said, not the table's padding."""
    for line in (run() + run("stm32h7")).splitlines():
        assert line == line.rstrip()


def test_json_is_one_document() -> None:
    boards = json.loads(run("--json"))
    assert [board["name"] for board in boards] == list(names())
    orin = json.loads(run("jetson-orin-nano", "--json"))
    assert orin["gpu"]["sm"] == 87
    assert orin["operators"]["tensorrt"] == ["GatedTernaryMatMul", "QuantAttention"]
    assert orin == boards[list(names()).index("jetson-orin-nano")]


def test_an_unknown_board_is_one_error() -> None:
    with pytest.raises(BoardError, match="did you mean jetson-thor"):
        CliRunner().invoke(command, ["jetson-tor"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("rpi5", "raspberry-pi-5"),
        ("pi zero 2 w", "raspberry-pi-zero-2w"),
        ("Jetson-Orin-Nano", "jetson-orin-nano"),
        ("jetson-orin-nan0", "jetson-orin-nano"),
        ("jetson-orin", "jetson-orin-nano or jetson-orin-nx"),
        ("orin", "jetson-agx-orin or jetson-orin-nano or jetson-orin-nx"),
        ("stm32h743zi", "stm32h7"),
        ("pico2", "rp2350"),
        ("x86_64", "host"),
    ],
)
def test_a_board_is_known_by_what_people_call_it(word: str, meant: str) -> None:
    with pytest.raises(BoardError, match=rf": did you mean {meant}\?$"):
        load(word)


@pytest.mark.parametrize("word", ["", "zzz", "cortex-m7", "a/b", "ü" * 300, "x" * 100_000])
def test_a_word_that_means_no_board_lists_them(word: str) -> None:
    with pytest.raises(BoardError, match=": known are host, esp32-p4, "):
        load(word)


def test_a_file_beside_the_user_is_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-board.toml").write_text("")
    with pytest.raises(BoardError, match=r"for the file here, write my-board\.toml"):
        load("my-board")

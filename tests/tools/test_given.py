"""Every tool says what it is given, and tells what it cannot take in one line, before its work."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatvpr_edge.spec.errors import DataError

TOOLS = sorted((Path(__file__).resolve().parents[2] / "tools").glob("*.py"))
#: None of them means nothing to measure.
COUNTS = {"--frames", "--megabytes", "--places", "--plants", "--repeats", "--rounds", "--trials"}


class _Parser(Exception):
    """Carries the parser that a tool made."""


def run(tool: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """The tool's exit status, in this process: importing torch for every tool takes long."""
    monkeypatch.setattr(sys, "argv", [str(tool), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name="__main__")
    assert isinstance(end.value.code, int)
    return end.value.code


def options(
    parser: argparse.ArgumentParser, job: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.Action]]:
    """(subcommand, option) of all that take a value."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, own in action.choices.items():
                yield from options(own, (*job, name))
        elif action.type is not None:
            yield job, action


@pytest.mark.parametrize("tool", [t for t in TOOLS if t.stem != "given"], ids=lambda t: t.stem)
def test_a_tool_tells_its_options_and_refuses_numbers_that_mean_nothing(
    tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, ("--help",), monkeypatch) == 0
    assert capsys.readouterr().out.startswith(f"usage: {tool.name}")
    assert run(tool, ("--no-such-option",), monkeypatch) == 2
    capsys.readouterr()

    def hand_over(self: argparse.ArgumentParser, *_: object) -> None:
        raise _Parser(self)

    with monkeypatch.context() as patch, pytest.raises(_Parser) as made:
        patch.setattr(argparse.ArgumentParser, "parse_args", hand_over)
        patch.setattr(sys, "argv", [str(tool)])
        runpy.run_path(str(tool), run_name="__main__")
    for job, action in options(made.value.args[0]):
        kind = getattr(action.type, "__name__", "")
        assert kind not in ("int", "float") or action.choices, f"{action.dest}: given.whole or real"
        if kind in ("number", "numbers"):
            zero = ("0",) if COUNTS.intersection(action.option_strings) else ()
            for word in ("nan", "x", "-1000000000", *zero):
                option = action.option_strings[0]
                assert run(tool, (*job, option, word), monkeypatch) == 2
                *usage, told = capsys.readouterr().err.splitlines()
                assert usage[0].startswith("usage: ")
                assert f"error: argument {option}: {word} is no " in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pareto.py", "p.json", "--output", "x.txt"), "x.txt: name it with .png or"),
        (("pareto.py", "p.json", "--output", "/proc/x/y.png"), "/proc/x does not exist"),
        (("governor_trials.py", "record", "--output", "/proc/y"), "/proc is not writable"),
        (("governor_trials.py", "record", "--output", "/proc"), "/proc: it is a folder: name"),
        (("governor_trials.py", "record", "--output", "/dev/null"), "/dev/null: it is a device"),
        (("governor_trials.py", "simulate", "--output", "x"), "x: name it with .png or"),
        (("bench_search.py", "--json", "/proc/y"), "/proc is not writable"),
        (
            ("calibration_figures.py", "--data", "d", "--artifact", "a", "--kinds", "int8,int4"),
            "--kinds: int4: there are int8, ",
        ),
        (("bench_peers.py", "--plot", "x.txt"), "x.txt: name it with .png or"),
        (("roofline.py", "--json", "/proc/y"), "/proc is not writable"),
        (("map_kinds.py", "f", "--json", "/proc/y"), "/proc is not writable"),
        (("make_wheels.py", "--output", "/proc/y"), "/proc is not writable"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_where_a_result_cannot_go_is_told_first(
    words: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(TOOLS[0].with_name(words[0]), words[1:], monkeypatch) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("map_kinds.py", "nowhere", "--artifact", "none"), "nowhere: no such file or folder"),
        (("calibration_figures.py", "--data", "nowhere", "--artifact", "none"), "frames.csv: "),
        (("bench_search.py", "--artifact", "nowhere"), "nowhere is not an artifact"),
        (("arm_counts.py", "--model", "nano", "--model", "x/nano.onnx"), "would be one row"),
        (("mcu_counts.py", "--model", "nano", "--model", "x/nano.onnx"), "would be one row"),
        (("bench_peers.py", "--models", "micro,macro"), "unknown model 'macro'"),
        (("swap_attacks.py", "--artifact", "nowhere"), "nowhere is not an artifact"),
        (("render_drive.py", "--map", "map01,map02", "--output", "x"), "names 2 maps"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_fails_is_one_line(
    words: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(TOOLS[0].with_name(words[0]), words[1:], monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line


@pytest.mark.parametrize(
    ("failure", "told", "status"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            "this tool needs the Python package torch: pip install 'tatvpr-edge[train]'",
            1,
        ),
        (
            subprocess.CalledProcessError(100, ["apt-get", "update"], "Hit: 1\nE: no network\n"),
            "apt-get ended with 100: E: no network",
            1,
        ),
        (subprocess.CalledProcessError(1, ["scp"]), "scp ended with 1", 1),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device", 1),
        (DataError("a\x1b\nb is no frame"), r"a\x1b\nb is no frame", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_ends_a_tool_is_one_line(
    failure: BaseException,
    told: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS[0].parent))
    from given import one_line

    @one_line
    def main() -> int:
        raise failure

    assert main() == status
    assert capsys.readouterr().err == f"error: {told}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_what_cannot_be_printed_is_one_line() -> None:
    """Also where it first stands in a buffer: the interpreter as it ends says three, and 120."""
    program = (
        "import sys; from given import one_line\n"
        "@one_line\n"
        "def main(): print('figures')\n"
        "sys.exit(main())\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOOLS[0].parent)}
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, env=env
        )
    assert ran.stderr == "error: [Errno 28] No space left on device\n"
    assert ran.returncode == 1


def test_a_module_of_ours_that_is_gone_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS[0].parent))
    from given import one_line

    @one_line
    def main() -> None:
        importlib.import_module("tatvpr_edge.models.moved")

    with pytest.raises(ModuleNotFoundError):
        main()


def test_every_tool_ends_so() -> None:
    pages = {"api_pages", "training_keys"}  # which print, and measure nothing
    for tool in TOOLS:
        if tool.stem in {"given", *pages}:
            continue
        found = [n for n in ast.parse(tool.read_text()).body if isinstance(n, ast.FunctionDef)]
        (main,) = (n for n in found if n.name == "main")
        assert [_last_word(n) for n in main.decorator_list] == ["one_line"], tool.name


@pytest.mark.parametrize(
    "words",
    [
        ("bench_peers.py", "--plot", "x.png"),
        ("governor_trials.py", "simulate"),
        ("pareto.py", "p.json"),
        ("roofline.py", "--plot", "x.png"),
    ],
    ids=lambda words: words[0],
)
def test_what_draws_is_looked_for_before_the_work(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(TOOLS[0].with_name(words[0]), words[1:], monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: plots need matplotlib: pip install 'tatvpr-edge[plot]'"


def test_no_tool_replaces_the_artifact_that_the_user_keeps() -> None:
    """Which is what a build for this machine without a place does, of whatever model."""
    for tool in sorted(TOOLS[0].parent.rglob("*.py")):
        for call in ast.walk(ast.parse(tool.read_text())):
            if isinstance(call, ast.Call) and "build" in map(_last_word, [call.func, *call.args]):
                named = {word.arg for word in call.keywords}
                assert "output" in named or not call.args, f"{tool}:{call.lineno}"


def _last_word(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_figures_are_json_where_one_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS[0].parent))
    from given import as_json

    assert json.loads(as_json({0.2: {"precision": float("nan"), "ece": 0.5}})) == {
        "0.2": {"precision": None, "ece": 0.5}
    }

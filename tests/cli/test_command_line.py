"""The command line as a whole: light, one line an error, one document with ``--json``."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import tatvpr_edge
from tatvpr_edge.cli import COMMANDS, main
from tatvpr_edge.cli.app import EXTRAS, group

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(f"tatvpr_edge.cli.{name}") is not None
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: tatvpr-edge {name}") and shown.err == ""


def test_every_option_of_every_command_is_explained() -> None:
    def walk(command: click.Command, path: str) -> list[str]:
        found = [
            f"{path} {parameter.name}"
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.help and not parameter.hidden
        ]
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                found += walk(inner, f"{path} {name}")
        return found

    assert walk(group, "tatvpr-edge") == []


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    program = """
import sys
from tatvpr_edge.cli import main
assert main(["--help"]) == 0 and main(["--version"]) == 0
heavy = ("torch", "onnx", "tvm", "onnxruntime", "numpy", "PIL")
print(sorted(m for m in sys.modules if m.split(".")[0] in heavy))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_runtime_loads_nothing_but_numpy(project_root: Path) -> None:
    program = (
        "import sys; from tatvpr_edge import runtime; print(sorted(m for m in sys.modules if "
        "m.split('.')[0] in ('torch','onnx','tvm','onnxruntime','click','rich','PIL')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_misspelt_command_is_guessed(tatvpr: Run) -> None:
    assert "did you mean 'build'" in tatvpr("biuld", status=2).stderr
    assert "see tatvpr-edge --help" in tatvpr("xyzzy", status=2).stderr


def test_debug_shows_the_traceback_and_nothing_else_does(tatvpr: Run, tmp_path: Path) -> None:
    tatvpr("verify", "nowhere", status=1)
    done = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge", "verify", "nowhere", "--debug"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "ArtifactError: nowhere is not an artifact" in done.stderr


def test_a_fault_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("tatvpr_edge.runtime.verify.verify_artifact", broken)
    assert main(["verify", "x"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
    assert "RuntimeError: first second" in shown.err and "--debug" in shown.err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'tvm'", name="tvm.relax")

    monkeypatch.setattr("tatvpr_edge.runtime.verify.verify_artifact", lacking)
    assert main(["verify", "x"]) == 1
    assert "pip install 'tatvpr-edge[build]'" in capsys.readouterr().err


def test_every_package_that_is_imported_has_an_extra_that_brings_it() -> None:
    """elftools comes with pyelftools: the name that Python misses is not always what pip takes."""
    # Folders of the package are links in a checkout, which rglob does not follow.
    walked = os.walk(Path(tatvpr_edge.__file__).parent, followlinks=True)
    files = [Path(folder, name) for folder, _, names in walked for name in names]
    sources = [file for file in files if file.suffix == ".py"]
    imported = set()
    for node in (node for file in sources for node in ast.walk(ast.parse(file.read_bytes()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    # On a board a module of ours has its bare name; every installation has the last two.
    ours = {file.stem for file in sources} | {"tatvpr_edge", "numpy", "tomli"}
    assert "onnx" in imported
    assert imported - set(sys.stdlib_module_names) - ours <= set(EXTRAS)


@pytest.mark.parametrize("words", [[], ["map"], ["boards"], ["--help"], ["map", "build", "--help"]])
def test_a_reader_that_went_away_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "tatvpr_edge", *words], stdout=gone, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("module", ["tatvpr_edge", "tatvpr_edge.runtime"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_is_nothing_to_stumble_over(
    module: str, closed: str, tmp_path: Path
) -> None:
    """cron and service managers close them; the next file opened would be printed into."""
    program = f"""
import os, runpy, sys
sys.argv = ["command", "--help"]
try:
    runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    with open({str(tmp_path / "after")!r}, "w") as after:
        number = after.fileno()
        os.system("echo what a compiler says; echo and complains >&2")
        print(ended.code, number > 2, sys.stdin.isatty(), file=after)
"""
    start = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
    done = subprocess.run(start, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert (tmp_path / "after").read_text() == "0 True False\n"
    assert b"Traceback" not in done.stderr and b"error" not in done.stderr


@pytest.mark.parametrize(
    ("words", "slow"),
    [
        ("tatvpr_edge boards", "click"),
        ("tatvpr_edge.runtime query x", "numpy"),
        ("tatvpr_edge.ros", "numpy"),
    ],
)
def test_an_interrupt_while_a_slow_disk_still_loads_the_command_is_no_traceback(
    words: str, slow: str, tmp_path: Path
) -> None:
    program = (
        "import os, signal, time\n"
        # Children of a background job begin with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    (tmp_path / f"{slow}.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", *words.split()],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("module", ["tatvpr_edge.cli", "tatvpr_edge.runtime.__main__"])
def test_nothing_is_imported_before_an_interrupt_is_one_line(
    module: str, project_root: Path
) -> None:
    """Where Python itself imports what we name first, nobody can catch an interrupt."""
    program = (
        f"import sys; sys.path.insert(0, {str(project_root)!r}); before = set(sys.modules)\n"
        f"import {module}; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    own = {module.rsplit(".", level)[0] for level in range(module.count(".") + 1)}
    names = "tatvpr_edge.runtime"  # of the package's names, and imports nothing else
    assert set(done.stdout.split()) == {"__future__", *own, names}


def test_doctor_names_a_remedy_for_all_that_it_misses(tatvpr: Run, tmp_path: Path) -> None:
    checks = json.loads(tatvpr("doctor", "--json").stdout)
    jobs = {check["job"] for check in checks}
    assert jobs >= {"run", "command line", "build", "deploy", "power", "GPU"}
    # With nothing on the path there is a remedy in every line that blocks a job.
    done = tatvpr("doctor", "--json", PATH=str(tmp_path))
    lacking = [
        check for check in json.loads(done.stdout) if not (check["present"] or check["optional"])
    ]
    things = {check["thing"] for check in lacking}
    assert "ssh" in things and "ssh-keygen" not in things  # which is not taken from the path
    assert all(check["remedy"] for check in lacking)
    assert "not ready: " in tatvpr("doctor", PATH=str(tmp_path)).stdout


def test_a_working_folder_that_was_removed_is_named(tatvpr: Run, tmp_path: Path) -> None:
    """As under a shell whose folder another one made anew; it was "No such file or directory"."""
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")  # the fixture goes back
    (tmp_path / "gone").rmdir()
    told = tatvpr("describe", "frames", "-o", "x.npy", status=1).stderr
    assert "the working folder was removed" in told

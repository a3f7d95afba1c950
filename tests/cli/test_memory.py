"""Memory that runs out under a real limit, wherever it does: one line that names what there is no
memory for and what helps, and never a whole file that is called damaged."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from support.artifacts import scenes
from support.tiny_model import DIM, Writer, tiny_model
from tatvpr_edge.cli import main
from tatvpr_edge.models.export import bodies
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.shortage import ran_out

MB = 1_000_000
#: A command line under a limit of the whole process's address space.
COMMAND = """
import resource, sys
import {module}
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from {module} import main
sys.exit(main(sys.argv[1:]))
"""
HOST, BOARD = "tatvpr_edge.cli", "tatvpr_edge.runtime.__main__"
#: Below what loads Python's own modules, up to what suffices here: each step meets another library.
SMALL_MB = (40, 100, 112, 118, 128, 142, 165, 250)


def limited(program: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=300
    )


def is_told(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it was refused, which must be one line with a remedy; what was done is done."""
    assert done.returncode in (0, 1), (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "fault of tatvpr-edge" not in done.stderr
    assert "OpenBLAS" not in done.stderr and "onnxruntime:" not in done.stderr
    if done.returncode == 0:
        return False
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [done.stderr.splitlines()[-1]], done.stderr
    assert "not enough memory for" in errors[0] and "ulimit -v" in errors[0], errors
    return True


@pytest.fixture(scope="module")
def folders(tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of a map, frames to ask with, and the map."""
    folder = tmp_path_factory.mktemp("memory")
    for name, count in (("map", 6), ("queries", 2)):
        (folder / name).mkdir()
        for i, frame in enumerate(scenes(count)):
            Image.fromarray(frame).save(folder / name / f"{i}.png")
            Image.fromarray(frame).save(folder / f"{name}{i}.ppm")
    words = [str(folder / "map"), "--artifact", str(tiny_host), "-o", str(folder / "m.placemap")]
    assert main(["map", "build", *words]) == 0
    return folder


@pytest.mark.parametrize("limit_mb", SMALL_MB)
def test_commands_that_run_out_of_memory_say_so(
    folders: Path, tiny_host: Path, tmp_path: Path, limit_mb: int
) -> None:
    asked = ["--map", str(folders / "m.placemap"), "--artifact", str(tiny_host)]
    made = ["-o", str(tmp_path / "n.placemap"), "--artifact", str(tiny_host)]
    page = ["--baseline", "none", "--html", str(tmp_path / "e.html")]
    frames = [str(folders / "map"), str(folders / "queries")]
    commands = [
        (HOST, ["verify", str(tiny_host)]),
        (HOST, ["query", str(folders / "queries"), *asked]),
        (HOST, ["map", "build", frames[0], *made]),
        (HOST, ["evaluate", *frames, "--artifact", str(tiny_host), *page]),
        (BOARD, ["verify", str(tiny_host)]),
        (BOARD, ["query", str(folders / "queries0.ppm"), *asked]),
    ]
    told = [
        is_told(limited(COMMAND.format(module=module, limit=limit_mb * 1024 * 1024), words))
        for module, words in commands
    ]
    assert all(told) or limit_mb > 100


@pytest.mark.parametrize("limit_mb", [300, 500, 700, 800, 1000])
def test_a_build_that_runs_out_of_memory_says_so(
    tiny_onnx: Path, tmp_path: Path, limit_mb: int
) -> None:
    words = ["build", "--board", "host", "--model", str(tiny_onnx), "-o", str(tmp_path / "A")]
    done = limited(COMMAND.format(module=HOST, limit=limit_mb * 1024 * 1024), words)
    assert is_told(done) or limit_mb > 700
    assert (tmp_path / "A").is_dir() == (done.returncode == 0)


@pytest.mark.parametrize("limit_mb", [100, 300, 500])
def test_torch_without_memory_says_so(project_root: Path, tmp_path: Path, limit_mb: int) -> None:
    weights = project_root / "models" / "zoo" / "micro.safetensors"
    words = ["export", str(weights), "-o", str(tmp_path / "m.onnx")]
    assert is_told(limited(COMMAND.format(module=HOST, limit=limit_mb * 1024 * 1024), words))


#: Under a limit that leaves so much of what is there once everything is loaded.
LEFT = """
import resource, sys
{load}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {left}, used + {left}))
from tatvpr_edge.spec.errors import TatvprError
try:
    {ask}
except TatvprError as error:
    print(type(error).__name__, error)
"""


def huge_values(w: Writer, x: str) -> int:
    """A head whose value between takes 800 MB."""
    whole = [w.weight(n, np.array([v], np.int64)) for n, v in (("from", 0), ("to", 1))]
    token = w.add("Slice", [x, *whole, whole[0]], "head.token")
    huge = w.add("ConstantOfShape", [w.weight("shape", np.array([1 << 22, DIM], np.int64))], "huge")
    mean = w.add("ReduceMean", [huge, w.weight("axes", np.array([0], np.int64))], "m", keepdims=1)
    flat = w.weight("head.flat.shape", np.array([-1], np.int64))
    value = w.add("Reshape", [w.add("Add", [token, mean], "head.sum"), flat], "head.flat")
    w.add("LpNormalization", [value], "descriptor", axis=-1, p=2)
    return DIM


def test_onnx_runtime_without_memory_says_so(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    onnx.save(tiny_model(huge_values, functions=bodies.bodies(17)), path)
    load = (
        "import numpy as np\nfrom tatvpr_edge.compilers.checks import checked_graph\n"
        "from tatvpr_edge.compilers.reference import Reference\n"
        f"graph = checked_graph({str(path)!r})\nreference = Reference(graph.model, graph)\n"
        "frame = np.zeros((32, 32, 3), np.uint8)"
    )
    done = limited(LEFT.format(load=load, left=300 * MB, ask="reference.run(frame, 1.0, 1.0)"), [])
    assert done.stdout.startswith("ToolError there is not enough memory for the model's values")
    assert done.stderr == "" and "ulimit -v" in done.stdout and done.stdout.count("\n") == 1


def test_a_frame_that_there_is_no_memory_for_is_not_called_damaged(tmp_path: Path) -> None:
    """A map is built of the frames that can be read: this one can, with more memory."""
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((4000, 5000, 3), np.uint8)).save(path)
    ask = f"frames_of({str(path)!r})[0].read()"
    load = f"from tatvpr_edge.mapping import frames_of\n{ask}"
    enough = limited(LEFT.format(load=load, left=1000 * MB, ask=ask), [])
    assert (enough.stdout, enough.stderr) == ("", "")
    done = limited(LEFT.format(load=load, left=20 * MB, ask=ask), [])
    assert done.stdout.startswith(f"ToolError there is not enough memory for {path}"), done


def test_a_name_is_no_shortage() -> None:
    assert not ran_out(FileNotFoundError(errno.ENOENT, "No such file", "out of memory"))
    assert not ran_out(DataError("failed to allocate.png is damaged"))
    assert ran_out(OSError(errno.ENOMEM, "Cannot allocate memory", "a file"))
    assert ran_out(ImportError("libtorch_cpu.so: failed to map segment from shared object"))


def test_a_module_that_seems_misspelt_under_a_limit_had_no_memory() -> None:
    """Python's parser said "expected ':'" of a file that is right; without a limit it is wrong."""
    show = "from tatvpr_edge.spec.shortage import ran_out\nprint(ran_out(SyntaxError('expected')))"
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({250 * MB}, {250 * MB}))\n"
    assert [limited(program, []).stdout.strip() for program in (show, limit + show)] == [
        "False",
        "True",
    ]


def test_numpy_gets_one_thread_where_there_is_little(tiny_host: Path) -> None:
    """Each thread of its library would take a stack and a buffer."""
    shown = COMMAND.replace("sys.exit(main(sys.argv[1:]))", "main(sys.argv[1:])")
    shown += "import os; print(os.environ.get('OPENBLAS_NUM_THREADS'))"
    without = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    for limit, wanted in ((600 * MB, "1"), (4000 * MB, "None")):
        done = subprocess.run(
            [sys.executable, "-c", shown.format(module=HOST, limit=limit), "verify", tiny_host],
            capture_output=True,
            text=True,
            env=without,
        )
        assert done.stdout.splitlines()[-1] == wanted, done

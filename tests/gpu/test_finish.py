"""``finish`` on a board, with a scripted TensorRT and our kernels run on the CPU.

Whatever goes wrong, the board answers afterwards: with a verified engine or with the CPU library.
Every case asks for a descriptor in a new process and compares it with the CPU library's.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.cuda import FAKE_PYCUDA, ON_CPU, ROBOT, with_tensorrt
from support.tiny_model import TOKENS, tiny_model
from support.tools import require_tool
from tatvpr_edge.models.export import bodies
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import read_artifact, replace_profile

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent.parent
SETTINGS = ((1.0, 1.0), (0.4, 1.0), (0.4, 1.0), (0.4, 0.5), (0.2, 0.5), (1.0, 1.0))
_ASK = f"""
import json, logging, sys
import numpy as np
logging.basicConfig(format="%(message)s", level=logging.WARNING)
from tatvpr_edge.runtime import Localizer
frame = np.random.default_rng(5).integers(0, 256, (40, 56, 3)).astype(np.uint8)
with Localizer(sys.argv[1]) as localizer:
    made, by = [], []
    for k, tokens in {SETTINGS}:
        localizer.k, localizer.tokens = k, tokens
        made.append(localizer.describe(frame).tolist())
        by.append(localizer.backend.name)
    print(json.dumps({{"backend": by[-1], "by": by, "descriptors": made}}))
"""


@functools.cache
def right_answers(artifact: Path) -> list[list[float]]:
    """What the CPU library says where a board is asked, here in this process."""
    frame = np.random.default_rng(5).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    made = []
    with Localizer(artifact, backend="cpu") as localizer:
        for k, tokens in SETTINGS:
            localizer.k, localizer.tokens = k, tokens
            made.append(localizer.describe(frame).tolist())
    return made


@dataclass
class Board:
    """A machine with the CUDA stand-in, a scripted TensorRT and a cache of its own."""

    artifact: Path
    folder: Path
    cuda: Path
    script: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        (self.folder / "script.json").write_text(json.dumps(self.script))
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS / "support/fake_tensorrt"), str(TESTS)]),
            "LD_LIBRARY_PATH": str(self.cuda.parent),
            "FAKE_TENSORRT": str(self.folder / "script.json"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TATVPR_EDGE_ROOT": str(self.folder / "install"),
            "CXX": "/nonexistent/c++",  # a board without a compiler: Python plugins
            **self.variables,
        }

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tatvpr_edge.runtime", "finish", str(self.artifact)]
        return subprocess.Popen(
            [*command, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def finish(self, *options: str) -> dict[str, Any]:
        process = self.start(*options)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        assert "\n" not in result["line"]
        return result

    def ask(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, str(self.artifact)],
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        answer["said"] = done.stderr.strip()
        return answer

    def answers_rightly(self) -> dict[str, Any]:
        """The answer, after checking it against the CPU library's."""
        answer = self.ask()
        points = read_artifact(self.artifact).manifest.golden.points
        lowest = min(0.999, *(point.min_cosine for point in points))
        for by, made, right in zip(
            answer["by"], answer["descriptors"], right_answers(self.artifact), strict=True
        ):
            if by == "cpu":
                assert made == right
            assert np.dot(made, right) >= lowest
        return answer

    @property
    def builds(self) -> int:
        """Engines that TensorRT was asked to build so far."""
        log = Path(self.script["log"])
        return len(log.read_text().splitlines()) if log.exists() else 0

    def entries(self) -> list[Path]:
        """Finished engines, and anything left beside them."""
        place = self.folder / "cache" / "tatvpr-edge" / "tensorrt"
        return [p for p in place.glob("*") if p.is_dir()] if place.is_dir() else []


@pytest.fixture
def board(gpu_artifact: Path, tiny_file: Path, cuda_on_cpu: Path, tmp_path: Path) -> Board:
    script = {
        "version": "10.3.0",
        "bodies": str(tiny_file),
        "build": "ok",
        "run": "ok",
        "log": str(tmp_path / "builds.log"),
    }
    return Board(gpu_artifact, tmp_path, cuda_on_cpu, script)


def test_an_engine_is_built_once_verified_and_chosen_by_itself(board: Board) -> None:
    before = board.answers_rightly()
    assert before["backend"] == "cpu"
    assert "finish" in before["said"] and before["said"].count("\n") == 0

    made = board.finish("--require-engine")
    assert made["backend"] == "tensorrt" and not made["cached"]
    assert made["lowest_cosine"] > 0.99
    assert board.builds == 2
    answer = board.answers_rightly()
    assert answer["backend"] == "tensorrt" and answer["said"] == ""

    again = board.finish()
    assert again["backend"] == "tensorrt" and again["cached"]
    assert board.builds == 2, "a finished engine is not built again"


@pytest.mark.parametrize("head", ["gem", "sides"])
@pytest.mark.parametrize("keep_after", [(), (1,), (1, 2)], ids=["never", "once", "twice"])
def test_tokens_dropped_more_often_take_an_engine_more(
    board: Board, own_cache: None, head: str, keep_after: tuple[int, ...]
) -> None:
    model = board.folder / "model.onnx"
    bodies_of_all = bodies.bodies(TOKENS)
    onnx.save(tiny_model(head, keep_after=keep_after, functions=bodies_of_all), model)
    board.artifact = with_tensorrt(model, board.folder)
    board.script["bodies"] = str(model)
    made = board.finish("--require-engine")
    assert made["backend"] == "tensorrt", made
    assert board.builds == 1 + len(keep_after)
    assert board.answers_rightly()["backend"] == "tensorrt"


@pytest.mark.parametrize(
    ("script", "options", "why"),
    [
        ({"build": "killed"}, (), "SIGKILL"),
        ({"build": "hungry"}, ("--memory-mb", "700"), "700 MB is the cap"),
        ({"build": "nothing"}, (), "no implementation for a node"),
        ({"build": "refused"}, (), "unsupported ONNX operator"),
        ({"run": "wrong"}, (), "golden vectors differ"),
        ({"run": "crash"}, (), "SIGSEGV"),
        (
            {"version": "8.6.2"},
            (),
            "TensorRT 8.6.2 is not supported: 10.3 to 11.x are (JetPack 6.1",
        ),
    ],
    ids=["killed", "too-hungry", "no-engine", "refused", "wrong-output", "crash", "too-old"],
)
def test_whatever_fails_the_cpu_library_answers_and_one_line_says_why(
    board: Board, script: dict[str, str], options: tuple[str, ...], why: str
) -> None:
    board.script.update(script)
    made = board.finish(*options)
    assert made["backend"] == "cpu"
    assert why in made["line"], made["line"]
    assert board.entries() == [], "nothing is left of what failed"
    answer = board.answers_rightly()
    assert answer["backend"] == "cpu"
    assert answer["said"] and answer["said"].count("\n") == 0


def test_without_tensorrt_or_a_gpu_the_cpu_library_answers(board: Board) -> None:
    board.variables["LD_LIBRARY_PATH"] = ""
    if "no CUDA driver" not in board.finish()["line"]:
        pytest.skip("this machine has a CUDA driver of its own")
    answer = board.answers_rightly()
    assert answer["backend"] == "cpu"
    assert "no finished engine" in answer["said"], "CUDA, which keeps memory, is not asked for"
    board.variables = {"PYTHONPATH": str(TESTS)}
    assert "TensorRT for Python does not import" in board.finish()["line"]
    assert board.answers_rightly()["backend"] == "cpu"


_SERVED = """
import sys
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.service import Service
with Localizer(sys.argv[1]) as localizer:
    print(localizer.backend.name, Service(localizer).self_test()["promised_bytes"])
"""


def test_a_new_tensorrt_makes_the_engine_stale_until_it_is_finished_again(board: Board) -> None:
    board.finish("--require-engine")
    (old,) = board.entries()
    board.script["version"] = "10.13.2"
    stale = board.answers_rightly()
    assert stale["backend"] == "cpu", "an engine of another TensorRT is never loaded"
    command = [sys.executable, "-c", _SERVED, str(board.artifact)]
    served = subprocess.run(
        command, capture_output=True, text=True, env=board.environment(), check=True
    )
    assert served.stdout == "cpu None\n", "CUDA's memory is no promise that a deploy sees broken"
    board.finish("--require-engine")
    (new,) = board.entries()
    assert new.name != old.name, "the old one went"
    assert board.answers_rightly()["backend"] == "tensorrt"


@pytest.mark.parametrize("package", ["pycuda", "cuda-bindings"])
def test_a_robots_context_stream_and_arrays_are_used(board: Board, package: str) -> None:
    """The model's work goes to the caller's stream, and his thread keeps the context it had."""
    board.finish("--require-engine")
    if package == "pycuda":
        path = board.environment()["PYTHONPATH"]
        board.variables["PYTHONPATH"] = os.pathsep.join([FAKE_PYCUDA, path])
    done = subprocess.run(
        [sys.executable, "-c", ROBOT, str(board.artifact), package, "tensorrt"],
        capture_output=True,
        text=True,
        env=board.environment(),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["same"] and seen["by"] == "tensorrt" and seen["through"] == package
    assert seen["on_their_stream"] >= 3 * 8 and seen["their_context"]


_TWICE = """
import os, sys
import numpy as np
from tatvpr_edge.runtime import Localizer
frame = np.zeros((40, 56, 3), np.uint8)
with Localizer(sys.argv[1], backend="tensorrt") as first:
    with Localizer(sys.argv[1], backend="tensorrt") as second:
        made = [one.describe(frame) for one in (first, second, first)]
with Localizer(sys.argv[1], backend="tensorrt") as third:
    made.append(third.describe(frame))
assert [one.backend.name for one in (first, second, third)] == ["tensorrt"] * 3
assert all(np.array_equal(made[0], one) for one in made)
held = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
assert not [name for name in held if "memfd" in name], "what was loaded needs no descriptor"
"""


#: A compiler that makes what of a plugin library the stand-in asks for, whatever it is given.
_COMPILER = """#!/bin/sh
for output; do :; done
exec gcc -shared -fPIC -x c - -o "$output" <<END
void *const *getCreators(int *count) { static void *const no[2]; *count = 2; return no; }
END
"""


@pytest.mark.parametrize("plugins", ["Python", "C++"])
def test_a_process_opens_an_engine_as_often_as_it_likes(board: Board, plugins: str) -> None:
    """TensorRT takes a plugin once a process."""
    if plugins == "C++":
        require_tool("gcc", "gcc")
        for header in ("NvInferRuntime.h", "cuda.h"):
            (board.folder / header).touch()
        compiler = board.folder / "c++"
        compiler.write_text(_COMPILER)
        compiler.chmod(0o700)
        headers = dict.fromkeys(("TENSORRT_INCLUDE", "CUDA_INCLUDE"), str(board.folder))
        board.variables = {"CXX": str(compiler), **headers}
    board.finish("--require-engine")
    (entry,) = board.entries()
    assert (entry / "libtatvpr_plugin.so").exists() == (plugins == "C++")
    command = [sys.executable, "-c", _TWICE, str(board.artifact)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=board.environment(), check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


@pytest.mark.parametrize("how", ["flipped", "unmarked"])
def test_a_damaged_engine_is_not_loaded_and_built_again(board: Board, how: str) -> None:
    board.finish("--require-engine")
    (entry,) = board.entries()
    engine = entry / "back.engine"
    data = engine.read_bytes()
    if how == "flipped":
        engine.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    else:
        (entry / "verified.json").write_text("{")
    assert board.answers_rightly()["backend"] == "cpu"
    made = board.finish("--require-engine")
    assert not made["cached"] and board.builds == 4
    assert board.answers_rightly()["backend"] == "tensorrt"


def test_a_new_profile_does_not_make_the_engine_stale(board: Board, tmp_path: Path) -> None:
    import shutil

    board.artifact = Path(shutil.copytree(board.artifact, tmp_path / "copy"))
    board.finish("--require-engine")
    points = [{"k": 1.0, "tokens": 1.0, "latency_ms": 3.0}]
    replace_profile(board.artifact, {"device": {}, "points": points})
    assert board.ask()["backend"] == "tensorrt"
    assert board.finish()["cached"]


def test_two_at_once_build_it_once(board: Board) -> None:
    board.script["delay_s"] = 1.0
    both = [board.start("--require-engine"), board.start("--require-engine")]
    results = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    assert sorted(result["cached"] for result in results) == [False, True]
    assert board.builds == 2
    assert len(board.entries()) == 1
    assert board.answers_rightly()["backend"] == "tensorrt"


_FULL_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* Engines do not fit on this disk. */
ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 7) {
        path[length] = 0;
        if (!strcmp(path + length - 7, ".engine")) return errno = ENOSPC, -1;
    }
    return real(fd, data, size);
}
"""


def test_a_full_disk_leaves_nothing_behind(board: Board, tmp_path: Path) -> None:
    compiler = require_tool("gcc", "gcc")
    (tmp_path / "full.c").write_text(_FULL_DISK)
    subprocess.run(
        [compiler, "-shared", "-fPIC", tmp_path / "full.c", "-o", tmp_path / "full.so", "-ldl"],
        check=True,
    )
    board.variables["LD_PRELOAD"] = str(tmp_path / "full.so")
    made = board.finish()
    assert made["backend"] == "cpu" and "No space left on device" in made["line"]
    assert board.entries() == []
    del board.variables["LD_PRELOAD"]
    assert board.answers_rightly()["backend"] == "cpu"
    board.finish("--require-engine")
    assert board.answers_rightly()["backend"] == "tensorrt"


def test_a_gpu_that_fails_later_hands_over_to_the_cpu(board: Board) -> None:
    board.finish("--require-engine")
    board.script.update(run="late", good_runs=2)
    answer = board.answers_rightly()
    assert answer["by"] == [*["tensorrt"] * 3, *["cpu"] * 3]
    assert "tensorrt stopped" in answer["said"] and answer["said"].count("\n") == 0


_CLOSED = """
import ctypes, sys
import numpy as np
from tatvpr_edge.runtime import Localizer
cuda = ctypes.CDLL("libcuda.so.1")
with Localizer(sys.argv[1], backend="tensorrt") as localizer:
    localizer.describe(np.zeros((40, 56, 3), np.uint8))
    held = cuda.blocks_held()
print(held > 0, cuda.blocks_held())
"""


def test_a_closed_localizer_gives_the_gpus_memory_back(board: Board) -> None:
    board.finish("--require-engine")
    command = [sys.executable, "-c", _CLOSED, str(board.artifact)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=board.environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "0"]


_INTERRUPTED = """
import sys
import numpy as np
from tatvpr_edge.runtime import Localizer
frame = np.zeros((40, 56, 3), np.uint8)
made = []
with Localizer(sys.argv[1], backend="tensorrt") as localizer:
    for _ in range(5):
        try:
            made.append(localizer.describe(frame))
        except KeyboardInterrupt:
            print("interrupted")
    print(localizer.backend.name)
assert len(made) == 3 and all(np.array_equal(made[0], one) for one in made)
"""


def test_a_recording_that_ctrl_c_cuts_is_ended(board: Board) -> None:
    """The stream recorded all that came later, and ran none of it."""
    board.finish("--require-engine")
    board.script.update(run="interrupted", good_runs=1)
    command = [sys.executable, "-c", _INTERRUPTED, str(board.artifact)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=board.environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted"] * 2 + ["tensorrt"], "once in each engine"


def test_an_artifact_for_another_gpu_is_refused_by_name(board: Board, tiny_file: Path) -> None:
    from tatvpr_edge.boards.loader import load as load_board
    from tatvpr_edge.compilers.checks import checked_graph
    from tatvpr_edge.compilers.tensorrt.build import add_tensorrt
    from tatvpr_edge.spec.artifact import write_artifact

    cpu = read_artifact(board.artifact.parent / "cpu")
    members = {entry.path: cpu.path(entry.path) for entry in cpu.manifest.files}
    graph = checked_graph(tiny_file)
    thor = add_tensorrt(load_board("jetson-thor"), graph, cpu.manifest, members)
    board.artifact = write_artifact(board.folder / "thor", *thor).root
    line = board.finish()["line"]
    assert "sm_110" in line and ON_CPU in line and "sm_87" in line
    assert board.answers_rightly()["backend"] == "cpu"


def test_an_altered_artifact_is_refused_and_not_finished(board: Board, tmp_path: Path) -> None:
    import shutil

    board.artifact = Path(shutil.copytree(board.artifact, tmp_path / "copy"))
    with open(board.artifact / "tensorrt" / "front.onnx", "ab") as sink:
        sink.write(b"x")
    process = board.start()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and out == ""
    assert err.startswith("error: ") and "altered" in err


def test_an_artifact_without_a_gpu_half_has_nothing_to_finish(board: Board) -> None:
    board.artifact = board.artifact.parent / "cpu"
    assert "nothing to finish" in board.finish()["line"]

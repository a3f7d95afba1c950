"""A command that SIGTERM or a closed terminal ends leaves nothing behind, no child either."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import interrupts
from support.tools import require_tool
from tatvpr_edge.compilers.core_sources import core_sources

_CLI = [sys.executable, "-m", "tatvpr_edge"]


def _stuck_compiler(folder: Path, at: str, stuck: str) -> tuple[int, dict[str, str]]:
    """A pipe's end on which a GCC that never ends says which process is ``stuck``, and the
    environment in which it is the one that is found. It sticks at the file called ``at``."""
    gcc_path = require_tool("gcc", "gcc")
    folder.mkdir()
    pipe, gcc = folder / "pipe", folder / "gcc"
    os.mkfifo(pipe)
    # More than a pipe holds: once it is through, the build waits for the compiler's end.
    fills = "head -c 1000000 /dev/zero"
    others = f'case "$*" in *{at}*) ;; *) exec {gcc_path} "$@" ;; esac'
    scratch_file = ': >"$TMPDIR/ccscratch.s"'
    gcc.write_text(
        f"#!/bin/sh\n{others}\n{scratch_file}\n{fills}\nsay() {{ echo $1 >'{pipe}'; }}\n{stuck}\n"
    )
    gcc.chmod(0o755)
    scratch = folder / "tmp"
    scratch.mkdir()
    own = {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(scratch)}
    return os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), {**os.environ, **own}


@pytest.mark.parametrize(
    ("at", "stuck"),
    [
        ("probe.c", "say $$; exec sleep 600"),
        ("first", "say $$; exec sleep 600"),
        # As GCC works: in a program of its own, which has its standard error and outlives it.
        ("first", "sleep 600 & say $!; wait"),
    ],
)
def test_a_build_that_is_ended_takes_its_compiler_and_its_files_along(
    tiny_onnx: Path, tmp_path: Path, at: str, stuck: str
) -> None:
    """The compiler of the first is this thread's, those of the others are of several."""
    if at == "first":
        at = core_sources("portable")[0].path.name
    pipe, environment = _stuck_compiler(tmp_path / "stuck", at, stuck)
    out = tmp_path / "out"
    out.mkdir()
    words = [*_CLI, "build", "--model", tiny_onnx, "--board", "host", "-o", out / "made"]
    with subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heed
    ) as build:
        assert select.select([pipe], [], [], 60)[0] and build.poll() is None
        compiler = os.pidfd_open(int(os.read(pipe, 100)))
        build.send_signal(signal.SIGTERM)
        assert build.stderr is not None
        said = build.stderr.read()
    os.close(pipe)
    assert build.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "error: ended by SIGTERM" and "Traceback" not in said
    assert select.select([compiler], [], [], 60)[0]  # it ends, by whoever waits for it
    os.close(compiler)
    assert list(out.iterdir()) == [] and list((tmp_path / "stuck" / "tmp").iterdir()) == []

"""``finish``: build, verify and cache the TensorRT engine of an artifact, on its board.

``python -m tatvpr_edge.runtime finish ARTIFACT [--memory-mb N] [--json] [--require-engine]``

Everything that touches TensorRT runs in child processes under a watch on memory. Whatever happens
to them, the artifact is usable afterwards: with an engine whose golden vectors were checked here,
or with its CPU library, and one line says which and why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.backends.tensorrt import cache
from tatvpr_edge.runtime.backends.tensorrt.machine import Machine
from tatvpr_edge.runtime.backends.tensorrt.recipe import BACKEND
from tatvpr_edge.runtime.backends.tensorrt.watch import RESERVE_BYTES, available_bytes, run_watched
from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.errors import TatvprError, ToolError

Say = Callable[[str], None]
_CHILD = "tatvpr_edge.runtime.backends.tensorrt.child"
_BUILD_SECONDS, _CHECK_SECONDS, _IDENTIFY_SECONDS = 3600, 600, 120


@dataclass(frozen=True)
class Finished:
    """What answers from now on.

    Attributes:
        backend: "tensorrt" or "cpu".
        line: one line for a person.
        cached: the engine was there already.
        lowest_cosine: of the golden check; None where none was run now.
    """

    backend: str
    line: str
    cached: bool = False
    lowest_cosine: float | None = None


def finish_artifact(
    path: str | Path, *, memory_mb: int | None = None, say: Say | None = None
) -> Finished:
    """Build and verify the engine, or find it in the cache.

    Args:
        path: an artifact.
        memory_mb: cap on the builder's memory; by default all but a reserve of what is free.
        say: called with a line for each step.

    Raises:
        ArtifactError, SignatureError: the artifact itself is not usable, on the CPU neither.
    """
    artifact = read_artifact(path, verify_signature=artifact_verifier())
    if BACKEND not in artifact.manifest.backends:
        return Finished("cpu", "nothing to finish: the artifact holds the CPU library alone")
    try:
        return _finish(artifact, memory_mb, say if say is not None else _silent)
    except (TatvprError, OSError) as error:
        return Finished("cpu", f"no TensorRT engine ({error}); the CPU library answers")


def _finish(artifact: Artifact, memory_mb: int | None, say: Say) -> Finished:
    # The children read it again: they are told which one was verified here.
    root, verified = str(artifact.root), artifact.hash
    known = _child(
        ["identify", root, verified], None, _IDENTIFY_SECONDS, "asking for GPU and TensorRT"
    )
    machine = Machine(**known["machine"])
    key = cache.entry_key(artifact, machine)
    where = f"{machine.gpu}, TensorRT {machine.tensorrt}, CUDA {machine.cuda}"
    say(f"{where}, driver {machine.driver}")
    with cache.locked(key, lambda: say("another finish is building this engine: waiting for it")):
        if cache.find(key) is not None:
            return Finished(BACKEND, f"the engine for {where} was finished before", cached=True)
        cap = _memory_cap(known["build_memory_bytes"], memory_mb)
        with cache.staging(key) as folder:
            say(f"building the engine in at most {cap >> 20} MB of memory: this takes minutes")
            built = _child(["build", root, verified, str(folder)], cap, _BUILD_SECONDS, "building")
            say(f"{built['note']}; checking the engine")
            checked = _child(
                ["check", root, verified, str(folder)], cap, _CHECK_SECONDS, "checking"
            )
            cache.publish(folder, key, artifact, machine, checked["hashes"])
    return Finished(
        BACKEND,
        f"engine finished and verified for {where}: {checked['kernel_cases']} kernel cases bit for "
        f"bit, {checked['golden_points']} golden points, lowest cosine "
        f"{checked['lowest_cosine']:.6f}",
        lowest_cosine=checked["lowest_cosine"],
    )


def _memory_cap(needed: int, memory_mb: int | None) -> int:
    """Bytes that the builder may take.

    Raises:
        ToolError: what is free is less than the builder is estimated to need.
    """
    if memory_mb is not None:
        return memory_mb << 20
    free = available_bytes() - RESERVE_BYTES
    if free < needed:
        raise ToolError(
            f"the builder needs about {needed >> 20} MB of free memory, {max(0, free) >> 20} MB "
            "are: stop other programs and run finish again, or force it with --memory-mb"
        )
    return free


def _child(arguments: list[str], cap: int | None, seconds: float, doing: str) -> dict[str, Any]:
    command = [sys.executable, "-m", _CHILD, *arguments]
    document: dict[str, Any] = run_watched(command, cap, seconds, doing)
    return document


def _silent(line: str) -> None:
    """No progress wanted."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0: the artifact answers. 1: no engine though one is required."""
    parser = Parser("python -m tatvpr_edge.runtime finish")
    parser.add_argument("artifact")
    parser.add_argument("--memory-mb", type=int, help="cap on the builder's memory")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--require-engine", action="store_true", help="exit status 1 where the CPU has to answer"
    )
    arguments = parser.parse_args(argv)
    if arguments.memory_mb is not None and arguments.memory_mb < 1:
        parser.error("--memory-mb is a number from 1 up")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    finished = finish_artifact(arguments.artifact, memory_mb=arguments.memory_mb, say=say)
    print(json.dumps(asdict(finished)) if arguments.json else finished.line)
    return 1 if arguments.require_engine and finished.backend != BACKEND else 0

"""ONNX to artifact: what ``tatvpr-edge build`` and ``tatvpr_edge.build`` call.

Reads top to bottom as the pipeline: check, lower, compile, measure, assemble.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge import zoo
from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.here import built_here
from tatvpr_edge.compilers.job import Job, Progress, lower_job
from tatvpr_edge.compilers.linux import (
    HOST,
    LIBRARY,
    LINUX_LAYOUT,
    WEIGHTS,
    compile_linux,
    interface_members,
    open_library,
)
from tatvpr_edge.compilers.objects import made_anew
from tatvpr_edge.compilers.report import BuildPlan, Tool, build_plan
from tatvpr_edge.compilers.source import remember_model
from tatvpr_edge.compilers.toolchains import find_compiler
from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.spec.artifact import read_artifact, take_new, write_artifact
from tatvpr_edge.spec.atomic import staging, take_place, temporary_folder
from tatvpr_edge.spec.errors import ArtifactError, ModelError, ToolError, UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.targets import refuse_in_artifact
from tatvpr_edge.spec.values import nameable, shown, wrong
from tatvpr_edge.spec.values import path as check_path

if TYPE_CHECKING:
    from tatvpr_edge.compilers.tvm.lower import Lowered

BACKENDS = ("tvm", "tensorrt")


def build_artifact(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    sign: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """What :func:`tatvpr_edge.build` does; the arguments and errors are described there."""
    job = _job(board, model, k_range, backend, prefix, progress)
    place, replace = _output_folder(job, output)
    _check_writable(place)
    if backend == "tensorrt":
        from tatvpr_edge.compilers.tensorrt.build import check_before

        check_before(job.board, job.graph)
    if sign is None:
        with _taking(place, replace) as made:
            _build(job, made, prefix)
            remember_model(made, job.onnx_file)
    else:
        from tatvpr_edge.runtime.signing import check_key, new_serial, sign_artifact

        # A missing key and a wrong SOURCE_DATE_EPOCH are told now, not after the build.
        sign = check_path(sign, "sign", "the path of a key")
        check_key(sign)
        serial = new_serial()
        with _taking(place, replace) as made:
            with made_anew():  # what is signed comes from no cache
                _build(job, made, prefix)
            sign_artifact(made, sign, serial)
            remember_model(made, job.onnx_file)
    return place


def keep_host(made: Path) -> Path:
    """Leave a copy of the host artifact ``made`` where ``Localizer()`` without arguments finds it.

    Raises:
        OSError: it cannot be written there (a home that is read-only, a full disk).
    """
    place, manifest = host_artifact(), read_artifact(made).manifest
    place.parent.mkdir(parents=True, exist_ok=True)
    with _taking(place, replace=True) as copy:
        write_artifact(copy, manifest, {entry.path: made / entry.path for entry in manifest.files})
    return place


@contextlib.contextmanager
def _taking(place: Path, replace: bool) -> Iterator[Path]:
    """A folder to make, which goes to ``place`` once it is whole, signed and all; what was there
    stays until then, and where anything fails."""
    with staging(place) as beside:
        made = beside / "new"
        try:
            yield made
        except OSError as error:
            if str(error.filename).startswith(str(beside)):
                error.filename = str(place)  # what a user knows of
            raise
        if replace:
            take_place(made, place)
        else:
            take_new(made, place)


def _build(job: Job, made: Path, prefix: str | None) -> None:
    if job.board.kind != "microcontroller":
        _build_linux(job, made)
        return
    from tatvpr_edge.compilers.mcu.build import DEFAULT_PREFIX, build_microcontroller

    build_microcontroller(job, made, prefix or DEFAULT_PREFIX)


def _check_prefix(board: Board, prefix: str) -> None:
    if board.kind != "microcontroller":
        raise UsageError(
            f"--prefix is for firmware with several models: board {board.name} loads one "
            "library a model"
        )
    from tatvpr_edge.compilers.mcu.generated import check_prefix

    check_prefix(prefix)


def plan_artifact(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    prefix: str | None = None,
    progress: Progress | None = None,
) -> BuildPlan:
    """What :func:`tatvpr_edge.plan` does; the arguments and errors are described there."""
    job = _job(board, model, k_range, backend, prefix, progress)
    if job.board.kind == "microcontroller":
        from tatvpr_edge.compilers.mcu.build import plan_microcontroller

        return plan_microcontroller(job)
    return _plan(job, lower_job(job, LINUX_LAYOUT))


def _job(
    board: str | os.PathLike[str],
    model: str | os.PathLike[str] | None,
    k_range: tuple[float, float],
    backend: str,
    prefix: str | None,
    progress: Progress | None,
) -> Job:
    """The checked arguments of a build or a plan."""
    say = progress if progress is not None else _silent
    target = load_board(board)
    if prefix is not None:
        _check_prefix(target, prefix)
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}: it is one of {', '.join(BACKENDS)}")
    try:
        low, high = k_range
    except (TypeError, ValueError):
        raise wrong(k_range, "k_range", "smallest and largest k, such as (0.05, 1.0)") from None
    low, high = check_fraction(low, "k-range"), check_fraction(high, "k-range")
    if low > high:
        raise UsageError(f"k-range is {low:g}:{high:g}: write the smaller k first")
    onnx_file = find_model(target.model if model is None else model)
    say("checking the model", 0, 1)
    graph = checked_graph(onnx_file)
    if backend == "tensorrt" and target.gpu is None:
        raise UsageError(f"board {target.name} has no GPU for TensorRT: leave --backend out")
    return Job(target, onnx_file, graph, _model_name(graph, onnx_file), (low, high), backend, say)


def find_model(model: str | os.PathLike[str]) -> Path:
    """The ONNX file of a shipped model's name, or the file itself.

    Raises:
        ModelError: neither a shipped model nor a file.
        UsageError: neither a name nor a path.
    """
    text = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise wrong(model, "model", "a shipped model's name, or the path of an ONNX file")
    text = os.path.expanduser(text)
    if not nameable(text):
        raise ModelError(f"{shown(text)}: no file can be called so")
    named = text in zoo.names()
    if text.endswith(".onnx") or os.sep in text or (not named and Path(text).is_file()):
        if not Path(text).exists():
            raise ModelError(f"{text}: no such ONNX file; 'tatvpr-edge models' lists shipped ones")
        return Path(text)
    return zoo.path(text)


def _model_name(graph: Graph, onnx_file: Path) -> str:
    """A short name that fits C text, file names and errors."""
    name = graph.metadata.get("tatvpr.model", "") or onnx_file.stem
    return re.sub(r"[^0-9A-Za-z._-]+", "-", name)[:60].strip("-.") or "model"


def _check_writable(place: Path) -> None:
    """Before minutes of compiling: the artifact can be put there.

    Raises:
        ArtifactError: it cannot (a home that is read-only, a full disk).
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staging(place):
            pass
    except OSError as error:
        raise ArtifactError(
            f"cannot write the artifact at {place} ({error.strerror}): name another place with "
            "--output"
        ) from None


def _output_folder(job: Job, output: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Where the artifact goes, and whether something there may be replaced."""
    if output is None and job.board.name == HOST:
        return host_artifact(), True
    named = f"{job.name}-{job.board.name}" if output is None else output
    place = check_path(named, "output", "the folder to write")
    if place.exists() or place.is_symlink() or place.name == "..":  # which any folder has
        raise ArtifactError(f"{place} exists: choose another --output, or remove it first")
    refuse_in_artifact(place, ArtifactError)
    return place, False


def _build_linux(job: Job, made: Path) -> None:
    lowered = lower_job(job, LINUX_LAYOUT)
    with temporary_folder("build") as scratch:
        folder = Path(scratch)
        library = None
        if job.board.cpu.triple != NATIVE:
            job.progress(f"compiling for {job.board.name}", 0, 1)
            library = compile_linux(lowered, job.board, folder / "board")
        here = built_here(job, lowered, folder)
        library = library or here.library
        manifest = here.manifest(job, library)
        members: dict[str, bytes | str | Path] = {
            LIBRARY: library,
            WEIGHTS: lowered.blob,
            **interface_members(job.name),
            "src/model.c": lowered.model_c.encode(),
            **here.vectors,
        }
        if job.backend == "tensorrt":
            from tatvpr_edge.compilers.tensorrt.build import add_tensorrt

            manifest, members = add_tensorrt(job.board, job.graph, manifest, members)
        job.progress("writing the artifact", 0, 1)
        write_artifact(made, manifest, members)


def _plan(job: Job, lowered: Lowered) -> BuildPlan:
    """What the build would be; the arena is asked of the core where a C compiler is at hand."""
    tools = [_tool(job.board)]
    host = load_board(HOST)
    if job.board.name != HOST:
        tools.append(_tool(host))
    arena: int | None = None
    can_compile = tools[-1].found is not None
    board_steps: tuple[str, ...] = ()
    if job.backend == "tensorrt":
        from tatvpr_edge.compilers.tensorrt import build as tensorrt

        board_steps = tensorrt.board_steps(job.board, job.graph)
        tools += tensorrt.tools(job.board)
    if can_compile:
        job.progress("compiling for this machine", 0, 1)
        with temporary_folder("plan") as scratch:
            library = compile_linux(lowered, host, Path(scratch) / "host")
            arena = int(open_library(library, lowered).info.arena_bytes)
    return build_plan(job, lowered, arena, tools, board_steps=board_steps)


def _tool(board: Board) -> Tool:
    try:
        return Tool(f"C compiler for {board.name}", find_compiler(board).name, "")
    except ToolError as error:
        return Tool(f"C compiler for {board.name}", None, str(error).partition(": ")[2])


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""

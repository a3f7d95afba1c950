"""``tatvpr-edge doctor``: what this machine has and lacks for each job, with the remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from tatvpr_edge.cli.output import json_option, print_json, print_table, say


@dataclass(frozen=True)
class Check:
    """One thing that a job needs. ``remedy`` is empty where it is there."""

    job: str
    thing: str
    present: bool
    detail: str
    remedy: str = ""
    optional: bool = False


_PACKAGES = {
    "run": (("numpy", "pip install numpy"),),
    "command line": tuple(
        (name, "pip install 'tatvpr-edge[cli]'") for name in ("click", "rich", "pillow")
    ),
    "build": tuple(
        (name, "pip install 'tatvpr-edge[build]'")
        for name in ("onnx", "onnxruntime", "apache-tvm", "apache-tvm-ffi")
    ),
    "train": tuple((name, "pip install 'tatvpr-edge[train]'") for name in ("torch", "safetensors")),
}
_PROGRAMS = (
    ("deploy", "ssh", "openssh-client", False),
    ("deploy", "ssh-keygen", "openssh-client", False),
    ("emulate boards", "qemu-aarch64", "qemu-user", True),
    ("emulate boards", "qemu-system-arm", "qemu-system-arm", True),
    ("emulate boards", "qemu-system-riscv32", "qemu-system-misc", True),
)


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """What this machine has and lacks for each job, with the remedy."""
    checks = list(examine())
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    marks = {(True, True): "ok", (True, False): "ok", (False, True): "-", (False, False): "lacks"}
    print_table(
        ["job", "thing", "", "detail"],
        [
            [
                check.job,
                check.thing,
                marks[check.present, check.optional],
                check.detail if check.present else f"{check.detail}; {check.remedy}".strip("; "),
            ]
            for check in checks
        ],
    )
    lacking = [check for check in checks if not check.present and not check.optional]
    if lacking:
        jobs = ", ".join(dict.fromkeys(check.job for check in lacking))
        say(f"not ready: {jobs}. The table has the remedies; everything else works.")
    else:
        say("ready for every job ('-' is optional).")


def examine() -> Iterator[Check]:
    """Every check, in the order of the jobs. Nothing heavy is imported."""
    version = platform.python_version()
    yield Check("run", "Python", sys.version_info >= (3, 10), version, "use Python 3.10 or newer")
    yield from _packages("run")
    yield _artifact()
    yield from _kernels()
    yield from _packages("command line")
    yield from _packages("build")
    yield from _compilers()
    yield from _packages("train")
    for job, program, package, optional in _PROGRAMS:
        path = _found(program)
        yield Check(
            job, program, path is not None, path or "", f"apt-get install {package}", optional
        )
    yield from _eyes()
    yield from _sensors()
    yield _gpu()


def _found(program: str) -> str | None:
    """Where it is; what judges signatures is not taken from PATH."""
    if program != "ssh-keygen":
        return shutil.which(program)
    from tatvpr_edge.runtime.signature import ssh_keygen_path
    from tatvpr_edge.spec.errors import ToolError

    try:
        return ssh_keygen_path()
    except ToolError:
        return None


def _packages(job: str) -> Iterator[Check]:
    for name, remedy in _PACKAGES[job]:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(job, name, False, "", remedy)
        else:
            yield Check(job, name, True, found)


def _artifact() -> Check:
    from tatvpr_edge.runtime.default import default_artifact
    from tatvpr_edge.spec.artifact import read_manifest
    from tatvpr_edge.spec.errors import TatvprError

    thing, remedy = "artifact", "tatvpr-edge build --board host"
    try:
        path, _ = default_artifact()
        manifest = read_manifest(path)
    except TatvprError:
        return Check("run", thing, False, "none for this machine yet", remedy, optional=True)
    return Check("run", thing, True, f"{manifest.model.name} in {path}")


def _kernels() -> Iterator[Check]:
    """The kernel variant that this machine's artifact runs with; measured here where it is new."""
    from tatvpr_edge.runtime.default import default_artifact
    from tatvpr_edge.runtime.library import Library
    from tatvpr_edge.runtime.signature import artifact_verifier
    from tatvpr_edge.spec.artifact import read_artifact
    from tatvpr_edge.spec.errors import TatvprError

    try:
        path, _ = default_artifact()
    except TatvprError:
        return
    try:
        artifact = read_artifact(path, verify_signature=artifact_verifier())
        library = Library.of(artifact)
    except (TatvprError, OSError) as error:
        yield Check("run", "kernels", False, str(error), "tatvpr-edge build --board host")
        return
    others = [name for name in library.usable_kernels() if name != library.kernels]
    detail = f"{library.kernels}, the fastest here; also usable: {', '.join(others) or 'none'}"
    yield Check("run", "kernels", True, detail)


def _compilers() -> Iterator[Check]:
    """One line for each distinct compiler that the boards want."""
    from tatvpr_edge.boards.loader import load, names
    from tatvpr_edge.compilers.toolchains import find_compiler
    from tatvpr_edge.spec.errors import ToolError

    wanted: dict[str, list[str]] = {}
    for name in names():
        wanted.setdefault(load(name).toolchain.gcc, []).append(name)
    for boards in wanted.values():
        board = load(boards[0])
        thing = f"C compiler for {boards[0]}" + (" and others" if len(boards) > 1 else "")
        packages = " ".join(board.toolchain.gcc_packages)
        zig = ", or pip install ziglang" if board.kind == "linux" else ""
        remedy = f"apt-get install {packages}{zig}"
        try:
            detail = find_compiler(board).name
        except ToolError as error:
            yield Check("build", thing, False, str(error).rpartition(": ")[0], remedy)
        else:
            yield Check("build", thing, True, detail)


def _eyes() -> Iterator[Check]:
    """What reads cameras, videos and bags; nothing of it is imported."""
    for thing, module, remedy in (
        ("OpenCV (cameras, videos)", "cv2", "apt-get install python3-opencv; JetPack has its own"),
        ("PyAV (videos, addresses)", "av", "pip install 'tatvpr-edge[video]'"),
        ("rosbags (ROS bags)", "rosbags", "pip install 'tatvpr-edge[bags]'"),
    ):
        found = importlib.util.find_spec(module)
        where = "" if found is None else next(iter(found.submodule_search_locations or ()), "")
        yield Check("streams and bags", thing, found is not None, where, remedy, optional=True)


def _sensors() -> Iterator[Check]:
    from tatvpr_edge.runtime.telemetry import discover

    found = discover()
    try:
        for source in found.sources:
            yield Check("power", source.name, True, source.describe())
        if not found.sources:
            detail = "none that can be read; 'tatvpr-edge power' says why"
            yield Check("power", "sensors", False, detail, optional=True)
    finally:
        found.close()


def _gpu() -> Check:
    """A CUDA device, told by its device files: no library is loaded."""
    tegra = os.path.exists("/dev/nvhost-gpu") or os.path.exists("/dev/nvmap")
    if tegra:
        return Check("GPU", "NVIDIA GPU", True, "Jetson (integrated)")
    if os.path.exists("/dev/nvidia0"):
        return Check("GPU", "NVIDIA GPU", True, "/dev/nvidia0")
    return Check("GPU", "NVIDIA GPU", False, "none; the CPU runs everything", "", optional=True)

"""Compile the C++ plugins against a TensorRT's headers: on the board, or by ``make plugin``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tatvpr_edge.spec.errors import ToolError

_HEADER, _CUDA_HEADER = "NvInferRuntime.h", "cuda.h"
_FOLDERS = (
    "/usr/include/aarch64-linux-gnu",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include",
    "/usr/local/tensorrt/include",
)
_CUDA_FOLDERS = ("/usr/local/cuda/include", "/usr/include")
_SOURCES = ("plugins.cpp", "launch.cpp", "cubins.S")
_SECONDS = 600


def find_headers() -> tuple[Path, Path]:
    """Folders of TensorRT's and CUDA's headers; looked for first in $TENSORRT_INCLUDE and
    $CUDA_INCLUDE.

    Raises:
        ToolError: one is not found; the text says what to install or to set.
    """
    first = os.environ.get("TENSORRT_INCLUDE", "")
    newer = map(str, sorted(Path("/usr/local").glob("cuda-*/include")))
    cuda = (os.environ.get("CUDA_INCLUDE", ""), first, *_CUDA_FOLDERS, *newer)
    return (
        _find(_HEADER, (first, *_FOLDERS), "TENSORRT_INCLUDE=DIR, or apt-get install tensorrt-dev"),
        _find(_CUDA_HEADER, cuda, "CUDA_INCLUDE=DIR, or apt-get install cuda-toolkit"),
    )


def _find(header: str, folders: Sequence[str], remedy: str) -> Path:
    for folder in folders:
        if folder and (Path(folder) / header).is_file():
            return Path(folder)
    raise ToolError(f"{header} is not found: {remedy}")


def compile_plugin(
    sources: Path,
    cubins: Path,
    output: Path,
    headers: tuple[Path, Path],
    options: Sequence[str] = (),
) -> Path:
    """The plugin library.

    Args:
        sources: folder of plugins.cpp, launch.cpp, launch.h, cubins.S and names.h.
        cubins: folder of SOURCE.cubin files, which become part of the library.
        headers: as :func:`find_headers` gives them.

    Raises:
        ToolError: there is no C++ compiler, or it failed; its first error is quoted.
    """
    named, found = os.environ.get("CXX", ""), shutil.which("g++") or shutil.which("c++")
    try:  # a path with a space is one word
        words = [named] if shutil.which(named) else shlex.split(named)
    except ValueError as error:
        raise ToolError(f"CXX is {named!r}, which is no command: {error}") from None
    compiler = words or ([found] if found else [])
    if not compiler:
        raise ToolError("no C++ compiler: apt-get install g++")
    # GCC looks there by itself, last: named, it comes before the library's own <stdlib.h>.
    folders = [str(folder) for folder in headers if folder.resolve() != Path("/usr/include")]
    command = [
        *compiler,
        *("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"),
        *(option for folder in folders for option in ("-isystem", folder)),
        *(f"-I{sources}", f"-Wa,-I,{cubins}"),
        *options,
        *(str(sources / name) for name in _SOURCES),
        *("-o", str(output)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{compiler[0]} could not compile the plugin: {error}") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line.lower()), "no reason given")
        raise ToolError(f"the plugin does not compile: {first[:300]}")
    return output

"""Builds the C targets of ``fuzz/core``: the core's sources with the flags that users' builds give
them, under AddressSanitizer and UndefinedBehaviorSanitizer, steered by libFuzzer."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, Source, core_sources
from tatvpr_edge.compilers.objects import Compiler, compile_object, run_tool
from tatvpr_edge.compilers.probe import first_line
from tatvpr_edge.compilers.toolchains import core_architecture
from tatvpr_edge.spec.errors import ToolError

HERE = Path(__file__).resolve().parent
#: A whole small model, written as generated code is.
SMALL_MODEL = HERE.parent / "tests" / "core" / "small_vit.c"
#: Newest first; Debian names them so.
COMPILERS = ("clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang", "clang-14")
SANITIZERS = "address,undefined"
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
TARGETS = tuple(sorted(path.stem for path in (HERE / "core").glob("*.c")))


def find_clang() -> Compiler:
    """The first clang that builds a fuzz target.

    Raises:
        ToolError: there is none; the text says what to install.
    """
    found = None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        probe = Path(name) / "probe.c"
        probe.write_text(
            "int LLVMFuzzerTestOneInput(const char *d, unsigned long n)"
            "{ return n > 9 && d[0] == 1 ? -1 : 0; }\n"
        )
        for command in COMPILERS:
            if shutil.which(command) is None:
                continue
            wanted = [command, f"-fsanitize=fuzzer,{SANITIZERS}", str(probe), "-o", f"{name}/probe"]
            try:
                run_tool(wanted, command)
            except ToolError as error:
                found = error
            else:
                return Compiler((command,), _version(command))
    why = "" if found is None else f" ({found})"
    raise ToolError(
        f"no clang that builds fuzz targets{why}: 'apt-get install clang-19 libclang-rt-19-dev'"
    )


def _version(command: str) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    return first_line(done.stdout)


def build(targets: Sequence[str], folder: Path) -> dict[str, Path]:
    """The programs of these targets below ``folder``, by name."""
    compiler = find_clang()
    folder.mkdir(parents=True, exist_ok=True)
    arch = core_architecture(load("host"))
    own = (*NUMERIC_FLAGS, "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror")
    mains = {name: Source(HERE / "core" / f"{name}.c", own) for name in targets}
    small = Source(SMALL_MODEL, (*NUMERIC_FLAGS, "-D_POSIX_C_SOURCE=200809L"))
    sources = [*core_sources(arch), small, *mains.values()]
    flags = (*FLAGS, f"-fsanitize=fuzzer-no-link,{SANITIZERS}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:

        def compiled(item: tuple[int, Source]) -> Path:
            index, source = item
            output = Path(name) / f"{index}.o"
            # Optimisation of single files (-O3) would cost more of the build than it gives.
            given = [flag for flag in source.flags if flag != "-O3"]
            return compile_object(compiler, source.path, [*given, *flags], output)

        with ThreadPoolExecutor(2) as pool:
            objects = dict(zip(sources, pool.map(compiled, enumerate(sources)), strict=True))
        shared = [str(made) for source, made in objects.items() if source not in mains.values()]
        programs = {}
        for target, source in mains.items():
            programs[target] = folder / target
            link = [*compiler.command, f"-fsanitize=fuzzer,{SANITIZERS}", str(objects[source])]
            run_tool(
                [*link, *shared, "-o", str(programs[target]), "-pthread", "-lm"],
                f"linking the fuzz target {target}",
            )
    return programs

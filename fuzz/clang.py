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
#: Its sizes here: an execution is a few microseconds, and every kernel still has whole vectors and
#: a rest. The macros' names are those of the arguments of small_vit.SmallVit.
SMALL_SIZES = {"side": 8, "patch_side": 4, "dim": 32, "hidden": 128}
SANITIZERS = "address,undefined"
FLAGS = ("-O2", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
#: Files of the core whose branches steer a target. All others run under the same sanitizers, but
#: what they count and compare says nothing of the input and would cost most of the time.
STEERING = {
    "map": ("map", "map_query", "map_search"),
    "journal": ("map", "map_journal", "map_search"),
    "frame": ("frame", "resize"),
    "blob": ("model", "weights", "describe", "small_vit"),
}
#: Functions of the core that ``fuzz/core/shared`` has quicker ones for, by file.
QUICKER = {
    "common/bytes": ("crc32",),
    "x86/cpu": ("cpu_avx2", "cpu_avx_vnni", "cpu_avx512_vnni", "cpu_costs"),
}
_BRANCHES = "-fsanitize-coverage=inline-8bit-counters,pc-table"
_COMPARED = f"{_BRANCHES},indirect-calls,trace-cmp"
#: What numbers are compared with steers where a file has fields; pixels and weights have none.
COVERAGE = {"map": _COMPARED, "journal": _COMPARED, "frame": _BRANCHES, "blob": _BRANCHES}
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


def _left_to_shared(source: Source) -> Source:
    """A file of the core, which leaves the names that ``fuzz/core/shared`` takes to it."""
    names = QUICKER.get(f"{source.path.parent.name}/{source.path.stem}", ())
    renamed = [f"-Dtatvpr_{name}=fuzz_core_{name}" for name in names]
    return Source(source.path, (*source.flags, *renamed))


def build(targets: Sequence[str], folder: Path) -> dict[str, Path]:
    """The programs of these targets below ``folder``, by name; no target needs no compiler."""
    if not targets:
        return {}
    compiler = find_clang()
    folder.mkdir(parents=True, exist_ok=True)
    arch = core_architecture(load("host"))
    own = (*NUMERIC_FLAGS, "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror")
    mains = {name: Source(HERE / "core" / f"{name}.c", own) for name in targets}
    sizes = [f"-DSMALL_VIT_{name.upper()}={size}" for name, size in SMALL_SIZES.items()]
    small = Source(SMALL_MODEL, (*NUMERIC_FLAGS, "-D_POSIX_C_SOURCE=200809L", *sizes))
    quicker = [Source(path, own) for path in sorted((HERE / "core" / "shared").glob("*.c"))]
    shared = [*map(_left_to_shared, core_sources(arch)), small, *quicker]
    # Each file with how its coverage is taken: no way, or its target's.
    wanted = {
        name: [(s, COVERAGE[name] if s.path.stem in STEERING[name] else "") for s in shared]
        + [(main, _COMPARED)]
        for name, main in mains.items()
    }
    each = sorted({pair for pairs in wanted.values() for pair in pairs}, key=str)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:

        def compiled(index: int) -> Path:
            source, coverage = each[index]
            # Optimisation of single files (-O3) would cost more of the build than it gives.
            flags = [*(flag for flag in source.flags if flag != "-O3"), *FLAGS]
            if source.path.stem != "crc32":  # which asks AddressSanitizer itself
                flags += [f"-fsanitize={SANITIZERS}", *([coverage] if coverage else [])]
            return compile_object(compiler, source.path, flags, Path(name) / f"{index}.o")

        with ThreadPoolExecutor(2) as pool:
            objects = dict(zip(each, pool.map(compiled, range(len(each))), strict=True))
        programs = {target: folder / target for target in mains}
        for target, program in programs.items():
            given = [str(objects[pair]) for pair in wanted[target]]
            link = [*compiler.command, f"-fsanitize=fuzzer,{SANITIZERS}", *given]
            run_tool(
                [*link, "-o", str(program), "-pthread", "-lm"],
                f"linking the fuzz target {target}",
            )
    return programs

"""Firmware for the emulated boards: compile, link with the boards' limits, run, count.

Used by the tests and by ``tools/mcu_counts.py``. Instruction counts come from
``count_plugin.c``; they are exact and repeatable, and they are instructions, not cycles: nothing
here says anything about time.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tatvpr_edge.boards.board import Board
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.compilers.core_sources import (
    NUMERIC_FLAGS,
    core_include,
    core_sources,
    firmware_folder,
)
from tatvpr_edge.compilers.mcu.flags import OPTIMISATION, WARNINGS, extra_flags, has_no_libc
from tatvpr_edge.compilers.mcu.linker import stretches, whole_script
from tatvpr_edge.compilers.mcu.variants import Variant, variant_of
from tatvpr_edge.spec.errors import ToolError

HERE = Path(__file__).resolve().parent
FIRMWARE = HERE / "firmware"
_POOL_BYTES = 16 << 20
_MOST_BANK = 1 << 20
_DATA_BYTES = 128 << 10
_HEADER_WORDS = 16


@dataclass(frozen=True)
class EmulatedBoard:
    """How to compile for a board and run what comes out."""

    name: str
    variant: Variant
    compiler: str
    package: str
    flags: tuple[str, ...]
    qemu: str
    qemu_package: str
    machine: tuple[str, ...]
    libraries: tuple[str, ...]
    script: str  # of the linker: what users of the board get
    bank_bytes: int  # of the region that the arena goes to
    pool: int  # address of 16 MB for test data alone, which nothing of the library needs
    freestanding: bool = False  # the toolchain brings no memcpy

    @property
    def nm(self) -> str:
        """Name of the toolchain's nm."""
        return self.compiler.removesuffix("gcc") + "nm"


def _emulated(name: str) -> EmulatedBoard:
    board = load(name)
    if board.emulator is None:
        raise ToolError(f"board {name} has no emulator")
    return EmulatedBoard(
        name=name,
        variant=variant_of(board),
        compiler=board.toolchain.gcc,
        package=" ".join(board.toolchain.gcc_packages),
        flags=(*board.toolchain.gcc_flags, *extra_flags(board)),
        qemu=board.emulator.program,
        qemu_package=board.emulator.package,
        machine=board.emulator.arguments,
        libraries=("-lgcc",) if has_no_libc(board) else ("-lc", "-lgcc"),
        script=whole_script(board),
        bank_bytes=_bank_bytes(board),
        pool=_pool(board),
        freestanding=has_no_libc(board),
    )


def _bank_bytes(board: Board) -> int:
    """Of the arena's region, less what the firmware's stack and data take where they share it."""
    (stretch,) = (s for s in stretches(board) if "arena" in s.uses)
    return min(_MOST_BANK, stretch.bytes - (_DATA_BYTES if "stack" in stretch.uses else 0))


def _pool(board: Board) -> int:
    """External RAM where there is some, else far up in the arena's region."""
    for region in board.memory:
        if region.kind == "external-ram":
            return region.base
    assert board.placement is not None
    # the emulator itself puts the device tree at the very end
    return board.region(board.placement.arena).end - 4 * _POOL_BYTES


def _is_emulated(board: Board) -> bool:
    return board.kind == "microcontroller" and board.emulator is not None


#: By name: every microcontroller whose file says how it is emulated.
BOARDS = {name: _emulated(name) for name in names() if _is_emulated(load(name))}


def tool(name: str, package: str) -> str:
    """Path of an executable.

    Raises:
        ToolError: it is not installed; the text names the package.
    """
    path = shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is missing: apt-get install {package}")
    return path


def _call(command: Sequence[str | Path], what: str) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip()
        raise ToolError(f"{what} failed: {text[-3000:]}")


def _newest(folder: Path) -> float:
    return max(p.stat().st_mtime for p in folder.rglob("*.[chS]"))


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """Where to make ``target``, which is renamed to it: other processes compile there, too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as name:
        made = Path(name) / target.name
        yield made
        made.replace(target)


def write_changed(path: Path, data: bytes) -> None:
    """``data`` at ``path``, whose date stays where it holds them."""
    if not path.exists() or path.read_bytes() != data:
        with made_whole(path) as made:
            made.write_bytes(data)


@dataclass
class Workshop:
    """Compiles into ``folder``; objects that are newer than every source are used again."""

    folder: Path

    def objects(
        self,
        board: EmulatedBoard,
        sources: Iterable[tuple[Path, Sequence[str]]],
        extra: Sequence[str] = (),
    ) -> list[Path]:
        """Object files of ``sources`` (path, flags), made where they are not up to date."""
        compiler = tool(board.compiler, board.package)
        newest = max(_newest(core_include().parent), _newest(FIRMWARE))
        made = []
        for source, flags in sources:
            command = [
                compiler, *board.flags, *OPTIMISATION, *WARNINGS, *flags, *extra,
                f"-I{core_include()}",
            ]  # fmt: skip
            key = hashlib.sha256("\0".join([*command, str(source)]).encode()).hexdigest()[:12]
            target = self.folder / f"{board.name}-{source.stem}-{key}.o"
            if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
                with made_whole(target) as new:
                    _call([*command, "-c", source, "-o", new], f"compiling {source.name}")
            made.append(target)
        return made

    def core(self, board: EmulatedBoard, extra: Sequence[str] = ()) -> list[Path]:
        """Objects of the C core with this board's kernels."""
        sources = [(s.path, s.flags) for s in core_sources("mcu", board.variant.name)]
        return self.objects(board, sources, extra)

    def link(
        self,
        board: EmulatedBoard,
        name: str,
        objects: Sequence[Path],
        sources: Sequence[Path],
        extra: Sequence[str] = (),
        libraries: Sequence[Path] = (),
    ) -> Path:
        """An ELF image of ``objects``, firmware ``sources`` and the start-up code.

        Raises:
            ToolError: compiling failed, or the image does not fit the board's regions.
        """
        support = [firmware_folder() / "startup.c", firmware_folder() / "semihosting.c", *sources]
        if board.freestanding:
            support.append(firmware_folder() / "freestanding.c")
        flags = (
            *NUMERIC_FLAGS, "-DTATVPR_MCU", "-std=gnu99", f"-I{firmware_folder()}",
            f"-DBANK_BYTES={board.bank_bytes}u", f"-DPOOL_BYTES={_POOL_BYTES}u", *extra,
        )  # fmt: skip
        firmware = self.objects(board, [(s, flags) for s in support])
        image = self.folder / f"{board.name}-{name}.elf"
        scripts = self._scripts(board)
        command = [
            tool(board.compiler, board.package), *board.flags, "-nostdlib", "-nostartfiles",
            "-static", *(f"-Wl,-T,{script}" for script in scripts), "-Wl,--gc-sections",
            "-Wl,--no-warn-rwx-segments", "-Wl,--fatal-warnings",
            *objects, *firmware, *libraries, *board.libraries,
        ]  # fmt: skip
        with made_whole(image) as new:
            _call([*command, "-o", new], f"linking {image.name}")
        return image

    def _scripts(self, board: EmulatedBoard) -> tuple[Path, Path]:
        """The pool of test data (an INSERT comes first), and the board's own linker script."""
        own, pool = self.folder / f"{board.name}.ld", self.folder / f"{board.name}-pool.ld"
        text = (
            f"MEMORY {{ POOL : ORIGIN = {board.pool:#x}, LENGTH = {_POOL_BYTES:#x} }}\n"
            "SECTIONS { .pool (NOLOAD) : { . = ALIGN(64); *(.pool*) } > POOL }\n"
            "INSERT AFTER .bss;\n"
        )
        write_changed(own, board.script.encode())
        write_changed(pool, text.encode())
        return pool, own

    def plugin(self) -> Path:
        """The counting plugin, compiled for this machine."""
        source = HERE / "count_plugin.c"
        target = self.folder / "count_plugin.so"
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            with made_whole(target) as new:
                command = [tool("gcc", "gcc"), "-O2", "-shared", "-fPIC", source, "-o", new]
                _call(command, "compiling the counting plugin")
        return target


#: Blocks that ran: address, instructions as they lie in memory, how often.
Code = list[tuple[int, bytes, int]]


@dataclass
class Counts:
    """What ``count_plugin.c`` wrote."""

    regions: list[int] = field(default_factory=list)  # instructions between the marks
    blocks: dict[int, int] = field(default_factory=dict)  # address -> instructions in regions
    codes: list[Code] = field(default_factory=list)  # of each region

    @property
    def code(self) -> Code:
        """Of all regions."""
        return [block for code in self.codes for block in code]


def read_counts(path: Path) -> Counts:
    """The plugin's file.

    Raises:
        OSError: there is none: the emulator did not come to its end.
    """
    found = Counts()
    for line in path.read_text().splitlines():
        kind, *words = line.split()
        if kind == "region":
            found.regions.append(int(words[1]))
            found.codes.append([])
        elif kind == "block":
            address = int(words[0], 16)
            found.blocks[address] = found.blocks.get(address, 0) + int(words[1])
        elif kind == "code":
            found.codes[-1].append((int(words[0], 16), bytes.fromhex(words[2]), int(words[1])))
    return found


@dataclass
class RunResult:
    """What one emulation gave back."""

    status: int
    text: str
    counts: Counts


def run(
    board: EmulatedBoard,
    image: Path,
    arguments: str,
    plugin: Path | None = None,
    blocks: bool = False,
    loads: Sequence[tuple[Path, int]] = (),
    timeout_s: float = 1500.0,
    code: bool = False,
) -> RunResult:
    """Run ``image``; ``loads`` places raw files at addresses before the first instruction.

    Raises:
        ToolError: the emulator is missing, was started wrongly or ran past ``timeout_s``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch) / "counts"
        command = [
            tool(board.qemu, board.qemu_package), *board.machine, "-display", "none",
            "-monitor", "none", "-serial", "none",
            "-semihosting-config", f"enable=on,target=native,arg={arguments}",
            "-kernel", str(image),
        ]  # fmt: skip
        if plugin is not None:
            command += ["-plugin", f"{plugin},out={counts},blocks={int(blocks)},code={int(code)}"]
        for path, address in loads:
            command += ["-device", f"loader,file={path},addr={address:#x},force-raw=on"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"{image.name} ran past {timeout_s:.0f} s in {board.qemu}") from None
        counted = read_counts(counts) if counts.exists() else Counts()
        return RunResult(done.returncode, done.stdout + done.stderr, counted)


@dataclass
class Jobs:
    """Jobs for one board, run in one emulation: the host's side of ``firmware/jobs.h``."""

    board: EmulatedBoard
    image: Path
    jobs: list[bytes] = field(default_factory=list)

    def put(self, kind: int, arguments: Sequence[int], payload: bytes) -> None:
        """One more job."""
        words = [kind, len(payload), *arguments]
        words += [0] * (_HEADER_WORDS - len(words))
        self.jobs.append(struct.pack(f"<{_HEADER_WORDS}i", *words) + payload)

    def run_jobs(
        self, folder: Path, plugin: Path | None, blocks: bool, code: bool
    ) -> tuple[Iterator[bytes], RunResult]:
        """The records of all jobs, in order.

        Raises:
            ToolError: the firmware did not end with status 0 (90: it faulted).
        """
        folder.mkdir(parents=True, exist_ok=True)
        jobs, results = folder / "jobs.bin", folder / "results.bin"
        jobs.write_bytes(b"".join(self.jobs) + bytes(4 * _HEADER_WORDS))  # kind 0 ends them
        done = run(self.board, self.image, f"{jobs} {results}", plugin, blocks, code=code)
        if done.status != 0:
            what = type(self).__name__.lower()
            raise ToolError(f"{what} on {self.board.name} ended with {done.status}: {done.text}")
        return _records(results.read_bytes()), done


def _records(raw: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        yield raw[position + 4 : position + 4 + length]
        position += 4 + length


def account(board: EmulatedBoard, image: Path, result: RunResult) -> dict[str, int]:
    """Instructions of the regions by function, largest first (needs ``blocks=True``)."""
    command = [tool(board.nm, board.package), "--defined-only", "-n", str(image)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    symbols = []
    for line in listing.splitlines():
        address, kind, name = line.split()
        if kind in "tTwW" and not name.startswith("$"):
            symbols.append((int(address, 16) & ~1, name))
    by_name: dict[str, int] = {}
    for address, count in result.counts.blocks.items():
        owner = "?"
        for start, name in symbols:
            if start > address:
                break
            owner = name
        by_name[owner] = by_name.get(owner, 0) + count
    return dict(sorted(by_name.items(), key=lambda item: -item[1]))

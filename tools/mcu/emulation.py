"""Firmware for the emulated boards: compile, link with the boards' limits, run, count.

Used by the tests and by ``tools/mcu_counts.py``. Instruction counts come from
``count_plugin.c``; they are exact and repeatable, and they are instructions, not cycles: nothing
here says anything about time.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tatvpr_edge.spec.core_sources import NUMERIC_FLAGS, core_include, core_sources
from tatvpr_edge.spec.errors import ToolError

HERE = Path(__file__).resolve().parent
FIRMWARE = HERE / "firmware"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
EXIT_FAULT = 90
EXIT_STACK = 91


@dataclass(frozen=True)
class EmulatedBoard:
    """How to compile for a board and run what comes out."""

    name: str
    compiler: str
    package: str
    flags: tuple[str, ...]
    qemu: str
    qemu_package: str
    machine: tuple[str, ...]
    libraries: tuple[str, ...]
    freestanding: bool = False  # the toolchain brings no memcpy

    @property
    def readelf(self) -> str:
        """Name of the toolchain's readelf."""
        return self.compiler.removesuffix("gcc") + "readelf"

    @property
    def nm(self) -> str:
        """Name of the toolchain's nm."""
        return self.compiler.removesuffix("gcc") + "nm"


def _arm(name: str, core: str, fpu: str, machine: str) -> EmulatedBoard:
    return EmulatedBoard(
        name=name,
        compiler="arm-none-eabi-gcc",
        package="gcc-arm-none-eabi",
        flags=(f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", *((f"-mfpu={fpu}",) if fpu else ())),
        qemu="qemu-system-arm",
        qemu_package="qemu-system-arm",
        machine=("-M", machine),
        libraries=("-lc", "-lgcc"),
    )


BOARDS = {
    board.name: board
    for board in (
        _arm("mps2-an500", "cortex-m7", "fpv5-sp-d16", "mps2-an500"),
        _arm("mps2-an386", "cortex-m4", "fpv4-sp-d16", "mps2-an386"),
        _arm("mps3-an547", "cortex-m55", "", "mps3-an547"),
        EmulatedBoard(
            name="riscv32-virt",
            compiler="riscv64-unknown-elf-gcc",
            package="gcc-riscv64-unknown-elf",
            flags=("-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany", "-ffreestanding"),
            qemu="qemu-system-riscv32",
            qemu_package="qemu-system-misc",
            machine=("-M", "virt", "-bios", "none", "-m", "64M"),
            libraries=("-lgcc",),
            freestanding=True,
        ),
    )
}


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
                compiler, *board.flags, "-O3", *WARNINGS, "-ffunction-sections", "-fdata-sections",
                "-fno-tree-loop-distribute-patterns", *flags, *extra, f"-I{core_include()}",
            ]  # fmt: skip
            key = hashlib.sha256("\0".join([*command, str(source)]).encode()).hexdigest()[:12]
            target = self.folder / f"{board.name}-{source.stem}-{key}.o"
            if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
                self.folder.mkdir(parents=True, exist_ok=True)
                _call([*command, "-c", source, "-o", target], f"compiling {source.name}")
            made.append(target)
        return made

    def core(self, board: EmulatedBoard, extra: Sequence[str] = ()) -> list[Path]:
        """Objects of the C core with this board's kernels."""
        sources = [(s.path, s.flags) for s in core_sources("cortexm")]
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
        support = [FIRMWARE / "startup.c", *sources]
        if board.freestanding:
            support.append(FIRMWARE / "freestanding.c")
        flags = (*NUMERIC_FLAGS, "-DTATVPR_CORTEXM", "-std=gnu99", *extra)
        firmware = self.objects(board, [(s, flags) for s in support])
        image = self.folder / f"{board.name}-{name}.elf"
        _call(
            [
                tool(board.compiler, board.package), *board.flags, "-nostdlib", "-nostartfiles",
                "-static", f"-L{HERE / 'linker'}", f"-Wl,-T,{board.name}.ld", "-Wl,--gc-sections",
                "-Wl,--no-warn-rwx-segments", "-Wl,--fatal-warnings",
                *objects, *firmware, *libraries, *board.libraries, "-o", image,
            ],
            f"linking {image.name}",
        )  # fmt: skip
        return image

    def plugin(self) -> Path:
        """The counting plugin, compiled for this machine."""
        source = HERE / "count_plugin.c"
        target = self.folder / "count_plugin.so"
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            self.folder.mkdir(parents=True, exist_ok=True)
            command = [tool("gcc", "gcc"), "-O2", "-shared", "-fPIC", source, "-o", target]
            _call(command, "compiling the counting plugin")
        return target


@dataclass
class RunResult:
    """What one emulation gave back."""

    status: int
    text: str
    regions: list[int] = field(default_factory=list)  # instructions between the marks
    total: int = 0
    blocks: dict[int, int] = field(default_factory=dict)  # address -> instructions in regions


def run(
    board: EmulatedBoard,
    image: Path,
    arguments: str,
    plugin: Path | None = None,
    blocks: bool = False,
    loads: Sequence[tuple[Path, int]] = (),
    timeout_s: float = 300.0,
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
            command += ["-plugin", f"{plugin},out={counts},blocks={int(blocks)}"]
        for path, address in loads:
            command += ["-device", f"loader,file={path},addr={address:#x},force-raw=on"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"{image.name} ran past {timeout_s:.0f} s in {board.qemu}") from None
        result = RunResult(done.returncode, done.stdout + done.stderr)
        if counts.exists():
            for line in counts.read_text().splitlines():
                kind, *numbers = line.split()
                if kind == "region":
                    result.regions.append(int(numbers[1]))
                elif kind == "block":
                    address, count = int(numbers[0], 16), int(numbers[1])
                    result.blocks[address] = result.blocks.get(address, 0) + count
                elif kind == "total":
                    result.total = int(numbers[0])
        return result


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
    for address, count in result.blocks.items():
        owner = "?"
        for start, name in symbols:
            if start > address:
                break
            owner = name
        by_name[owner] = by_name.get(owner, 0) + count
    return dict(sorted(by_name.items(), key=lambda item: -item[1]))

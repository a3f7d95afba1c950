"""What a board is: frozen values, made only by `loader`. Sizes are in bytes, clocks in MHz."""

from __future__ import annotations

from dataclasses import dataclass

#: Kinds of boards. A build makes a shared library for the first, a static one for the second.
KINDS = ("linux", "microcontroller")
#: Kinds of memory. "tcm" is data TCM; "flash" and "external-flash" are read-only while running.
MEMORY_KINDS = ("flash", "external-flash", "ram", "external-ram", "tcm", "itcm", "dram")
READ_ONLY_KINDS = ("flash", "external-flash")
#: How far a board has been verified, best first.
VERIFIED = ("measured", "emulated", "compiled", "not run")
#: The triple of `host`: whatever machine runs the compiler.
NATIVE = "native"


@dataclass(frozen=True)
class Cpu:
    """The processor that code is generated for."""

    name: str  # as its maker writes it, "Cortex-A78AE"
    triple: str  # of LLVM, "aarch64-linux-gnu"; "native" is the compiling machine
    features: tuple[str, ...]  # LLVM's names of what a microcontroller's kernels may use: "dsp"
    cores: int  # of the smallest module sold under this name; 0 for "as many as there are"
    clock_mhz: int | None  # the highest nominal clock, where the board has one

    @property
    def architecture(self) -> str:
        """First part of the triple: "aarch64", "thumbv7em", "riscv32", "native"."""
        return self.triple.partition("-")[0]


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU with the software that its board support package brings."""

    name: str
    sm: int  # compute capability without the dot: 87
    cuda: str  # "12.6"
    tensorrt: str  # "10.3"
    jetpack: str  # "6.2"


@dataclass(frozen=True)
class MemoryRegion:
    """One range of addresses."""

    name: str
    base: int
    size: int
    kind: str  # of MEMORY_KINDS

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.base + self.size

    @property
    def writable(self) -> bool:
        """Whether a running program may write there."""
        return self.kind not in READ_ONLY_KINDS


@dataclass(frozen=True)
class Placement:
    """Names of the regions where a microcontroller's build puts things."""

    code: str
    weights: str
    arena: str
    stack: str
    tables: str  # look-up tables of the kernels, read at every step


@dataclass(frozen=True)
class Toolchain:
    """Compilers that can build for the board, in the order in which they are tried."""

    gcc: str  # name of GCC's driver
    gcc_packages: tuple[str, ...]  # Debian packages that have it and its C library
    gcc_flags: tuple[str, ...]
    zig_target: str  # Linux only: of `zig cc -target`, without the version of glibc
    zig_cpu: str  # Linux only: of `zig cc -mcpu`; "" leaves it to the target


@dataclass(frozen=True)
class Emulator:
    """How to run the board's code without the board."""

    program: str  # "qemu-aarch64", "qemu-system-arm"
    package: str  # Debian package that has it
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """How far this project has tried the board itself."""

    level: str  # of VERIFIED
    note: str  # what was run, or why nothing could be


@dataclass(frozen=True)
class Board:
    """One board, as its TOML file describes it."""

    name: str
    title: str
    kind: str  # of KINDS
    model: str  # the shipped model made for boards of its class: what `build` takes by itself
    cpu: Cpu
    gpu: Gpu | None
    memory: tuple[MemoryRegion, ...]
    placement: Placement | None  # microcontrollers only
    limits_of: str | None  # an emulated board holds the limits of this real one
    toolchain: Toolchain
    emulator: Emulator | None
    glibc: str | None  # Linux only: the oldest C library on which the build must load
    verification: Verification
    notes: tuple[str, ...]

    def region(self, name: str) -> MemoryRegion:
        """Return the region of that name. KeyError: the board has none (`loader` checks files)."""
        for region in self.memory:
            if region.name == name:
                return region
        raise KeyError(name)

    @property
    def processor(self) -> str:
        """For people: cores, name and clock, "4 x Cortex-A76, 2400 MHz"."""
        cpu = self.cpu
        if cpu.triple == NATIVE:
            return cpu.name
        cores = f"{cpu.cores} x " if cpu.cores > 1 else ""
        clock = f", {cpu.clock_mhz} MHz" if cpu.clock_mhz else ""
        return f"{cores}{cpu.name}{clock}"

    @property
    def zig_triple(self) -> str:
        """Target of `zig cc`, with the floor of glibc where there is one."""
        if self.glibc is None or self.cpu.triple == NATIVE:
            return self.toolchain.zig_target
        return f"{self.toolchain.zig_target}.{self.glibc}"

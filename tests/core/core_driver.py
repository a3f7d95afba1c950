"""Builds the C core's test driver for one way of running, and talks to it over a pipe."""

from __future__ import annotations

import atexit
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, Source, core_include, core_sources
from tatvpr_edge.compilers.mcu.layouts import pack_lut4
from tatvpr_edge.compilers.objects import Compiler, compile_object
from tatvpr_edge.compilers.toolchains import OPTIMISATION, core_architecture, find_compiler
from tatvpr_edge.spec.packing import pack_ternary

HERE = Path(__file__).resolve().parent
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
_DRIVER_FLAGS = ("-Wall", "-Wextra", *NUMERIC_FLAGS, "-D_POSIX_C_SOURCE=200809L")
F32 = NDArray[np.float32]

OPS = {
    name: number
    for number, name in enumerate(
        (
            "squash",
            "patch_embed",
            "linear",
            "mlp",
            "attention",
            "keep_tokens",
            "layer_norm",
            "gelu",
            "gem",
            "l2",
            "floats",
            "map",
            "gate",
            "kernels",
            "model",
            "sparse_below",
            "track",
        ),
        start=1,
    )
}
ROWS2, TRIT5, LUT4 = 1, 3, 4
OK = 0


def build(
    arch: str,
    compiler: tuple[str, ...],
    flags: tuple[str, ...],
    output: Path,
    adapt: Callable[[Source], Source] = lambda source: source,
    variant: str | None = None,
) -> Path:
    """The driver with the core for ``arch``, compiled file by file as users' builds do.

    ``adapt`` may change the flags of single files; ``variant`` is of a microcontroller's core.
    Objects are kept as users' builds keep theirs: once for both workers of a run.
    """
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True)
    made_by = Compiler(compiler, version.stdout.splitlines()[0])
    core = [
        (source.path, (*WARNINGS, *source.flags, *flags))
        for source in map(adapt, core_sources(arch, variant))
    ]
    drivers = [(path, (*flags, *_DRIVER_FLAGS)) for path in sorted(HERE.glob("*.c"))]
    objects = compiled(made_by, [*core, *drivers], output)
    run_quietly([*compiler, *objects, "-o", str(output), "-pthread", *flags])
    return output


def build_native(own: Sequence[Path], output: Path, flags: tuple[str, ...] = ()) -> Path:
    """A program of C files of ours, with ``flags``, and the very objects of the core that this
    machine's artifacts carry."""
    board = load("host")
    made_by = find_compiler(board)
    carried = ("-fPIC", f"-I{core_include()}")
    sources = core_sources(core_architecture(board))
    core = [(source.path, (*OPTIMISATION, *source.flags, *carried)) for source in sources]
    objects = compiled(made_by, [*core, *((path, ("-O2", *flags)) for path in own)], output)
    run_quietly([*made_by.command, *objects, "-o", str(output), "-pthread"])
    return output


def build_native_driver(output: Path) -> Path:
    """The driver with the core as this machine's artifacts carry it."""
    return build_native(sorted(HERE.glob("*.c")), output, _DRIVER_FLAGS)


def compiled(
    compiler: Compiler, sources: Sequence[tuple[Path, tuple[str, ...]]], output: Path
) -> list[str]:
    """Objects of files with their flags, beside ``output``."""

    def compile_one(item: tuple[int, tuple[Path, tuple[str, ...]]]) -> str:
        number, (path, flags) = item
        return str(compile_object(compiler, path, flags, output.with_suffix(f".{number}.o")))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, enumerate(sources)))


def run_quietly(command: list[str]) -> None:
    """Runs a compiler; its messages become the test's failure."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@dataclass
class Weights:
    """Tensors of one request, each at a multiple of 64 bytes."""

    data: bytearray = field(default_factory=bytearray)

    def add(self, tensor: NDArray[np.generic]) -> int:
        """Appends a tensor and answers its offset."""
        self.data += bytes(-len(self.data) % 64)
        offset = len(self.data)
        self.data += np.ascontiguousarray(tensor).tobytes()
        return offset


def pack_trits(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """[N, K] of -1, 0, +1 to five trits a byte, spelled out here to check the other spelling."""
    rows, columns = weights.shape
    codes = np.ones((rows, -(-columns // 5) * 5), dtype=np.int64)
    codes[:, :columns] = weights + 1
    return (codes.reshape(rows, -1, 5) * (1, 3, 9, 27, 81)).sum(axis=2).astype(np.uint8)


class Driver:
    """A running driver; ``kernels`` are the variants that it can run here, ``layout`` the only one
    of weights that they read, where they do not prepare them."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str] | None = None,
        layout: int | None = None,
    ) -> None:
        self.layout = layout
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, closed at exit
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
        )
        atexit.register(self.close)
        _, (names,) = self.call("kernels", "")
        self.kernels = names.tobytes().rstrip(b"\0").decode().split()

    def close(self) -> None:
        """Ends the program; a sanitizer's complaint at exit fails here."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
            code = self.process.wait(timeout=60)
            assert self.process.stdout is not None
            self.process.stdout.close()
            complaint = self.complaint()
            self.log.close()
            assert code == 0, complaint

    def complaint(self) -> str:
        """What the program wrote to its standard error."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def _read(self, count: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(count)
        if len(data) != count:
            self.process.wait(timeout=60)
            raise AssertionError(f"the driver ended: {self.complaint()[-6000:]}")
        return data

    def call(
        self,
        op: str,
        kernels: str,
        integers: tuple[int, ...] = (),
        floats: tuple[float, ...] = (),
        buffers: tuple[bytes | bytearray, ...] = (),
    ) -> tuple[int, list[NDArray[np.uint8]]]:
        """One request: (status, output buffers)."""
        name = kernels.encode()
        numbers = [*integers, *[0] * (24 - len(integers))]
        reals = [*floats, *[0.0] * (8 - len(floats))]
        parts = [
            struct.pack(f"<ii{len(name)}s24i8fi", OPS[op], len(name), name, *numbers, *reals,
                        len(buffers))
        ]  # fmt: skip
        for data in buffers:
            parts += [struct.pack("<q", len(data)), bytes(data)]
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"".join(parts))
            self.process.stdin.flush()
        except BrokenPipeError:
            self.process.wait(timeout=60)
            raise AssertionError(f"the driver ended: {self.complaint()[-6000:]}") from None
        status, count = struct.unpack("<ii", self._read(8))
        outputs = []
        for _ in range(count):
            (size,) = struct.unpack("<q", self._read(8))
            outputs.append(np.frombuffer(self._read(size), dtype=np.uint8))
        return status, outputs

    def sparse_below(self, kernels: str, k_in: int, n_out: int, group: int) -> float:
        """The share of kept channels below which a layer is multiplied sparsely."""
        _, (answer,) = self.call("sparse_below", kernels, (k_in, n_out, group, ROWS2), (), ())
        return float(answer.view(np.float32)[0])

    # ---- operators, with arrays in and arrays out

    def linear(self, kernels: str, case: LinearCase, threads: int = 1) -> F32:
        """tatvpr_op_gated_linear."""
        weights = Weights()
        numbers, reals = case.place(weights, self.layout)
        t = case.x.shape[0]
        buffers = [weights.data, case.x.tobytes()]
        if case.residual is not None:
            buffers.append(case.residual.tobytes())
        status, (y,) = self.call(
            "linear", kernels, (t, threads, *numbers), (case.k, 1.0, *reals), tuple(buffers)
        )
        assert status == OK
        return y.view(np.float32).reshape(t, -1)

    def mlp(self, kernels: str, first: LinearCase, second: LinearCase, threads: int = 1) -> F32:
        """tatvpr_op_mlp."""
        weights = Weights()
        numbers1, reals1 = first.place(weights, self.layout)
        numbers2, reals2 = second.place(weights, self.layout)
        status, (y,) = self.call(
            "mlp",
            kernels,
            (first.x.shape[0], threads, *numbers1, *numbers2),
            (first.k, 1.0, *reals1, *reals2),
            (weights.data, first.x.tobytes()),
        )
        assert status == OK
        return y.view(np.float32).reshape(first.x.shape)

    def attention(
        self, kernels: str, qkv: F32, heads: int, threads: int = 1, looks: bool = True
    ) -> tuple[F32, F32]:
        """tatvpr_op_attention: (Y, A)."""
        t, width = qkv.shape
        status, outputs = self.call(
            "attention",
            kernels,
            (t, heads, width // 3, threads, int(looks)),
            (1.0, 1.0),
            (b"", qkv.tobytes()),
        )
        assert status == OK
        y = outputs[0].view(np.float32).reshape(t, -1)
        return y, outputs[1].view(np.float32) if looks else np.zeros(0, np.float32)


@dataclass
class LinearCase:
    """One gated linear layer with its input."""

    x: F32
    w: NDArray[np.int8]  # [N, K] of -1, 0, +1
    scale: F32  # [1] or [N]
    bias: F32
    k: float
    group: int = 1
    scope: int = 0
    gelu: bool = False
    norm: tuple[F32, F32] | None = None
    residual: F32 | None = None
    fixed_k: float = 0.0
    layout: int = ROWS2

    def place(
        self, weights: Weights, layout: int | None = None
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Adds the tensors, in another ``layout`` where it is given; the driver's integers and
        floats for this layer."""
        layout = self.layout if layout is None else layout
        n_out, k_in = self.w.shape
        packed = {ROWS2: pack_ternary, TRIT5: pack_trits, LUT4: pack_lut4}[layout](self.w)
        offsets = (weights.add(packed), weights.add(self.scale), weights.add(self.bias))
        gamma = beta = 0
        if self.norm is not None:
            gamma, beta = weights.add(self.norm[0]), weights.add(self.norm[1])
        per_row = int(self.scale.size > 1) | layout << 1
        flags = int(self.gelu) | (2 if self.norm is not None else 0)
        return (
            (k_in, n_out, *offsets, per_row, flags, gamma, beta, self.group, self.scope),
            (1e-6, self.fixed_k),
        )


def native_compiler() -> tuple[str, ...]:
    """The C compiler of this machine."""
    return (require_tool("gcc", "gcc"),)

#!/usr/bin/env python3
"""Whole frames on Arm cores that are not at hand: instructions counted, cycles estimated.

    python tools/arm_counts.py [--model micro --model small] [--core n1 ...] [--k 1 .6 .4 .2]
                               [--tokens T] [--json]

Ours (``Localizer.describe`` of an artifact as ``tatvpr-edge build`` makes it) and ONNX Runtime's
aarch64 wheel (float32, and dynamic int8, on a plain transformer of the same shape) run under
``qemu-aarch64``, one thread, in an arm64 Python. Instructions are exact. Cycles are llvm-mca's over
the blocks that ran, with perfect caches and branches: good to about a tenth, and their ratios to
less. They are estimates; no frame rate follows from them.

Cores: a72 (Raspberry Pi 4: no dot product), n1 (Cortex-A76: Raspberry Pi 5), n2 (like Cortex-A78AE:
Jetson Orin; run without i8mm, which that core lacks), v2 (wide, with i8mm: Jetson Thor, Graviton).
JSON keys: CORE.MODEL.WHAT in million cycles, with WHAT one of ours_k1, ours_k0.6, ort_int8 and so
on, and CORE.MODEL.instructions.WHAT in millions.

Needs a Debian 12 host, qemu-user, LLVM 19, the [train] extra, onnxruntime.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from given import as_json, one_line, real, told_apart, tool_parser

sys.path.insert(0, str(Path(__file__).resolve().parent / "mcu"))

from arm.cycles import estimated_cycles, joined
from arm.root import guest_command, made_once, root_folder, unpack_wheel
from emulation import Workshop, read_counts

from benchmark.peers import our_artifact, plain_models
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.spec.errors import ToolError

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
ONNXRUNTIME = "onnxruntime==1.32.0"


@dataclass(frozen=True)
class Core:
    """A core that is priced.

    Attributes:
        board: whose artifact runs.
        variant: the kernels that such a board takes.
        emulated: QEMU's name of a core with the same instructions.
        model: llvm-mca's name of the core. LLVM has no figures of its own for Cortex-A76 to A78
            and prices them as A57s: the Neoverse of the same design stands in.
        part, features: what /proc/cpuinfo says there (ONNX Runtime reads it).
    """

    board: str
    variant: str
    emulated: str
    model: str
    part: str
    features: str


_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_DOT = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CORES = {
    "a72": Core("raspberry-pi-4", "neon", "cortex-a72", "cortex-a72", "0xd08", _BASE),
    "n1": Core("raspberry-pi-5", "neon-dotprod", "cortex-a76", "neoverse-n1", "0xd0b", _DOT),
    "n2": Core("jetson-orin-nano", "neon-dotprod", "cortex-a76", "neoverse-n2", "0xd0b", _DOT),
    "v2": Core(
        "jetson-thor", "neon-i8mm", "max,sve=off,sme=off", "neoverse-v2", "0xd4f",
        f"{_DOT} i8mm bf16",
    ),
}  # fmt: skip


class Counter:
    """Runs ``arm/guest.py`` and prices what it executed between its marks."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = root_folder()
        self.plugin = Workshop(cache_folder("mcu")).plugin()
        self.marks = scratch / "marks.so"
        compile_marks = ["aarch64-linux-gnu-gcc", "-O1", "-shared", "-fPIC", "-nostdlib"]
        called([*compile_marks, str(HERE / "arm" / "mark.c"), "-o", str(self.marks)])

    def frames(self, core: Core, *arguments: str) -> list[tuple[float, dict[str, float]]]:
        """(million instructions, million cycles by core) of each frame that the guest counts."""
        counts = self.scratch / "counts"
        options = ("-plugin", f"{self.plugin},out={counts},code=1")
        paths = [CHECKOUT, self.root / "opt" / "site"]
        if arguments[0] == "onnxruntime":
            # The wheel alone: to run a model it needs none of its requirements.
            unpack = partial(unpack_wheel, ONNXRUNTIME)
            paths.append(made_once(ONNXRUNTIME.replace("==", "-"), unpack))
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            root = root_of(core, self.root, Path(name) / "root")
            command = guest_command(
                root, HERE / "arm" / "guest.py", self.marks, *arguments,
                cpu=core.emulated, options=options,
            )  # fmt: skip
            called(
                command,
                PYTHONPATH=":".join(map(str, paths)),
                PATH=os.environ["PATH"],
                HOME=str(self.scratch),
                PYTHONDONTWRITEBYTECODE="1",
                ORT_DISABLE_TELEMETRY="1",
            )
        alike = [other.model for other in CORES.values() if other.emulated == core.emulated]
        priced = (estimated_cycles(joined(code), alike) for code in read_counts(counts).codes)
        return [
            (total / 1e6, {model: found / 1e6 for model, found in cycles.items()})
            for total, cycles in priced
        ]


def root_of(core: Core, shared: Path, folder: Path) -> Path:
    """A root like ``shared`` whose /proc/cpuinfo is of that core, made in ``folder``."""
    folder.mkdir()
    for entry in shared.iterdir():
        if entry.name != "proc":
            (folder / entry.name).symlink_to(entry)
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text(
        f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {core.features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
        f"CPU part\t: {core.part}\nCPU revision\t: 0\n\n"
    )
    return folder


def called(command: list[str], **environment: str) -> None:
    """Run it.

    Raises:
        ToolError: it is missing or failed.
    """
    try:
        done = subprocess.run(
            command, env=environment or None, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ToolError(f"{command[0]} is missing: see the packages in .ci/run") from error
    if done.returncode != 0:
        raise ToolError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-1500:]}")


def count_all(options: Any) -> dict[str, float]:
    """Every figure asked for, by key."""
    from tatvpr_edge.models import registry

    figures: dict[str, float] = {}
    models = told_apart(options.model or ["micro", "small"])
    with tempfile.TemporaryDirectory(prefix="tatvpr-arm-") as name:
        scratch = Path(name)
        counter = Counter(scratch)
        done: dict[tuple[str, ...], list[tuple[float, dict[str, float]]]] = {}
        for core_name in options.core or CORES:
            core = CORES[core_name]
            for model in models:
                shape = "micro" if model.endswith(".onnx") else model
                config = registry.config(options.shape or shape).backbone
                plain, quantised = plain_models(config, scratch / f"plain-{shape}")
                artifact = our_artifact(model, core.board, scratch)
                dial = tuple(f"{k:g}" for k in options.k)
                tokens = f"{options.tokens:g}"
                ours = ("ours", str(artifact), core.variant, tokens, *dial)
                runs = {ours: [f"ours_k{k}" for k in dial]}
                if not options.no_peers:
                    side = str(config.image_px)
                    runs["onnxruntime", str(quantised), side] = ["ort_int8"]
                    runs["onnxruntime", str(plain), side] = ["ort_fp32"]
                for arguments, names in runs.items():
                    key = (core.emulated, *arguments)
                    if key not in done:
                        done[key] = counter.frames(core, *arguments)
                    for what, (instructions, cycles) in zip(names, done[key], strict=True):
                        stem = f"{core_name}.{Path(model).stem}"
                        figures[f"{stem}.{what}"] = round(cycles[core.model], 2)
                        figures[f"{stem}.instructions.{what}"] = round(instructions, 2)
                        if not options.json:
                            print(f"{stem}.{what}: {cycles[core.model]:.1f} M cycles (estimated), "
                                  f"{instructions:.1f} M instructions", flush=True)  # fmt: skip
    return figures


def say_ratios(figures: dict[str, float]) -> None:
    """What users compare: against ONNX Runtime's int8, and low k against k = 1."""
    for stem in dict.fromkeys(key.rsplit(".", 1)[0] for key in figures if ".ours_k1" in key):
        if ".instructions" in stem:
            continue
        # Keys of k hold a dot themselves: those of this stem begin with it.
        own = {k[len(stem) + 1 :]: v for k, v in figures.items() if k.startswith(f"{stem}.o")}
        first = own["ours_k1"]
        parts = [f"{what[5:]}/k1 {v / first:.3f}" for what, v in own.items()
                 if what.startswith("ours_k") and what != "ours_k1"]  # fmt: skip
        if "ort_int8" in own:
            parts += [f"{what[5:]} {own['ort_int8'] / v:.2f}x ORT int8" for what, v in own.items()
                      if what.startswith("ours_k")]  # fmt: skip
        print(f"{stem}: " + ", ".join(parts))


@one_line
def main() -> int:
    """Count what was asked for and print it."""
    parser = tool_parser(__doc__)
    parser.add_argument("--model", action="append", help="name or ONNX file; may repeat")
    parser.add_argument("--shape", help="the plain peer's shape, where a model is an ONNX file")
    parser.add_argument("--core", action="append", choices=sorted(CORES), help="default: all")
    parser.add_argument("--k", type=real(1e-6, 1), nargs="+", default=[1.0, 0.8, 0.6, 0.4, 0.2])
    parser.add_argument(
        "--tokens", type=real(1e-6, 1), default=1.0, help="fraction of tokens kept (default: 1)"
    )
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    options = parser.parse_args()
    figures = count_all(options)
    if options.json:
        print(as_json(figures))
    elif 1.0 in options.k:
        say_ratios(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Instructions of the microcontroller kernels and of whole frames, counted in an emulator.

    python tools/mcu_counts.py [--board mps2-an500 ...] [--json] [--account] [--no-cycles]
        [--model micro --model depth12 ...] [--at k1 --at k0.2.tokens0.5 ...]
        [--cmsis-nn-lib FILE --cmsis-nn-include DIR]

Layers are counted at 65 tokens, in tiles as the model runs them, in instructions per dense
multiply-accumulate, everything included: tables or unpacking, sums, and the float epilogue. k0.5
and k0.2 are the sparse kernel on lists that the gate wrote; `select` is that gate, in instructions
per channel. A frame is one call of tatvpr_describe() on RGB of the model's own size, in million
instructions, and in million cycles as LLVM's models of the cores and documented tables estimate
them (mcu/cycles.py; needs LLVM 19, `--no-cycles` does without): BOARD.frame.MODEL.WHAT and
BOARD.frame.MODEL.cycles.WHAT, with WHAT one of k1, k0.6, k0.5, k0.4, k0.2, four with half the
tokens (k1.tokens0.5 ...), and `cheapest` of those that were counted: all, or those of `--at`. On a
core without an FPU `sums` is `dense` less what the compiler's soft-float functions take.

Counts are exact and repeatable. Neither they nor estimates say anything about frames per second.
A prebuilt CMSIS-NN, where one is given, is linked into the same image and counted in the same run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from given import as_json, one_line, told_apart, tool_parser

sys.path.insert(0, str(Path(__file__).resolve().parent / "mcu"))

from bench import OP_CMSIS, OP_SELECT, Bench, build_bench
from cycles import priced
from emulation import BOARDS, EmulatedBoard, RunResult, Workshop, account
from frames import Frames, build_image

from tatvpr_edge import zoo
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.mcu.flags import has_fpu
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.reference import top_k_gate

TOKENS = 65
LAYERS = ((192, 192), (192, 576), (192, 768), (768, 192))
FRACTIONS = (0.5, 0.2)
#: of a frame: (k, fraction of tokens) by key
SETTINGS = {
    **{f"k{k:g}": (k, 1.0) for k in (1.0, 0.6, 0.5, 0.4, 0.2)},
    **{f"k{k:g}.tokens0.5": (k, 0.5) for k in (1.0, 0.6, 0.4, 0.2)},
}
UNITS = """
Layers: instructions per dense multiply-accumulate; select: instructions per channel; frame: million
instructions, frame ... cycles: million cycles, estimated. Not a frame rate."""
DEPTH12 = "depth12"  # dim 192, 65 tokens, twelve blocks, random weights: a stated yardstick


def count_layers(
    bench: Bench, workshop: Workshop, cmsis: bool, show_account: bool
) -> dict[str, float]:
    """Instructions per dense multiply-accumulate of every layer, and per channel of the gate."""
    rng = np.random.default_rng(65)
    name = bench.board.name
    keys: list[tuple[str, float]] = []  # key, divisor
    for k_in, n_out in LAYERS:
        weights = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        x = rng.standard_normal((TOKENS, k_in)).astype(np.float32)
        scale, bias = np.ones(1, np.float32), rng.standard_normal(n_out).astype(np.float32)
        layer = f"{name}.{k_in}x{n_out}"
        macs = float(k_in * n_out * TOKENS)
        q, s = top_k_gate(x, 1.0)
        bench.matmul(weights, q, s, scale, bias)
        keys.append((f"{layer}.dense", macs))
        for k in FRACTIONS:
            q, s = top_k_gate(x, k)
            bench.matmul(weights, q, s, scale, bias, sparse=True)
            keys.append((f"{layer}.k{k:g}", macs))
        if cmsis:
            bench.add(OP_CMSIS, [k_in, n_out, TOKENS], [weights, top_k_gate(x, 1.0)[0]])
            keys.append((f"{layer}.cmsis", macs))
    for k_in in (192, 768):
        q = top_k_gate(rng.standard_normal((TOKENS, k_in)).astype(np.float32), 1.0)[0]
        for k in FRACTIONS:
            keep = round(k * k_in)
            bench.add(OP_SELECT, [k_in, TOKENS, keep, 1, 1], [q], answers=5)
            keys.append((f"{name}.select{k_in}.k{k:g}", float(k_in * TOKENS)))
    with tempfile.TemporaryDirectory() as folder:
        _, counts, result = bench.run(Path(folder), workshop.plugin(), blocks=show_account)
    if show_account:
        say_account(f"{name}: all layers", account(bench.board, bench.image, result))
    return {key: round(n / by, 4) for (key, by), n in zip(keys, counts, strict=True)}


def count_sums(workshop: Workshop, board: EmulatedBoard) -> dict[str, float]:
    """Dense layers without the soft-float functions, whose names begin with two underscores."""
    rng = np.random.default_rng(65)
    figures = {}
    for k_in, n_out in LAYERS:
        bench = build_bench(workshop, board)
        weights = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        q, s = top_k_gate(rng.standard_normal((TOKENS, k_in)).astype(np.float32), 1.0)
        bench.matmul(weights, q, s, np.ones(1, np.float32), np.ones(n_out, np.float32))
        with tempfile.TemporaryDirectory() as folder:
            _, _, result = bench.run(Path(folder), workshop.plugin(), blocks=True)
        functions = account(board, bench.image, result)
        own = sum(count for name, count in functions.items() if not name.startswith("__"))
        figures[f"{board.name}.{k_in}x{n_out}.sums"] = round(own / (k_in * n_out * TOKENS), 4)
    return figures


def run_frame(frames: Frames, workshop: Workshop, side: int, what: str, detail: str) -> RunResult:
    """One frame at a setting; ``detail`` is of ``blocks`` or ``code`` and may be neither."""
    once = Frames(frames.board, frames.image)
    frame = np.random.default_rng(1).integers(0, 256, (side, side, 3)).astype(np.uint8)
    once.describe(frame, *SETTINGS[what])
    with tempfile.TemporaryDirectory() as folder:
        (status,), result = once.run(
            Path(folder), workshop.plugin(), blocks=detail == "blocks", code=detail == "code"
        )
    if status != 0:
        raise UsageError(f"{frames.board.name} at {what}: status {status}")
    return result


def count_frames(
    workshop: Workshop, board: EmulatedBoard, lowered: Lowered, name: str, options: Any
) -> dict[str, float]:
    """Million instructions, and estimated cycles, of one frame at every setting asked for."""
    frames = Frames(board, build_image(workshop, board, lowered, name))
    counts: dict[str, float] = {}
    cycles: dict[str, float] = {}
    side = lowered.matched.image_size
    for what in options.at or SETTINGS:
        if SETTINGS[what][1] < 1.0 and not lowered.matched.keeps_tokens:
            continue
        result = run_frame(frames, workshop, side, what, "" if options.no_cycles else "code")
        counts[what] = result.counts.regions[0] / 1e6
        if not options.no_cycles:
            cycles[what] = round(priced(board.name, result.counts.code) / 1e6, 2)
        if options.account:
            detailed = run_frame(frames, workshop, side, what, "blocks")
            say_account(f"{board.name}: {name}, {what}", account(board, frames.image, detailed))
    stem = f"{board.name}.frame.{name}"
    figures = {f"{stem}.{what}": value for what, value in counts.items()}
    figures[f"{stem}.cheapest"] = min(counts.values())
    figures |= {f"{stem}.cycles.{what}": value for what, value in cycles.items()}
    if cycles:
        figures[f"{stem}.cycles.cheapest"] = min(cycles.values())
    return figures


def say_account(title: str, by_function: dict[str, int]) -> None:
    """Where the instructions of the counted regions are, on standard error."""
    total = sum(by_function.values())
    print(f"{title}: {total} instructions", file=sys.stderr)
    for function, count in list(by_function.items())[:20]:
        print(f"  {100 * count / total:5.1f} %  {count:>12}  {function}", file=sys.stderr)


def find_onnx(model: str, folder: Path) -> Path:
    """An ONNX file, a shipped model, or the depth-12 yardstick (needs torch)."""
    if model.endswith(".onnx"):
        return Path(model)
    if model != DEPTH12:
        return zoo.path(model)
    from tatvpr_edge.models import registry
    from tatvpr_edge.models.export import export_onnx

    made = folder / f"{DEPTH12}.onnx"
    config = registry.config("micro", depth=12, keep_after=3)
    export_onnx(registry.create(config, seed=0), made)
    return made


@one_line
def main(arguments: list[str] | None = None) -> int:
    """Count what was asked for and print it."""
    parser = tool_parser(__doc__)
    parser.add_argument("--board", action="append", choices=sorted(BOARDS), help="default: all")
    parser.add_argument("--model", action="append", help="name, ONNX file or depth12; may repeat")
    parser.add_argument(
        "--at", action="append", choices=SETTINGS, help="setting of frames; default: all"
    )
    parser.add_argument("--no-frames", action="store_true", help="layers only")
    parser.add_argument("--no-layers", action="store_true", help="frames only")
    parser.add_argument("--cmsis-nn-lib", type=Path, help="libcmsis-nn.a built for the board")
    parser.add_argument("--cmsis-nn-include", type=Path, help="its Include folder")
    parser.add_argument("--account", action="store_true", help="instructions by function, too")
    parser.add_argument("--no-cycles", action="store_true", help="instructions alone")
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    options = parser.parse_args(arguments)
    if (options.cmsis_nn_lib is None) != (options.cmsis_nn_include is None):
        parser.error("--cmsis-nn-lib and --cmsis-nn-include go together")
    if options.cmsis_nn_lib is not None and len(options.board or []) != 1:
        parser.error("a CMSIS-NN library is built for one core: name its --board")
    counts = count_all(options)
    if options.json:
        print(as_json(counts))
    else:
        for key, value in counts.items():
            print(f"{key:48} {value:10,.4g}" if value < 10 else f"{key:48} {value:10,.1f}")
        print(UNITS)
    return 0


def count_all(options: Any) -> dict[str, float]:
    """Every figure that the options ask for, by key."""
    models = told_apart(options.model or ["micro", "nano", DEPTH12])
    workshop = Workshop(cache_folder("mcu"))
    counts: dict[str, float] = {}
    lowered: dict[tuple[str, Layout], Lowered] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.board or BOARDS:
            board = BOARDS[name]
            if not options.no_layers:
                bench = build_bench(workshop, board, options.cmsis_nn_lib, options.cmsis_nn_include)
                cmsis = options.cmsis_nn_lib is not None
                counts |= count_layers(bench, workshop, cmsis, options.account)
                if not has_fpu(load(name)):
                    counts |= count_sums(workshop, board)
            for model in [] if options.no_frames else models:
                layout = board.variant.layout
                key = Path(model).stem
                if (key, layout) not in lowered:
                    graph = checked_graph(find_onnx(model, Path(scratch)))
                    lowered[key, layout] = lower(graph, key, layout)
                counts |= count_frames(workshop, board, lowered[key, layout], key, options)
    return counts


if __name__ == "__main__":
    sys.exit(main())

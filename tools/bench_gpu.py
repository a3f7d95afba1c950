"""Measure the CUDA kernels, and an artifact's engine, on the GPU of this machine.

    python tools/bench_gpu.py [--tokens 197,257,530] [--shapes 384x1152,...] [--k 1,0.4,0.1]
                              [--artifact DIR] [--json]

Gate + ternary matmul, batch 1, both gate scopes, after a check that the results are bit for bit
those of the reference. With torch and CUDA at hand: the same shapes by cuBLAS in fp16 and int8.
``--artifact``: whole frames through a finished engine, against k and tokens. Exit status 1 where
there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from given import as_json, listed, one_line, real, whole

from tatvpr_edge.compilers.tensorrt.cubins import compile_all
from tatvpr_edge.runtime.backends.tensorrt.kernel_check import check_kernels
from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.cuda.driver import Driver, open_driver
from tatvpr_edge.spec.errors import TatvprError
from tatvpr_edge.spec.packing import pack_ternary

# qkv, out, up and down of ViT-S (384) and ViT-B (768), as channels x outputs
SHAPES = "384x1152,384x384,384x1536,1536x384,768x2304,768x768,768x3072,3072x768"
RECORDED = 20  # launches in one graph, so that Python's share of a launch does not count


@one_line
def main() -> int:
    """Print a table, or one JSON document."""
    arguments = _arguments()
    with open_driver() as driver:
        document = _measured(driver, arguments)
    print(as_json(document) if arguments.json else _table(document))
    return 0


def _measured(driver: Driver, arguments: argparse.Namespace) -> dict[str, Any]:
    compiled = compile_all(driver.architecture(), min(13, int(driver.version().split(".")[0])))
    kernels = Kernels(driver, {cubin.source: cubin.code for cubin in compiled})
    return {
        "gpu": driver.device_name(),
        "architecture": driver.architecture(),
        "cuda": driver.version(),
        "through": driver.through,
        "date": date.today().isoformat(),
        "kernel_cases_bit_exact": check_kernels(driver, kernels),
        "matmul": [
            row
            for tokens in arguments.tokens
            for channels, outputs in arguments.shapes
            for row in _matmul(driver, kernels, arguments, tokens, channels, outputs)
        ],
        "frames": _frames(arguments) if arguments.artifact else [],
    }


def _arguments() -> argparse.Namespace:
    numbers, fractions = listed(whole(1)), listed(real(1e-6, 1))

    def shapes(text: str) -> list[tuple[int, int]]:
        pairs = (part.split("x") for part in text.split(","))
        return [(whole(1)(channels), whole(1)(outputs)) for channels, outputs in pairs]

    parser = argparse.ArgumentParser(description="Measure the CUDA kernels on this GPU.")
    parser.add_argument("--tokens", type=numbers, default=numbers("197,257,530"))
    parser.add_argument("--shapes", type=shapes, default=shapes(SHAPES))
    parser.add_argument("--k", type=fractions, default=fractions("1,0.4,0.1"))
    parser.add_argument("--keep", type=fractions, default=fractions("1,0.5,0.25"))
    parser.add_argument(
        "--repeats", type=whole(1), default=20, help="graph launches; median is kept"
    )
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _matmul(
    driver: Driver,
    kernels: Kernels,
    arguments: argparse.Namespace,
    tokens: int,
    channels: int,
    outputs: int,
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(tokens, channels)).astype(np.float32)
    w = pack_ternary(rng.integers(-1, 2, (outputs, channels)).astype(np.int8))
    peers = _cublas(tokens, channels, outputs, arguments.repeats)
    rows = []
    for scope, name in ((0, "token"), (1, "image")):
        sizes = {"tokens": tokens, "channels": channels, "outputs": outputs}
        gate = {"group": 1 if scope == 0 else 4, "scope": scope}
        arrays = (x, np.zeros(1, np.float32), w, np.ones(1, np.float32), x[0, :1].repeat(outputs))
        held = [driver.to_device(array) for array in arrays]
        held.append(driver.allocate(4 * tokens * outputs))
        workspace = driver.allocate(kernels.gated_mat_mul_workspace(**sizes, **gate))
        for k in arguments.k:
            driver.upload(held[1], np.array([k], np.float32))
            driver.synchronise()

            once = partial(
                kernels.gated_mat_mul,
                held,
                workspace,
                row_bytes=w.shape[1],
                scale_count=1,
                **sizes,
                **gate,
            )
            microseconds = _time(driver, once, arguments.repeats)
            rows.append({**sizes, "scope": name, "k": k, "ours_us": microseconds, **peers})
        for pointer in (*held, workspace):
            driver.free(pointer)
    return rows


def _time(driver: Driver, once: Callable[[], None], repeats: int) -> float:
    """Median microseconds of one call, over launches of a graph that holds RECORDED of them."""
    once()
    driver.synchronise()
    driver.begin_capture()
    for _ in range(RECORDED):
        once()
    graph = driver.end_capture()
    taken = []
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        graph.launch()
        driver.synchronise()
        taken.append((time.perf_counter() - start) / RECORDED * 1e6)
    graph.close()
    return float(np.median(taken[1:]))


def _cublas(tokens: int, channels: int, outputs: int, repeats: int) -> dict[str, float]:
    """The same product by cuBLAS through torch, in microseconds; empty without torch on CUDA."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    a = torch.randn(tokens, channels, device="cuda", dtype=torch.float16)
    b = torch.randn(channels, outputs, device="cuda", dtype=torch.float16)
    found = {"cublas_fp16_us": _time_torch(torch, lambda: torch.matmul(a, b), repeats)}
    padded = -(-tokens // 8) * 8
    a8 = torch.randint(-127, 128, (padded, channels), device="cuda", dtype=torch.int8)
    b8 = torch.randint(-1, 2, (outputs, channels), device="cuda", dtype=torch.int8).t()
    try:
        found["cublas_int8_us"] = _time_torch(torch, lambda: torch._int_mm(a8, b8), repeats)
    except RuntimeError as error:
        print(f"note: cuBLAS int8 does not take this shape: {error}", file=sys.stderr)
    return found


def _time_torch(torch: Any, once: Callable[[], Any], repeats: int) -> float:
    for _ in range(3):
        once()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(RECORDED):
            once()
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - start) / RECORDED * 1e6)
    return float(np.median(taken[1:]))


def _frames(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Whole frames through a finished engine: median milliseconds against k and tokens."""
    from tatvpr_edge.runtime import Localizer

    rows = []
    with Localizer(arguments.artifact, backend="tensorrt") as localizer:
        low, high = localizer.artifact.manifest.k_range
        side = localizer.artifact.manifest.model.image_size
        frame = np.random.default_rng(3).integers(0, 256, (side, side, 3)).astype(np.uint8)
        for keep in arguments.keep:
            for k in (k for k in arguments.k if low <= k <= high):
                localizer.k, localizer.tokens = k, keep
                taken = []
                for _ in range(arguments.repeats + 3):  # a new size, a recording, a warm-up
                    start = time.perf_counter()
                    localizer.describe(frame)
                    taken.append((time.perf_counter() - start) * 1e3)
                rows.append({"k": k, "tokens": keep, "frame_ms": float(np.median(taken[3:]))})
        if localizer.backend.name != "tensorrt":
            raise TatvprError("the GPU failed while it was measured: these times are not its own")
    return rows


def _table(document: dict[str, Any]) -> str:
    lines = [
        f"{document['gpu']} ({document['architecture']}), CUDA {document['cuda']}, "
        f"{document['date']}; {document['kernel_cases_bit_exact']} kernel cases bit-exact",
        "",
        "| tokens | channels | outputs | scope | k | ours, us | cuBLAS fp16, us | int8, us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["matmul"]:
        peers = [row.get(name) for name in ("cublas_fp16_us", "cublas_int8_us")]
        shown = ["not run" if value is None else f"{value:.1f}" for value in peers]
        lines.append(
            f"| {row['tokens']} | {row['channels']} | {row['outputs']} | {row['scope']} | "
            f"{row['k']:g} | {row['ours_us']:.1f} | {shown[0]} | {shown[1]} |"
        )
    if document["frames"]:
        lines += ["", "| k | tokens | frame, ms |", "|---|---|---|"]
    for row in document["frames"]:
        lines.append(f"| {row['k']:g} | {row['tokens']:g} | {row['frame_ms']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

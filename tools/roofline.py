#!/usr/bin/env python3
"""What this machine could do, and the share of it that each kernel reaches, one thread.

    python tools/roofline.py [--kernels NAME] [--rounds N] [--json FILE] [--plot FILE.png]

The int8 peak is the best rate of the variant's multiply-accumulate instruction on registers; the
memory rate is one core reading a stream that no cache holds. Times are medians of thread CPU time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from given import one_line, plot, target, tool_parser, whole, write_json

from benchmark.kernels import LAYERS, KernelBench
from tatvpr_edge.models.evaluate.plot import save_figure

#: Neighbouring channels kept together -> how the JSON names their ratios.
GROUPS = {1: "sparse", 4: "fours"}
KS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
TOKENS = 257


def measure(bench: KernelBench, kernels: str, rounds: int = 101) -> dict[str, Any]:
    """Every kernel of ViT-S at 257 tokens."""
    peak = bench.peak_gmacs(kernels)
    result: dict[str, Any] = {
        "kernels": kernels,
        "peak_gmacs": peak,
        "memory_gb_s": bench.memory_gb_s(),
        "layers": {},
        "ns_a_token": {},
    }
    for name, (k_in, n_out) in LAYERS.items():
        macs = TOKENS * k_in * n_out
        shape = (TOKENS, k_in, n_out)
        dense = bench.time(kernels, "dense", *shape, rounds=rounds).median_ns
        layer: dict[str, Any] = {
            "dense_gmacs": macs / dense,
            "share_of_peak": macs / dense / peak if peak else None,
        }
        for group, key in GROUPS.items():
            sparse = {
                k: bench.time(kernels, "sparse", *shape, k, group, rounds).median_ns for k in KS
            }
            below = [k for k in KS if sparse[k] < dense]
            layer[f"{key}_over_dense"] = {str(k): sparse[k] / dense for k in KS}
            layer[f"{key}_wins_from"] = max(below) if below else None
        result["layers"][name] = layer
    rows = {"layer_norm": 384, "gelu": 1536, "quantise": 1536, "select": 1536, "gate": 1536}
    for what, width in rows.items():
        for group in GROUPS if what == "select" else (1,):
            timing = bench.time(kernels, what, TOKENS, width, 64, 0.2, group, rounds)
            name = f"{what} {width}" + (f" group {group}" if group > 1 else "")
            result["ns_a_token"][name] = timing.median_ns / TOKENS
    attention = bench.time(kernels, "attention", TOKENS, 384, 6, rounds=rounds)
    result["ns_a_token"]["attention 6 x 64"] = attention.median_ns / TOKENS
    return result


def show(r: dict[str, Any]) -> None:
    """The figures as text."""
    print(f"{r['kernels']}: int8 peak {r['peak_gmacs']:.1f} GMAC/s, "
          f"memory {r['memory_gb_s']:.1f} GB/s")  # fmt: skip
    for name, layer in r["layers"].items():
        share = layer["share_of_peak"]
        shown = "" if share is None else f" ({share:.0%} of peak)"
        print(f"  {name:5s} dense {layer['dense_gmacs']:6.1f} GMAC/s{shown}")
        for group, key in GROUPS.items():
            ratios = "  ".join(f"{k}: {v:.2f}" for k, v in layer[f"{key}_over_dense"].items())
            print(f"        group {group} over dense  {ratios}")
    for name, value in r["ns_a_token"].items():
        print(f"  {name:20s} {value:7.0f} ns a token")


def draw(r: dict[str, Any], path: Path) -> None:
    """Sparse over dense against k, for every layer; dashed: channels kept by fours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6))
    axis = figure.subplots()
    for name, layer in r["layers"].items():
        single, fours = layer["sparse_over_dense"], layer["fours_over_dense"]
        ks = sorted(float(k) for k in single)
        (line,) = axis.plot(ks, [single[str(k)] for k in ks], "o-", label=name)
        axis.plot(ks, [fours[str(k)] for k in ks], "--", color=line.get_color())
    axis.axhline(1.0, color="gray", linewidth=1)
    axis.set(xlabel="k (activations kept)", ylabel="sparse time over dense", ylim=(0, None))
    axis.set_title(f"{r['kernels']}: exact sparse matmul")
    axis.legend()
    figure.tight_layout()
    save_figure(figure, path, dpi=130)


@one_line
def main() -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--kernels", help="a kernel variant, such as avx2")
    parser.add_argument("--rounds", type=whole(1), default=101, help="measurements of each kernel")
    parser.add_argument("--json", type=target(), help="write the figures to this file")
    parser.add_argument("--plot", type=plot, help="write a PNG of sparse over dense")
    arguments = parser.parse_args()
    bench = KernelBench()
    result = measure(bench, arguments.kernels or bench.best(), arguments.rounds)
    show(result)
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.plot:
        draw(result, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

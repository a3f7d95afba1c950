#!/usr/bin/env python3
"""Whole models and single layers, ours against other engines, one thread, batch 1.

    python tools/bench_peers.py [--models micro,small,...] [--rounds N] [--kernels NAME]
                                [--json FILE] [--plot FILE.png]

Ours is `Localizer.describe` of an artifact built for this machine. Calls are interleaved (every
engine once a round, and over the rounds as often after each other one: what runs after whom moves a
small model by a third), timed in CPU time of the process, and reported as medians with quartiles;
ratios come first, then who is fastest at every k. Weights are random where a model is not shipped:
time does not depend on them. Needs the [train] extra (for the models) and onnxruntime; torch and
the [bench] extra's OpenVINO (float32, and int8 by NNCF) are compared where they are installed.
tools/ is not part of the package: run it from a checkout.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from given import one_line, plot, target, tool_parser, whole, write_json

from benchmark import peers
from benchmark.kernels import LAYERS, KernelBench
from tatvpr_edge.models.evaluate.plot import save_figure
from tatvpr_edge.runtime import Localizer

MODELS = ("micro", "s14_224", "small", "s14_322", "b14_224", "base")
KS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
#: Further peers: the figure's name, and what makes the call (ImportError: not installed).
PEERS: dict[str, Callable[[Path, Any], peers.Call]] = {
    "torch_fp32": peers.torch_call,
    "openvino_fp32": peers.openvino_call,
    "openvino_int8": peers.openvino_int8_call,
}


def interleaved(calls: dict[str, peers.Call], rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles in milliseconds of CPU time of all threads, each call once a round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for call in calls.values():
        call()
    for number in range(rounds):
        for at in order(len(names), number):
            start = time.process_time_ns()
            calls[names[at]]()
            times[names[at]].append((time.process_time_ns() - start) / 1e6)
    return {name: spread(values) for name, values in times.items()}


def order(count: int, number: int) -> list[int]:
    """Which of ``count`` calls comes when in round ``number``: over ``2 * count`` rounds each one
    comes twice right after each other one (E. J. Williams, Experimental designs balanced for the
    estimation of residual effects of treatments, 1949). A drawn order of few rounds favours some.
    """
    zigzag = [-(i // 2) if i % 2 == 0 else i // 2 + 1 for i in range(count)]
    row = [(at + number) % count for at in zigzag]
    return row if number // count % 2 == 0 else row[::-1]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def bench_model(name: str, rounds: int, kernels: str | None) -> dict[str, Any]:
    """Every engine on one model."""
    from tatvpr_edge.models import registry

    config = registry.config(name).backbone
    with tempfile.TemporaryDirectory(prefix="tatvpr-peers-") as folder:
        plain, quantised = peers.plain_models(config, Path(folder) / "plain")
        artifact = peers.our_artifact(name, "host", Path(folder))
        localizer = Localizer(artifact, kernels=kernels)
        calls: dict[str, peers.Call] = {f"ours {k}": peers.our_call(localizer, k, 1.0) for k in KS}
        for k in (1.0, 0.2):
            calls[f"ours {k} tokens 0.5"] = peers.our_call(localizer, k, 0.5)
        calls["ort_fp32"] = peers.onnxruntime_call(plain, config)
        calls["ort_int8"] = peers.onnxruntime_call(quantised, config)
        for peer, make in PEERS.items():
            try:
                calls[peer] = make(plain, config)
            except ImportError as error:
                print(f"{peer} is left out: {error.name} is not installed", file=sys.stderr)
        found = interleaved(calls, rounds)
        manifest = localizer.artifact.manifest
    result: dict[str, Any] = {
        f"{peer}_ms": found[peer]["median"] for peer in found if not peer.startswith("ours")
    }
    result["ours_ms"] = {str(k): found[f"ours {k}"]["median"] for k in KS}
    result["ours_tokens_half_ms"] = {
        str(k): found[f"ours {k} tokens 0.5"]["median"] for k in (1.0, 0.2)
    }
    result["fastest"] = fastest(result)
    result["spread_ms"] = found
    result["weight_bytes"] = manifest.file(manifest.weights).bytes
    return result


def peers_of(result: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of the other engines."""
    return {k[:-3]: v for k, v in result.items() if k.endswith("_ms") and isinstance(v, float)}


def fastest(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For every k the winner, the best of the others, and its time over the winner's."""
    table = {}
    for k, ours in result["ours_ms"].items():
        (first, least), (second, next_least) = sorted(
            {"ours": ours, **peers_of(result)}.items(), key=lambda item: item[1]
        )[:2]
        table[k] = {"winner": first, "next": second, "lead": next_least / least}
    return table


def bench_layers(bench: KernelBench, kernels: str) -> dict[str, Any]:
    """Linear layers of ViT-S at 257 tokens, selection beside them, and the dense rate."""
    result: dict[str, Any] = {}
    dense_ns = sparse_ns = select_ns = 0.0
    for name, (k_in, n_out) in LAYERS.items():
        dense = bench.time(kernels, "dense", 257, k_in, n_out)
        sparse = {
            str(k): bench.time(kernels, "sparse", 257, k_in, n_out, k).median_ns / 1e6 for k in KS
        }
        select = bench.time(kernels, "select", 257, k_in, n_out, 0.2)
        rate = 257 * k_in * n_out / dense.median_ns
        result[name] = {
            "dense_ms": dense.median_ns / 1e6,
            "sparse_ms": sparse,
            "select_ms": select.median_ns / 1e6,
            "dense_gmacs": rate,
        }
        dense_ns += dense.median_ns
        sparse_ns += sparse["0.2"] * 1e6
        select_ns += select.median_ns
    result["sparse_0.2_over_dense"] = sparse_ns / dense_ns
    result["select_over_dense"] = select_ns / dense_ns
    return result


def print_model(name: str, r: dict[str, Any]) -> None:
    """Ratios first, then milliseconds."""
    ours = r["ours_ms"]
    print(f"\n{name}")
    print(f"  k=1 against ONNX Runtime fp32 {r['ort_fp32_ms'] / ours['1.0']:.2f}x, "
          f"int8 {r['ort_int8_ms'] / ours['1.0']:.2f}x")  # fmt: skip
    print(f"  k=.2 against ONNX Runtime fp32 {r['ort_fp32_ms'] / ours['0.2']:.2f}x, "
          f"int8 {r['ort_int8_ms'] / ours['0.2']:.2f}x")  # fmt: skip
    half = r["ours_tokens_half_ms"]["0.2"]
    print(f"  k=.2 over k=1: {ours['0.2'] / ours['1.0']:.3f}; "
          f"with half the tokens {half / ours['1.0']:.3f}")  # fmt: skip
    print("  ours, ms: " + "  ".join(f"k={k} {v:.2f}" for k, v in ours.items()))
    print("  peers, ms: " + "  ".join(f"{k} {v:.2f}" for k, v in peers_of(r).items()))
    print("  fastest: " + "  ".join(
        f"k={k} {f['winner']} ({f['lead']:.2f}x before {f['next']})"
        for k, f in r["fastest"].items()
    ))  # fmt: skip
    print(f"  weights {r['weight_bytes'] / 1e6:.2f} MB")


def draw(report: dict[str, Any], path: Path) -> None:
    """Latency against k, one panel a model."""
    from matplotlib.figure import Figure

    models = report["models"]
    figure = Figure(figsize=(3.6 * len(models), 3.4))
    axes = figure.subplots(1, len(models), squeeze=False)
    for axis, (name, r) in zip(axes[0], models.items(), strict=True):
        ks = sorted(float(k) for k in r["ours_ms"])
        axis.plot(ks, [r["ours_ms"][str(k)] for k in ks], "o-", label="tatvpr-edge")
        for peer, value in peers_of(r).items():
            axis.axhline(value, linestyle="--", linewidth=1, color=f"C{len(axis.lines)}",
                         label=peer.replace("_", " "))  # fmt: skip
        axis.set(title=name, xlabel="k (activations kept)", ylim=(0, None))
    axes[0][0].set_ylabel("ms a frame, one thread")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    save_figure(figure, path, dpi=130)


@one_line
def main() -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated names")
    parser.add_argument(
        "--rounds", type=whole(2), default=34, help="34: two squares of seventeen calls"
    )
    parser.add_argument("--kernels", help="force a kernel variant, such as portable")
    parser.add_argument("--json", type=target(), help="write the figures to this file")
    parser.add_argument("--plot", type=plot, help="write a PNG of latency against k")
    arguments = parser.parse_args()
    from tatvpr_edge.models import registry

    models = arguments.models.split(",")
    for name in models:
        registry.config(name)  # a name of none is not told after the layers
    bench = KernelBench()
    kernels = arguments.kernels or bench.best()
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "kernels": kernels,
        "clock": "process CPU time",
        "peak_gmacs": bench.peak_gmacs(kernels),
        "layers": bench_layers(bench, kernels),
        "models": {},
    }
    layers = report["layers"]
    print(f"kernels {kernels}; measured int8 peak {report['peak_gmacs']:.1f} GMAC/s")
    print(f"linear layers (384-wide, 257 tokens): k=.2 over dense "
          f"{layers['sparse_0.2_over_dense']:.3f}, selection over dense "
          f"{layers['select_over_dense']:.3f}")  # fmt: skip
    for name in models:
        report["models"][name] = bench_model(name, arguments.rounds, arguments.kernels)
        print_model(name, report["models"][name])
        if arguments.json:
            write_json(arguments.json, report)
    if arguments.plot:
        draw(report, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

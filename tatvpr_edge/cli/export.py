"""`tatvpr-edge export MODEL --output FILE`: weights, or a named architecture, to one ONNX file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tatvpr_edge.cli.output import json_option, print_json, say
from tatvpr_edge.cli.paths import FilePath, OutputFile
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.manifest import RANDOM_NOTE
from tatvpr_edge.spec.targets import check_apart


@click.command("export")
@click.argument("model")
@click.option("--output", "-o", required=True, type=OutputFile(), help="ONNX file to write.")
@click.option(
    "--weights",
    type=FilePath(path_type=Path),
    help="Weights for a named architecture (safetensors); they must fit it.",
)
@click.option(
    "--random", "seed", type=click.IntRange(0, 2**63 - 1), default=None, metavar="SEED",
    help="Random weights for a named architecture: for benchmarks only.",
)  # fmt: skip
@click.option("--tokens-out", is_flag=True, help="Also output the tokens after the last norm.")
@json_option
def command(
    model: str,
    output: Path,
    weights: Path | None,
    seed: int | None,
    tokens_out: bool,
    as_json: bool,
) -> None:
    """Export MODEL, a weights file or a registered name, to an ONNX file.

    The file carries the operators' bodies, so that a stock ONNX Runtime runs it.
    """
    from tatvpr_edge import zoo
    from tatvpr_edge.models import registry
    from tatvpr_edge.models.checkpoint import load_weights
    from tatvpr_edge.models.export import export_onnx

    of = Path(model) if _is_file(model) else weights
    check_apart(output, () if of is None else (of,))
    if _is_file(model):
        if weights is not None or seed is not None:
            raise UsageError(
                "a weights file is exported as it is: leave --weights and --random out"
            )
        network = load_weights(model)
    elif weights is not None and seed is not None:
        raise UsageError("--weights and --random exclude each other: leave one out")
    elif weights is not None:
        network = load_weights(weights, expected=registry.config(model))
    elif seed is not None:
        network = registry.create(model, seed=seed)
    else:
        registry.config(model)
        shipped = f"; the shipped weights are exported already: {zoo.path(model)}"
        raise UsageError(
            f"{model} is an architecture: give --weights FILE, or --random SEED for a benchmark"
            + (shipped if model in zoo.names() else "")
        )
    export_onnx(network, output, tokens_out=tokens_out)
    if as_json:
        print_json(
            {
                "file": str(output),
                "bytes": output.stat().st_size,
                "model": network.config.name,
                "descriptor_size": network.descriptor_size,
                "weights": "trained" if network.trained else "random",
            }
        )
    else:
        size = output.stat().st_size / 1e6
        kind = "" if network.trained else f"; {RANDOM_NOTE}"
        described = f"{network.config.name}, {size:.2f} MB, {network.descriptor_size}-d"
        say(f"{output}: {described}{kind}")


def _is_file(model: str) -> bool:
    """Whether MODEL means a file: names of architectures have no dots, and come first."""
    from tatvpr_edge.models import registry

    if model in registry.names():
        return False
    return "." in model or os.sep in model or Path(model).exists()

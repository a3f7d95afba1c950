"""The mean of several trained weights of one architecture, such as seeds of a last training part.

    python tools/average_weights.py SEED0 SEED1 SEED2 --output mean.safetensors

Weights that left one checkpoint and were trained a little apart have a mean that is often better
than each (Wortsman et al., Model soups, 2022). Those of separate trainings do not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from given import one_line, target, tool_parser

from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import UsageError


def average(paths: Sequence[Path]) -> PlaceModel:
    """A model with the mean of each tensor, in the precision of the tensors.

    Raises:
        UsageError: fewer than two files.
        ModelError: a file cannot be read, or is of another architecture than the first.
    """
    if len(paths) < 2:
        raise UsageError("a mean needs at least two weights files")
    first = load_weights(paths[0])
    states = [load_weights(path, expected=first.config).state_dict() for path in paths]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    first.load_state_dict(mean)
    return first


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("weights", nargs="+", type=Path, help="safetensors of tatvpr-edge train")
    parser.add_argument(
        "--output", required=True, type=target(".safetensors"), help="where the mean is written"
    )
    options = parser.parse_args(arguments)
    save_weights(average(options.weights), options.output)
    print(f"{options.output}: mean of {len(options.weights)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

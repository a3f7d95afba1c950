"""Train a model of the zoo from raw data to its card: one file, one command.

In: the name of a recipe, `models/train/recipes/NAME.toml`: a training file with one table more,
`[zoo]`, that says how its data are made. Out: `runs/NAME/weights.safetensors`.

    python tools/train_zoo.py micro-views           # runs, or continues a run that was stopped

Each part is skipped where its result exists, so that the command may be killed at any time and
given again. Data are read from where the recipe says; nothing of them is copied into the project.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from given import one_line, tool_parser, whole

from tatvpr_edge.cli.train import RECIPES, Watch
from tatvpr_edge.models.train.run import train
from tatvpr_edge.models.train.training_file import config_from
from tatvpr_edge.spec.documents import read_toml
from tatvpr_edge.spec.endings import interrupted, tell
from tatvpr_edge.spec.errors import ToolError, UsageError

ROOT = Path(__file__).resolve().parent.parent


def make_data(zoo: dict[str, Any]) -> None:
    """Run the tools of `[[zoo.make]]` whose folder is missing."""
    for made in zoo.get("make", []):
        folder, command = Path(made["folder"]), made["command"]
        if folder.is_dir():
            continue
        print(f"{folder}: {' '.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / command[0]), *command[1:], "--output", str(folder)],
            check=False,
        )
        if done.returncode:
            raise ToolError(f"{command[0]} made no {folder} (exit {done.returncode})")


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("name", help="a recipe, such as micro, or a file")
    parser.add_argument("--stop-after", type=whole(1), help="leave after so many steps of a stage")
    given = parser.parse_args(arguments)
    try:
        path = Path(given.name) if given.name.endswith(".toml") else RECIPES / f"{given.name}.toml"
        values = read_toml(path, UsageError)
        config = config_from(values, path)
        make_data(values.get("zoo", {}))
        weights = train(config, Watch().step, given.stop_after)
    except KeyboardInterrupt:
        said, status = interrupted()
        tell(f"error: {said}; the same command continues")
        return status
    print("stopped; the same command continues" if weights is None else str(weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())

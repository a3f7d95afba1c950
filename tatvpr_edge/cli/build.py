"""``tatvpr-edge build --board NAME``: an ONNX model to an artifact."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import BuildProgress, json_option, note, print_json, say
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.runtime.cache import cache_folder, unwritable
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.manifest import RANDOM, RANDOM_NOTE


class _Range(click.ParamType):
    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        low, colon, high = value.partition(":")
        try:
            if not colon:
                raise ValueError
            return check_fraction(float(low), "k"), check_fraction(float(high), "k")
        except UsageError as error:
            self.fail(str(error), param, ctx)
        except ValueError:
            self.fail(f"{value!r} is not a range of k such as 0.05:1", param, ctx)


@click.command("build")
@click.option(
    "--board",
    required=True,
    metavar="NAME|FILE",
    type=FilePath(),
    shell_complete=words.boards,
    help="A name of 'tatvpr-edge boards', or a board's .toml file.",
)
@click.option(
    "--model",
    metavar="NAME|FILE",
    type=FilePath(),
    shell_complete=words.models,
    help="A shipped model's name, or an ONNX file (default: the one made for such boards).",
)
@click.option(
    "--backend",
    type=click.Choice(["tvm", "tensorrt"]),
    default="tvm",
    show_default=True,
    help="tensorrt adds the GPU's part for a Jetson.",
)
@click.option(
    "--k-range", type=_Range(), default="0.05:1", show_default=True, help="The k to check it for."
)
@click.option(
    "--sign", metavar="KEY", type=FilePath(), help="Private SSH key (Ed25519) to sign it with."
)
@click.option(
    "--prefix", metavar="NAME", help="Begins a firmware's own names: two models fit one firmware."
)
@click.option(
    "--output",
    "-o",
    type=FilePath(),
    help="Folder to make (default: MODEL-BOARD; for host, this machine's cached artifact).",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@json_option
def command(
    board: str,
    model: str | None,
    backend: str,
    k_range: tuple[float, float],
    sign: str | None,
    prefix: str | None,
    output: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Lower an ONNX model to an artifact for a board.

    The artifact holds code, weights, golden vectors and hashes; 'tatvpr-edge verify' checks it,
    'tatvpr-edge deploy' sends it.
    """
    import tatvpr_edge
    from tatvpr_edge.boards.board import NATIVE
    from tatvpr_edge.boards.loader import load

    if model is None:
        described = load(board)
        model = described.model
        if not as_json:
            here = described.cpu.triple == NATIVE
            whose = "this machine" if here else f"boards like {board}"
            say(f"model: {model}, the shipped one for {whose}; --model names another")
    if output is not None and not dry_run and (fault := unwritable()) is not None:
        why = f"{cache_folder('')} cannot be written ({fault.strerror})"
        note(f"warning: {why}: each build starts from nothing")
    of: dict[str, Any] = {"model": model, "k_range": k_range, "backend": backend, "prefix": prefix}
    with BuildProgress(quiet=as_json) as progress:
        if dry_run:
            plan = tatvpr_edge.plan(board, **of, progress=progress)
        else:
            made = tatvpr_edge.build(board, **of, output=output, sign=sign, progress=progress)
    if dry_run:
        if as_json:
            print_json(plan.to_dict())
        else:
            for line in plan.lines():
                say(line)
        return
    document = summary(made)
    if as_json:
        print_json(document)
        return
    say(
        f"{made}: {document['model']} for {document['board']}, {document['files']} files, "
        f"{document['bytes'] / 1024:.0f} KiB, model {document['model_hash'][:12]}"
    )
    if document["weights"] == RANDOM:
        say(RANDOM_NOTE)
    if document["signed"]:
        say(f"signed with {sign}")
    if document["next"]:
        say("build and run its example in an emulator:")
        for line in document["next"]:
            say(line)
    elif (step := next_step(made, document["board"])) is not None:
        say(step)


def summary(path: Path) -> dict[str, Any]:
    """What ``--json`` prints of a built artifact."""
    from tatvpr_edge.spec.artifact import read_artifact

    artifact = read_artifact(path)
    manifest = artifact.manifest
    return {
        "artifact": str(path),
        "board": manifest.board,
        "model": manifest.model.name,
        "model_hash": manifest.model.hash,
        "weights": manifest.model.weights,
        "artifact_hash": artifact.hash,
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files),
        "memory": manifest.memory,
        "signed": artifact.signed,
        "next": list(example_commands(path)),
    }


def next_step(folder: Path, board: str) -> str | None:
    """What is done with an artifact for another machine; None: it is for this one."""
    place = shlex.quote(str(folder))
    if (folder / "MEMORY.md").is_file():
        return f"{place}/MEMORY.md has regions and flags, {place}/example/main.c is the firmware"
    return None if board == "host" else f"send it: tatvpr-edge deploy {place} USER@HOST"


def example_commands(folder: Path) -> tuple[str, ...]:
    """What builds and runs the example in an artifact; nothing where there is no emulator."""
    try:
        presets = json.loads((folder / "example" / "CMakePresets.json").read_bytes())
    except FileNotFoundError:
        return ()
    name = presets["configurePresets"][0]["name"]
    place = shlex.quote(str(folder))
    return (
        f"cmake --preset {name} -S {place}/example",
        f"cmake --build {place}-build --target run",
    )

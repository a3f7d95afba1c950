"""``tatvpr-edge describe FRAMES``: descriptors for an index of your own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.hosting import open_localizer
from tatvpr_edge.cli.output import TOKENS, K, json_option, note_left_out, print_json, progress, say
from tatvpr_edge.cli.paths import FilePath, OutputFile
from tatvpr_edge.cli.recordings import recording_options

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Picking


@click.command("describe")
@click.argument("frames", type=FilePath())
@click.option(
    "--output",
    "-o",
    required=True,
    type=OutputFile(".npy"),
    help="The .npy to write; a .json of the frames' names is written beside it.",
)
@click.option(
    "--artifact",
    type=FilePath(),
    shell_complete=words.artifacts,
    help="Artifact to run (default: this machine's).",
)
@click.option("--k", type=K, default="0.2", show_default=True, help="Fraction kept.")
@click.option("--tokens", type=TOKENS, default="1", show_default=True, help="Patch tokens kept.")
@click.option("--strict", is_flag=True, help="Stop at a frame that cannot be read.")
@recording_options
@json_option
def command(
    frames: str,
    output: Path,
    artifact: str | None,
    k: float,
    tokens: float,
    strict: bool,
    picking: Picking | None,
    as_json: bool,
) -> None:
    """Describe the frames of FRAMES (a folder, a picture, a ROS bag or a video): float32 [N, D],
    unit length."""
    from tatvpr_edge.cli.answers import write_descriptors
    from tatvpr_edge.mapping import frames_of
    from tatvpr_edge.mapping.describe import describe_frames

    files = frames_of(frames, picking)
    with open_localizer(artifact, as_json) as localizer:
        localizer.k, localizer.tokens = k, tokens  # refuses what the artifact was not built for
        with progress("frames", len(files), as_json) as step:
            made = describe_frames(localizer, files, [(k, tokens)], step, strict)
        model = localizer.artifact.manifest.model
    names = [files[index].name for index in made.kept]
    write_descriptors(output, made.descriptors[0], names, model.hash, k)
    if as_json:
        print_json(
            {
                "output": str(output),
                "frames": len(names),
                "dim": model.descriptor_size,
                "k": k,
                "tokens": tokens,
                "model_hash": model.hash,
                "skipped": [asdict(frame) for frame in made.skipped],
            }
        )
        return
    note_left_out(made.skipped, len(files), strict=True)
    shape = f"[{len(names)}, {model.descriptor_size}]"
    say(f"{output}: float32 {shape}, names in {output.with_suffix('.json')}")

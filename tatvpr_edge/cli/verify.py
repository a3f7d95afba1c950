"""``tatvpr-edge verify ARTIFACT``: signature, hashes and golden vectors."""

from __future__ import annotations

from dataclasses import asdict

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import json_option, print_json, say
from tatvpr_edge.cli.paths import FilePath


@click.command("verify")
@click.argument("artifact", type=FilePath(), shell_complete=words.artifacts)
@click.option("--board", shell_complete=words.boards, help="Refuse an artifact for another board.")
@json_option
def command(artifact: str, board: str | None, as_json: bool) -> None:
    """Check an artifact's signature, hashes and golden vectors.

    Golden vectors run where the artifact's code can run; elsewhere the line says why not.
    """
    from tatvpr_edge.runtime.verify import report, verify_artifact

    verified = verify_artifact(artifact, board=board)
    if as_json:
        print_json(asdict(verified))
    else:
        for line in report(verified).splitlines():
            say(line)

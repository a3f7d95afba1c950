"""``tatvpr-edge rollback USER@HOST``: the release before is live again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from tatvpr_edge.cli.output import json_option, print_json, say
from tatvpr_edge.cli.remote import Report, Way, board_options, limit_options, result_line


@click.command("rollback")
@click.argument("target", metavar="USER@HOST")
@click.option("--to", help="Name of the release, as `status` shows it (default: the one before).")
@board_options
@limit_options
@json_option
def command(target: str, to: str | None, way: Way, limits: dict[str, Any], as_json: bool) -> None:
    """Make the release before the live one live again, checked as in a deploy."""
    from tatvpr_edge.deploy.push import rollback

    options = way.options(**limits)
    result = rollback(way.to(target), to, options, Report(as_json))
    if as_json:
        print_json(asdict(result))
    else:
        say(result_line(result))

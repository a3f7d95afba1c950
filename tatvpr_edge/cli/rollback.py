"""``tatvpr-edge rollback USER@HOST``: the release before is live again."""

from __future__ import annotations

from dataclasses import asdict

import click

from tatvpr_edge.cli.output import json_option, print_json, say
from tatvpr_edge.cli.remote import (
    Report,
    board_options,
    limit_options,
    make_options,
    result_line,
    transport,
)


@click.command("rollback")
@click.argument("target", metavar="USER@HOST")
@click.option("--to", help="Name of the release, as `status` shows it (default: the one before).")
@board_options
@limit_options
@json_option
def command(
    target: str,
    to: str | None,
    port: int | None,
    ssh_config: str | None,
    root: str | None,
    python: str,
    restart: tuple[str, ...],
    health_seconds: float,
    watch_seconds: float,
    golden_seconds: float,
    as_json: bool,
) -> None:
    """Make the release before the live one live again, checked as in a deploy."""
    from tatvpr_edge.deploy.push import rollback

    options = make_options(
        root,
        python,
        restart=restart,
        health_s=health_seconds,
        settle_s=watch_seconds,
        golden_s=golden_seconds,
    )
    result = rollback(transport(target, port, ssh_config), to, options, Report(as_json))
    if as_json:
        print_json(asdict(result))
    else:
        say(result_line(result))

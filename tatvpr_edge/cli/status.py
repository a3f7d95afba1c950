"""``tatvpr-edge status USER@HOST``: what a board runs, and what it could go back to."""

from __future__ import annotations

import time
from typing import Any

import click

from tatvpr_edge.cli.output import json_option, print_json, print_table, say
from tatvpr_edge.cli.remote import Way, board_options, enforcement
from tatvpr_edge.deploy.naming import lead
from tatvpr_edge.spec.manifest import RANDOM, RANDOM_NOTE


@click.command("status")
@click.argument("target", metavar="USER@HOST")
@board_options
@click.option("--check", is_flag=True, help="Read and hash every byte that is installed.")
@json_option
def command(target: str, way: Way, check: bool, as_json: bool) -> None:
    """Show the releases installed on a board; changes nothing there."""
    from tatvpr_edge.deploy.push import status

    found = status(way.to(target), way.options(), check)
    if as_json:
        print_json(found)
        return
    releases = found["releases"]
    say(f"{lead(target)} {found['live'] or 'nothing'} is live below {found['root']}")
    if found.get("lost"):
        say(f"the live release is lost ({found['lost']} is nowhere): deploy again, or roll back")
    if found.get("unconfirmed"):
        say("its health was not confirmed: the next deploy checks it")
    if found.get("fallback"):
        fallback = found["fallback"]
        say(f"{fallback['runs']} was started instead, because {fallback['why']}: deploy again")
    if releases:
        print_table(
            ["release", "state", "MB", "map", "note"],
            [_row(release, check) for release in releases],
            right=("MB",),
        )
    keys = [key["name"] + (" (revoked)" if key["revoked"] else "") for key in found["keys"]]
    say("trusted keys: " + (", ".join(keys) or "none"))
    say(enforcement(found))
    if found.get("downgrades"):
        say("older releases are accepted with --allow-downgrade: end it with `keys downgrades`")
    if found.get("service"):
        say(f"service: {found['service']}")
    say(f"Python {found['python']}, {found['machine']}, {found['free_bytes'] / 1e6:.0f} MB free")


def _signed(signed: dict[str, Any]) -> str:
    """Who signed what of a release."""
    if signed.get("fault"):
        return f"NOT ACCEPTED: {signed['fault']}"
    by, artifact_by = signed.get("by"), signed.get("artifact_by")
    if by is None:
        return "signed, by whom is not asked here" if signed.get("present") else "unsigned"
    text = (
        f"signed by {by}" if by == artifact_by else f"signed by {by}, its artifact by {artifact_by}"
    )
    expires = signed.get("expires")
    if expires is not None:
        text += time.strftime(", expires %Y-%m-%d", time.gmtime(expires))
    return text


def _row(release: dict[str, Any], check: bool) -> list[str]:
    state = "live" if release["live"] else ("previous" if release["previous"] else "")
    said = []
    if check:
        said.append(release["fault"] or "every byte as sent")
    said.append(_signed(release.get("signed", {})))
    if release.get("weights") == RANDOM:
        said.append(RANDOM_NOTE)
    if release["failed"]:
        said.append(f"failed: {release['failed']}")
    size = f"{release['bytes'] / 1e6:.2f}" if "bytes" in release else "?"
    return [release["name"], state, size, release.get("map") or "none", "; ".join(said)]

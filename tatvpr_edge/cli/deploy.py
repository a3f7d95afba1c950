"""``tatvpr-edge deploy ARTIFACT USER@HOST``: atomic, verified, reversible."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import json_option, note, print_json, say
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.remote import Report, Way, board_options, limit_options, result_line
from tatvpr_edge.deploy.naming import lead

if TYPE_CHECKING:
    from tatvpr_edge.deploy.inventory import Board, Outcome

_AGAIN = "; mend what failed, or take it out of the file, and run again: nothing is sent twice"


@click.command("deploy")
@click.argument("names", nargs=-1, metavar="[ARTIFACT] [USER@HOST]", shell_complete=words.artifacts)
@click.option(
    "--map",
    "place_map",
    type=FilePath(path_type=Path),
    shell_complete=words.maps,
    help="Place map to deploy.",
)
@click.option(
    "--inventory", type=FilePath(path_type=Path), help="TOML file of many boards; canaries first."
)
@click.option(
    "--parallel", type=click.IntRange(1, 64), default=8, show_default=True, help="Boards at a time."
)
@board_options
@click.option(
    "--keep",
    type=click.IntRange(2, 100),
    default=3,
    show_default=True,
    help="Releases that stay on the board.",
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Send the runtime: when the board's is missing, older or a clone's, always, or never.",
)
@click.option("--wheel", type=FilePath(path_type=Path), help="Take the runtime from this wheel.")
@click.option(
    "--service/--no-service",
    default=None,
    help="Install a systemd unit that keeps Localizer warm, or remove it.",
)
@click.option("--k", metavar="K|auto", help="With --service: what it serves with.")
@click.option("--budget", help="With --service and --k auto: 5W, 0.2J, 40ms, 70C or battery:2h.")
@click.option("--preset", help="With --service and --k auto: turbo or battery-saver.")
@click.option(
    "--no-map", is_flag=True, help="Without --map: leave the robot's map behind (default: keep it)."
)
@click.option(
    "--sign",
    metavar="KEY",
    type=FilePath(path_type=Path),
    help="Sign all that runs (artifact, runtime, map) with this private SSH key.",
)
@click.option(
    "--expires-days",
    type=click.FloatRange(0, 36500, min_open=True),
    help="With --sign: no board installs it after so many days.",
)
@click.option(
    "--allow-downgrade",
    is_flag=True,
    help="Accept an older signed artifact, where the board permits it.",
)
@limit_options
@json_option
def command(
    names: tuple[str, ...],
    place_map: Path | None,
    inventory: Path | None,
    parallel: int,
    way: Way,
    keep: int,
    runtime: str,
    wheel: Path | None,
    service: bool | None,
    k: str | None,
    budget: str | None,
    preset: str | None,
    no_map: bool,
    sign: Path | None,
    expires_days: float | None,
    allow_downgrade: bool,
    limits: dict[str, Any],
    as_json: bool,
) -> int:
    """Send ARTIFACT to the board USER@HOST and make it live, or leave the board as it was.

    Uses your own ssh: keys, agent, jump hosts, ~/.ssh/config. USER@HOST may be 'local:', this
    machine. With --inventory, to every board of a file.
    """
    if expires_days is not None and sign is None:
        raise click.UsageError("--expires-days belongs to --sign")
    options = way.options(
        keep=keep,
        runtime=runtime,
        wheel=wheel,
        service=service,
        serve=_serve_words(service, k, budget, preset),
        no_map=no_map,
        sign=sign,
        expires_days=expires_days,
        allow_older=allow_downgrade,
        **limits,
    )
    if no_map and place_map is not None:
        raise click.UsageError("--map and --no-map exclude each other")
    if inventory is not None:
        if len(names) > 1 or way.port is not None:
            raise click.UsageError("the boards and their ports stand in the inventory")
        artifact = Path(names[0]) if names else None
        return _many(inventory, artifact, place_map, options, way.ssh_config, parallel, as_json)
    if len(names) != 2:
        raise click.UsageError("give ARTIFACT and USER@HOST, or --inventory FILE")
    from tatvpr_edge.deploy.push import deploy

    result = deploy(way.to(names[1]), names[0], place_map, options, Report(as_json))
    if as_json:
        print_json(asdict(result))
    else:
        say(result_line(result))
    return 0


def _serve_words(
    service: bool | None, k: str | None, budget: str | None, preset: str | None
) -> tuple[str, ...]:
    """What the unit gives to ``serve``, refused here rather than by a unit that cannot start."""
    from tatvpr_edge.runtime.governor import Budget, check_preset
    from tatvpr_edge.spec.limits import check_fraction

    given = {"--k": k, "--budget": budget, "--preset": preset}
    words = [word for name, value in given.items() if value for word in (name, value)]
    if words and not service:
        raise click.UsageError(f"{words[0]} belongs to --service")
    if k == "auto":
        if budget is not None:
            Budget.parse(budget)
        if check_preset(preset) is None and budget is None:
            raise click.UsageError("--k auto needs a --budget such as 5W, or a --preset")
        return tuple(words)
    if budget or preset:
        raise click.UsageError("--budget and --preset belong to --k auto")
    if k is not None:
        try:
            number = float(k)
        except ValueError:
            raise click.UsageError(f"--k is {k!r}: a fraction such as 0.2, or auto") from None
        check_fraction(number, "k")
    return tuple(words)


def _many(
    inventory: Path,
    artifact: Path | None,
    place_map: Path | None,
    options: Any,
    ssh_config: str | None,
    parallel: int,
    as_json: bool,
) -> int:
    from tatvpr_edge.deploy.inventory import deploy_all, read_inventory

    boards = read_inventory(inventory)
    outcomes: list[Outcome] = []
    try:
        for outcome in deploy_all(
            boards,
            artifact,
            place_map,
            options,
            ssh_config,
            parallel,
            on_begin=lambda board: note(f"{lead(board.name)} begun", as_json),
            on_wait=lambda left: note(_waits(left), as_json),
        ):
            outcomes.append(outcome)
            if not as_json:
                _tell(outcome)
    finally:  # also where it is interrupted
        done = sum(outcome.result is not None for outcome in outcomes)
        if as_json and outcomes:
            print_json(
                [
                    {
                        "board": outcome.board.name,
                        "error": outcome.error,
                        "result": asdict(outcome.result) if outcome.result else None,
                    }
                    for outcome in outcomes
                ]
            )
        elif outcomes:
            again = "" if done == len(boards) else _AGAIN
            note(f"{done} of {len(boards)} boards have it{again}")
    return 0 if done == len(boards) else 1


def _waits(left: list[Board]) -> str:
    names = ", ".join(board.name for board in left)
    return f"no further board is begun; waiting for {names} (a second signal does not wait)"


def _tell(outcome: Outcome) -> None:
    name = lead(outcome.board.name)
    if outcome.result is not None:
        say(result_line(outcome.result))
        for warning in outcome.result.warnings:
            note(f"{name} warning: {warning}")
    elif outcome.error is not None:
        say(f"{name} FAILED: {outcome.error.removeprefix(lead(outcome.board.host) + ' ')}")
    else:
        say(f"{name} not begun")

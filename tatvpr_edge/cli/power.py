"""``tatvpr-edge power``: the sensors of this board, live, or of another one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tatvpr_edge.cli.output import console, json_option, print_json, print_table, say
from tatvpr_edge.cli.remote import Way, way_options
from tatvpr_edge.deploy.naming import lead
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import parse_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tatvpr_edge.runtime.telemetry import Sampler, Snapshot

#: How much longer than its sensors are watched another board may take, logging in included.
PATIENCE_S = 120.0
_BARS = " ▁▂▃▄▅▆▇█"


@click.command("power")
@click.option("--on", "target", metavar="USER@HOST", help="Of this board, over SSH.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.02, 30),
    default=0.25,
    show_default=True,
    help="Seconds between readings.",
)
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(0, 86400),
    help="Seconds to watch (default: until Ctrl-C on a terminal, else 1).",
)
@click.option(
    "--root", default="/", show_default=True, help="Where the board's root is (containers)."
)
@way_options
@click.option("--install-root", help="With --on: the install root there (default: its own).")
@json_option
def command(
    target: str | None,
    interval_s: float,
    duration_s: float | None,
    root: str,
    way: Way,
    install_root: str | None,
    as_json: bool,
) -> None:
    """Show the power sensors found, live.

    On a terminal the display runs until Ctrl-C; elsewhere, with --json and of another board, it is
    printed once.
    """
    if target is not None:
        from tatvpr_edge.deploy.command import run_on_board

        watched_s = 1.0 if duration_s is None else duration_s
        asked = ["power", "--interval", f"{interval_s:g}", "--duration", f"{watched_s:g}"]
        asked += ["--root", root, *(["--json"] if as_json else [])]
        limit_s = PATIENCE_S + watched_s
        answer = run_on_board(way.to(target), asked, install_root, way.python, limit_s=limit_s)
        _print_answer(target, answer, as_json)
        return
    from tatvpr_edge.runtime import power
    from tatvpr_edge.runtime.telemetry import Sampler

    shown = console()
    live = shown.is_terminal and not as_json
    with Sampler(interval_s=interval_s, root=root) as sampler:
        sampler.ready()
        if not as_json:
            power.refuse_without_sensors(sampler)
        if live:
            _watch(sampler, duration_s)
            return
        time.sleep(1.0 if duration_s is None else duration_s)
        snapshot = sampler.latest()
        if as_json:
            print_json(power.document(sampler, snapshot, root))
        else:
            _print(sampler, snapshot)


def _print_answer(target: str, answer: str, as_json: bool) -> None:
    """What a board's ``power`` printed."""
    if not as_json:
        for line in answer.splitlines():
            say(line)
        return
    try:
        found = parse_json(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("readings"), list):
        raise DeployError(f"{lead(target)} what the board says of its sensors cannot be read")
    print_json(found)


def _print(sampler: Sampler, snapshot: Snapshot) -> None:
    from tatvpr_edge.runtime import power

    print_table(power.COLUMNS, power.rows(snapshot, snapshot.time_s))
    say(f"total: {power.total_text(snapshot)}")
    for name, why in sampler.discovery.missing.items():
        say(f"not used: {name}: {why}")


def _watch(sampler: Sampler, duration_s: float | None) -> None:
    from rich.live import Live

    end_s = None if duration_s is None else time.monotonic() + duration_s
    try:
        with Live(_frame(sampler), console=console(), auto_refresh=False) as display:
            while end_s is None or time.monotonic() < end_s:
                time.sleep(max(sampler.interval_s, 0.1))
                display.update(_frame(sampler), refresh=True)
    except KeyboardInterrupt:
        return


def _frame(sampler: Sampler) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tatvpr_edge.runtime import power

    snapshot, now_s = sampler.latest(), time.monotonic()
    table = Table(box=None, pad_edge=False)
    for column in power.COLUMNS:
        table.add_column(column, no_wrap=column != "reading")
    for row in power.rows(snapshot, now_s):
        table.add_row(*row)
    values = [point.power_mw for point in sampler.history()]
    line = Text(f"total: {power.total_text(snapshot)}   {sparkline(values)}")
    footer = Text(f"every {sampler.effective_interval_s:.2f} s; Ctrl-C ends", style="dim")
    return Group(table, line, footer)


def sparkline(values: list[float | None], width: int = 48) -> str:
    """The last ``width`` values as bars from zero to their highest; gaps are blank."""
    recent = values[-width:]
    highest = max((value for value in recent if value is not None), default=0.0)
    if highest <= 0.0:
        return ""
    return "".join(
        " " if value is None else _BARS[1 + min(7, int(value / highest * 7.999))]
        for value in recent
    )

"""``tatvpr-edge power``: the sensors of this board, live."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli.output import console, json_option, print_json, print_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tatvpr_edge.runtime.telemetry import Reading, Sampler, Snapshot

_BARS = " ▁▂▃▄▅▆▇█"


@click.command("power")
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
@json_option
def command(interval_s: float, duration_s: float | None, root: str, as_json: bool) -> None:
    """Show the power sensors found, live.

    On a terminal the display runs until Ctrl-C; elsewhere, and with --json, it is printed once.
    """
    from tatvpr_edge.runtime.telemetry import Sampler
    from tatvpr_edge.spec.errors import TelemetryError

    shown = console()
    live = shown.is_terminal and not as_json
    with Sampler(interval_s=interval_s, root=root) as sampler:
        sampler.ready()
        if not sampler.discovery.sources and not as_json:
            raise TelemetryError(
                "this machine tells neither power nor temperature: " + sampler.latest().total.detail
            )
        if live:
            _watch(sampler, duration_s)
            return
        time.sleep(1.0 if duration_s is None else duration_s)
        snapshot = sampler.latest()
        if as_json:
            print_json(_document(sampler, snapshot, root))
        else:
            _print(sampler, snapshot)


def _document(sampler: Sampler, snapshot: Snapshot, root: str) -> dict[str, Any]:
    from tatvpr_edge.runtime.telemetry import Tree, read_conditions

    return {
        "sources": {source.name: source.describe() for source in sampler.discovery.sources},
        "missing": sampler.discovery.missing,
        "interval_s": sampler.effective_interval_s,
        "conditions": read_conditions(Tree(root)).as_json(),
        "total": _reading(snapshot.total, snapshot.time_s),
        "hottest": _reading(snapshot.hottest, snapshot.time_s),
        "readings": [_reading(reading, snapshot.time_s) for reading in snapshot.readings],
    }


def _reading(reading: Reading, now_s: float) -> dict[str, Any]:
    document = asdict(reading)
    for name in ("taken_s", "ceiling", "repeat_limit_s"):
        del document[name]
    document["age_s"] = reading.age_s(now_s)
    return document


def _rows(snapshot: Snapshot, now_s: float) -> list[list[str]]:
    return [
        [
            reading.source,
            reading.name,
            reading.text(),
            f"{reading.age_s(now_s):.1f} s",
            reading.covers,
        ]
        for reading in snapshot.readings
    ]


_COLUMNS = ["source", "sensor", "reading", "age", "covers"]


def _print(sampler: Sampler, snapshot: Snapshot) -> None:
    print_table(_COLUMNS, _rows(snapshot, snapshot.time_s))
    click.echo(f"total: {_total(snapshot)}")
    for name, why in sampler.discovery.missing.items():
        click.echo(f"not used: {name}: {why}")


def _total(snapshot: Snapshot) -> str:
    total = snapshot.total
    covers = f" ({total.covers})" if total.covers and total.ok else ""
    return f"{total.text()} by {total.source}{covers}" if total.ok else total.text()


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

    snapshot, now_s = sampler.latest(), time.monotonic()
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=column != "reading")
    for row in _rows(snapshot, now_s):
        table.add_row(*row)
    values = [point.power_mw for point in sampler.history()]
    line = Text(f"total: {_total(snapshot)}   {sparkline(values)}")
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

"""``python -m tatvpr_edge.runtime power``: the sensors of this board, once, as text or JSON.

``tatvpr-edge power`` shows the same live, and ``tatvpr-edge power --on`` runs this over SSH.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.telemetry import Reading, Sampler, Snapshot, Tree, read_conditions
from tatvpr_edge.spec.errors import TelemetryError, UsageError
from tatvpr_edge.spec.lines import aligned
from tatvpr_edge.spec.text import printable, without_nan

#: Of :func:`rows`.
COLUMNS = ["source", "sensor", "reading", "age", "covers"]


def document(sampler: Sampler, snapshot: Snapshot, root: str) -> dict[str, Any]:
    """What ``--json`` prints."""
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
    made = asdict(reading)
    for name in ("taken_s", "ceiling", "repeat_limit_s"):
        del made[name]
    made["age_s"] = reading.age_s(now_s)
    return made


def rows(snapshot: Snapshot, now_s: float) -> list[list[str]]:
    """One row of ``COLUMNS`` a sensor."""
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


def total_text(snapshot: Snapshot) -> str:
    """The power of the whole board, in words."""
    total = snapshot.total
    covers = f" ({total.covers})" if total.covers and total.ok else ""
    return f"{total.text()} by {total.source}{covers}" if total.ok else total.text()


def refuse_without_sensors(sampler: Sampler) -> None:
    """Raise TelemetryError where nothing was found, with what was looked for."""
    if not sampler.discovery.sources:
        raise TelemetryError(
            "this machine tells neither power nor temperature: " + sampler.latest().total.detail
        )


def main(argv: list[str]) -> int:
    """Exit status 0; raises what is refused, and wrong usage exits with 2."""
    parser = Parser("python -m tatvpr_edge.runtime power")
    parser.add_argument("--duration", type=float, default=1.0, help="seconds to watch (default: 1)")
    parser.add_argument("--interval", type=float, default=0.25, help="seconds between readings")
    parser.add_argument("--root", default="/", help="where the board's root is (containers)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    if not (0 <= arguments.duration <= 86400 and 0.02 <= arguments.interval <= 30):
        raise UsageError("--duration is 0 to 86400 seconds, --interval 0.02 to 30")
    with Sampler(interval_s=arguments.interval, root=arguments.root) as sampler:
        sampler.ready()
        if not arguments.json:
            refuse_without_sensors(sampler)
        time.sleep(arguments.duration)
        snapshot = sampler.latest()
        if arguments.json:
            made = document(sampler, snapshot, arguments.root)
            print(json.dumps(without_nan(made), allow_nan=False))
            return 0
    for line in aligned([COLUMNS, *rows(snapshot, snapshot.time_s)]):
        print(line)
    print(f"total: {printable(total_text(snapshot))}")
    for name, why in sampler.discovery.missing.items():
        print(f"not used: {printable(name)}: {printable(why)}")
    return 0

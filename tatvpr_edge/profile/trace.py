"""A profile as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

JSON array format of the Trace Event Format: complete events ("X") with times and durations in
microseconds, counters ("C") for power, metadata ("M") for names. Queries are one track; the layers
of one traced query of every setting are another, laid out after the last query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PROCESS = 1
_QUERIES, _LAYERS = 1, 2


def to_trace(document: Mapping[str, Any]) -> dict[str, Any]:
    """The trace of a profile document."""
    artifact = document["artifact"]
    events: list[dict[str, Any]] = [
        _named("process_name", 0, f"{artifact['model']} on {artifact['board']}"),
        _named("thread_name", _QUERIES, "queries"),
        _named("thread_name", _LAYERS, "layers (one traced query of each setting)"),
    ]
    end_us = 0.0
    for query in document["events"]:
        start_us, took_us = query["start_s"] * 1e6, query["ms"] * 1e3
        settings = {"k": query["k"], "tokens": query["tokens"]}
        events.append(_span(query["name"], "query", _QUERIES, start_us, took_us, settings))
        end_us = max(end_us, start_us + took_us)
    for time_s, power_mw in document["power"]:
        if power_mw is not None:
            events.append(
                {
                    "name": "power",
                    "ph": "C",
                    "ts": round(time_s * 1e6, 3),
                    "pid": _PROCESS,
                    "args": {"mW": round(power_mw, 3)},
                }
            )
    cursor_us = end_us + 1000.0
    for point in document["points"]:
        if not point["layers"]:
            continue
        settings = {"k": point["k"], "tokens": point["tokens"]}
        total_us = sum(layer["ms"] for layer in point["layers"]) * 1e3
        # The sum of medians, so that the layers fill their parent exactly and never overlap it.
        name = f"layers of k={point['k']:g}, tokens={point['tokens']:g}"
        events.append(_span(name, "setting", _LAYERS, cursor_us, total_us, settings))
        for layer in point["layers"]:
            took_us = layer["ms"] * 1e3
            events.append(_span(layer["name"], "layer", _LAYERS, cursor_us, took_us, settings))
            cursor_us += took_us
        cursor_us += 1000.0
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"format": document["format"], "model_hash": artifact["model_hash"]},
    }


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {
        "name": what,
        "ph": "M",
        "ts": 0,
        "pid": _PROCESS,
        "tid": thread,
        "args": {"name": name},
    }


def _span(
    name: str, category: str, thread: int, start_us: float, took_us: float, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": round(start_us, 3),
        "dur": round(took_us, 3),
        "pid": _PROCESS,
        "tid": thread,
        "args": args,
    }

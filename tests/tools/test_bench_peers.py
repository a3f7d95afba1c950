"""tools/bench_peers.py: every engine once a round in changing order, and who is fastest at a k."""

from __future__ import annotations

import importlib

tool = importlib.import_module("bench_peers")


def test_every_call_runs_once_a_round_in_an_order_drawn_anew() -> None:
    ran: list[str] = []
    names = ("ours", "a", "b", "c")
    calls = {name: lambda name=name: ran.append(name) for name in names}
    found = tool.interleaved(calls, rounds=8)
    rounds = [tuple(ran[i : i + 4]) for i in range(4, len(ran), 4)]  # the first four warm up
    assert len(rounds) == 8 and all(sorted(order) == sorted(names) for order in rounds)
    assert len(set(rounds)) > 3
    assert len({order[order.index("ours") - 1] for order in rounds}) > 1
    assert set(found) == set(names)


def test_the_fastest_engine_is_named_with_its_lead() -> None:
    figures = {
        "ours_ms": {"1.0": 4.0, "0.2": 2.0},
        "ort_int8_ms": 3.0,
        "ort_fp32_ms": 9.0,
        "spread_ms": {},
    }
    assert tool.fastest(figures) == {
        "1.0": {"winner": "ort_int8", "next": "ours", "lead": 4.0 / 3.0},
        "0.2": {"winner": "ours", "next": "ort_int8", "lead": 1.5},
    }

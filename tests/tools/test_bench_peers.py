"""tools/bench_peers.py: every engine once a round, balanced, and who is fastest at a k."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from support.tools import require_tool

tool = importlib.import_module("bench_peers")


def test_every_call_runs_once_a_round() -> None:
    ran: list[str] = []
    names = ("ours", "a", "b", "c")
    calls = {name: lambda name=name: ran.append(name) for name in names}
    found = tool.interleaved(calls, rounds=8)
    rounds = [tuple(ran[i : i + 4]) for i in range(4, len(ran), 4)]  # the first four warm up
    assert len(rounds) == 8 and all(sorted(order) == sorted(names) for order in rounds)
    assert len(set(rounds)) >= 4
    assert set(found) == set(names)


@pytest.mark.parametrize("count", [2, 3, 12, 17])
def test_every_call_comes_as_often_after_each_other_one(count: int) -> None:
    rows = [tool.order(count, number) for number in range(2 * count)]
    after = Counter(pair for row in rows for pair in itertools.pairwise(row))
    assert set(after.values()) == {2} and len(after) == count * (count - 1)
    assert Counter(row[0] for row in rows) == dict.fromkeys(range(count), 2)


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


def test_plain_c_has_no_peak(tmp_path: Path) -> None:
    """It was AVX2's, whose loop ended ``tools/roofline.py`` on a CPU that has none."""
    source, library = Path(tool.__file__).with_name("core_bench_peak.c"), tmp_path / "peak.so"
    gcc = require_tool("gcc", "gcc")
    subprocess.run([gcc, "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    peak = ctypes.CDLL(str(library)).core_bench_peak
    peak.restype = ctypes.c_double
    assert peak(b"portable") == 0.0

#!/usr/bin/env python3
"""Map search as users call it, one thread, against faiss-cpu's flat indexes where it is installed.

    python tools/bench_search.py [--places N] [--binary-places N] [--rounds N] [--busy]

Everything goes through the public API: an artifact of ``micro`` (512 numbers a descriptor) for
this machine, maps of random places, ``Localizer.query`` less ``Localizer.describe`` of the same
frame. Prints medians of thread CPU time, taking turns, and whether the process burns CPU elsewhere
(a BLAS with threads of its own would). ``--busy`` keeps every core busy meanwhile.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from given import one_line, target, tool_parser, whole, write_json

import tatvpr_edge
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, Rows, make_places, write_map

K = 0.2
SMALL = 2000


def make_map(path: Path, kind: str, places: int, model: Any) -> Any:
    """A map of random stored rows, written without passing through floats; gives its rows."""
    rng = np.random.default_rng(0)
    dim = model.descriptor_size
    if kind == "int8":
        data = rng.integers(-127, 128, (places, dim), dtype=np.int8)
        squares = np.einsum("nd,nd->n", data, data, dtype=np.int64)
        rows = Rows(data, (1 / np.sqrt(squares.astype(np.float32))).astype(np.float32))
    else:
        rows = Rows(rng.integers(0, 256, (places, dim // 8), dtype=np.uint8), None)
    info = MapInfo(model.hash, kind, dim, (Band(1.0),))
    bare = make_places(info, [np.ones((1, dim), np.float32)])
    moments = np.repeat(bare.moments, places)
    poses = np.full((places, 7), np.nan)
    write_map(path, info, [Places((rows,), poses, ("",) * places, moments)])
    return rows.data


def faiss_call(kind: str, data: Any, query: Any) -> Callable[[], Any] | None:
    """Flat search of the same rows in faiss, one thread; None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    if kind == "int8":
        index = faiss.IndexFlatIP(data.shape[1])
        index.add(data.astype(np.float32))
        asked = query[None].astype(np.float32)
    else:
        index = faiss.IndexBinaryFlat(8 * data.shape[1])
        index.add(data)
        asked = np.packbits(query > 0, bitorder="little")[None]
    return lambda: index.search(asked, 1)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of CPU of one call: (of this thread, of the process)."""
    thread, process = time.thread_time_ns(), time.process_time_ns()
    call()
    thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
    return thread / 1e6, process / 1e6


def bench(artifact: Path, kind: str, places: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a query, less its description."""
    frame = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder, Localizer(artifact, k=K) as bare:
        path = Path(folder) / "m.placemap"
        data = make_map(path, kind, places, bare.artifact.manifest.model)
        with Localizer(artifact, path, k=K) as localizer:
            calls: dict[str, Callable[[], Any]] = {
                "query": lambda: localizer.query(frame),
                "describe": lambda: localizer.describe(frame),
            }
            theirs = faiss_call(kind, data, bare.describe(frame))
            if theirs is not None:
                calls["faiss"] = theirs
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
            for call in calls.values():
                call()
            # A query and a describe take turns; faiss has rounds of its own, because whatever ran
            # after it would find the caches full of its table.
            for turn in range(rounds):
                for name in ("query", "describe")[:: 1 if turn % 2 else -1]:
                    times[name].append(timed(calls[name]))
            for _ in range(rounds if theirs is not None else 0):
                times["faiss"].append(timed(calls["faiss"]))
    thread = {name: statistics.median(t for t, _ in pairs) for name, pairs in times.items()}
    elsewhere = statistics.median(process - own for own, process in times["query"])
    result = {
        "places": places,
        "dim": bare.descriptor_size,
        "search_ms": statistics.median(
            query - describe
            for (query, _), (describe, _) in zip(times["query"], times["describe"], strict=True)
        ),
        "describe_ms": thread["describe"],
        "other_threads_ms": elsewhere,
    }
    if "faiss" in thread:
        result["faiss_ms"] = thread["faiss"]
    return result


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Every core busy with something else, where wanted."""
    count = (os.cpu_count() or 1) if wanted else 0
    others = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()


@one_line
def main() -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--places", type=whole(1), default=100_000)
    parser.add_argument("--binary-places", type=whole(1), default=1_000_000)
    parser.add_argument("--rounds", type=whole(1), default=31)
    parser.add_argument("--artifact", type=Path, help="instead of building micro for this machine")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--json", type=target())
    arguments = parser.parse_args()
    report = []
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        artifact = arguments.artifact or tatvpr_edge.build(
            "host", model="micro", output=folder / "artifact"
        )
        held.enter_context(busy(arguments.busy))
        for kind, places in (
            *(("int8", SMALL), ("int8", arguments.places)),
            *(("binary", SMALL), ("binary", arguments.binary_places)),
            *(("weighed", SMALL), ("weighed", arguments.binary_places)),
        ):
            rounds = arguments.rounds * (10 if places == SMALL else 1)
            r = bench(artifact, kind, places, rounds)
            report.append({"kind": kind, **r})
            shown = ", faiss is not installed"
            if "faiss_ms" in r:
                shown = f", faiss {r['faiss_ms']:.3f} ms ({r['faiss_ms'] / r['search_ms']:.2f}x)"
            print(
                f"{kind} {places} x {r['dim']}: {r['search_ms']:.3f} ms above describe's "
                f"{r['describe_ms']:.3f}{shown}; {r['other_threads_ms']:.3f} ms in other threads",
                flush=True,
            )
    if arguments.json:
        write_json(arguments.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

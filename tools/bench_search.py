#!/usr/bin/env python3
"""Map search of the C core, one thread, against faiss-cpu's flat indexes where it is installed.

    python tools/bench_search.py [--places N] [--binary-places N] [--rounds N] [--json FILE]

Compiles the core's search (tatvpr_map_open, tatvpr_map_search) into a shared library of its own,
searches maps of random descriptors, and prints medians of thread CPU time, interleaved.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmark.kernels import compile_core

from tatvpr_edge.spec.placemap import Band, MapInfo, Places, Rows, write_map

DIM = 256
HASH = "00" * 32


class _Map(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("size", "kind", "dim", "bands")),
        ("places", ctypes.c_uint64),
        ("base", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    ]


class _Match(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("band", ctypes.c_uint32),
        ("place", ctypes.c_uint64),
        ("score", ctypes.c_float),
        ("accepted", ctypes.c_int32),
        ("pose", ctypes.c_double * 7),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("program", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("segments", ctypes.c_void_p),
        ("kernels", ctypes.c_void_p),
        ("costs", ctypes.c_void_p),
    ]


class Searcher:
    """One opened map and a query of it."""

    def __init__(self, library: Any, path: Path, kernels: str) -> None:
        self.library = library
        data = np.memmap(path, np.uint8, "r")
        self.data = data
        self.map = _Map(size=ctypes.sizeof(_Map))
        status = library.tatvpr_map_open(
            ctypes.byref(self.map), data.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_size_t(len(data)), None,
        )  # fmt: skip
        if status:
            raise SystemExit(f"the map was refused with status {status}")
        table = ctypes.addressof(ctypes.c_char.in_dll(library, f"tatvpr_kernels_{kernels}"))
        self.model = _Model(None, None, None, table, None)

    def search(self, descriptor: np.ndarray) -> int:
        """The best place."""
        match = _Match(size=ctypes.sizeof(_Match))
        found = ctypes.c_int32()
        status = self.library.tatvpr_map_search(
            ctypes.byref(self.map), ctypes.byref(self.model),
            descriptor.ctypes.data_as(ctypes.c_void_p), ctypes.c_float(0.2), ctypes.c_float(1.0),
            ctypes.byref(match), 1, ctypes.byref(found),
        )  # fmt: skip
        if status or found.value != 1:
            raise SystemExit(f"the search failed with status {status}")
        return int(match.place)


def make_map(folder: Path, kind: str, places: int, rng: np.random.Generator) -> tuple[Path, Any]:
    """A map of random stored rows (written without passing through floats) and its rows."""
    path = folder / f"{kind}.placemap"
    poses = np.zeros((places, 7))
    if kind == "int8":
        data = rng.integers(-127, 128, (places, DIM)).astype(np.int8)
        norms = 1 / np.sqrt((data.astype(np.float32) ** 2).sum(1))
        rows = Rows(data, norms.astype(np.float32))
    else:
        data = rng.integers(0, 256, (places, DIM // 8)).astype(np.uint8)
        rows = Rows(data, None)
    info = MapInfo(HASH, kind, DIM, (Band(0.2),))
    write_map(path, info, [Places((rows,), poses, ("",) * places)])
    return path, data


def faiss_calls(kind: str, data: np.ndarray, query: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Flat search of the same rows in faiss, one thread; empty where it is not installed."""
    try:
        import faiss
    except ImportError:
        return {}
    faiss.omp_set_num_threads(1)
    if kind == "int8":
        index = faiss.IndexFlatIP(DIM)
        index.add(data.astype(np.float32))
        asked = query[None].astype(np.float32)
    else:
        index = faiss.IndexBinaryFlat(DIM)
        index.add(data)
        asked = np.packbits(query > 0, bitorder="little")[None]
    return {"faiss": lambda: index.search(asked, 1)}


def bench(kind: str, places: int, rounds: int, library: Any, kernels: str) -> dict[str, Any]:
    """Milliseconds a query."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal(DIM).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path, data = make_map(Path(folder), kind, places, rng)
        searcher = Searcher(library, path, kernels)
        calls: dict[str, Callable[[], Any]] = {"ours": lambda: searcher.search(query)}
        calls.update(faiss_calls(kind, data, query))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.thread_time_ns()
                call()
                times[name].append((time.thread_time_ns() - start) / 1e6)
    result = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    result["places"] = places
    return result


def usable(library: Any) -> str:
    """Symbol suffix of the fastest search that this CPU can run."""
    library.tatvpr_kernels_usable.argtypes = [ctypes.c_char_p]
    for symbol, name in (("avx2", b"avx2"), ("dotprod", b"neon-dotprod"), ("neon", b"neon")):
        if library.tatvpr_kernels_usable(name):
            return symbol
    return "portable"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--places", type=int, default=100_000)
    parser.add_argument("--binary-places", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "libsearch.so"
        objects, compiler = compile_core(Path(folder), ("-fPIC", "-fvisibility=default"))
        subprocess.run([compiler, "-shared", *objects, "-o", str(shared), "-pthread"], check=True)
        library = ctypes.CDLL(str(shared))
        best = usable(library)
        report = {}
        for kind, places in (("int8", arguments.places), ("binary", arguments.binary_places)):
            report[kind] = r = bench(kind, places, arguments.rounds, library, best)
            shown = ", faiss is not installed"
            if "faiss_ms" in r:
                shown = f", faiss {r['faiss_ms']:.2f} ms ({r['faiss_ms'] / r['ours_ms']:.2f}x)"
            print(f"{kind} {places} x {DIM}: {r['ours_ms']:.2f} ms ({best}){shown}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

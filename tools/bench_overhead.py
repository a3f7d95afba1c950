"""What telemetry and the governor cost: share of a query's time, and memory.

    python tools/bench_overhead.py ARTIFACT [--root BOARD] [--seconds 20]

Runs the artifact's queries with a fixed k and with ``k="auto"`` in alternating blocks, so that a
machine that becomes slower meanwhile is slower for both. With ``--root`` the sensors are read from
a folder that looks like a board (``tests/power/board_trees.py`` makes one); without it, this
machine's own. The processor time of the sampler thread is measured apart from the queries'.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from given import as_json, one_line, real, tool_parser

from tatvpr_edge.compilers.governor import host_governor
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.governor import Governor
from tatvpr_edge.runtime.telemetry import Sampler

PROFILE = {
    "points": [
        {
            "k": k,
            "tokens": 1.0,
            "latency_ms": {"p50": 40 * k + 10, "p95": 44 * k + 11, "p99": 50 * k + 12},
            "energy_mj": 300 * k + 60,
            "macs": int(1e8 * k),
        }
        for k in (1.0, 0.6, 0.4, 0.2)
    ]
}


def per_call_us(governor: Governor, calls: int = 20_000) -> tuple[float, float]:
    """Mean microseconds of choose() and observe() as a query meets them; and of a deciding step."""
    begin = time.perf_counter()
    for _ in range(calls):
        choice = governor.choose()
        governor.observe(20.0, choice.k, choice.tokens)
    mean_us = (time.perf_counter() - begin) / calls * 1e6
    now_s = time.monotonic() + 10.0
    begin = time.perf_counter()
    for n in range(2000):
        governor.choose(now_s + n * 0.3)
    return mean_us, (time.perf_counter() - begin) / 2000 * 1e6


def sampler_share(root: str, seconds: float) -> tuple[float, float, float]:
    """Processor time of sampling as a share of one core, its interval, and microseconds a pass."""
    with Sampler(root=root) as sampler:
        interval_s = sampler.interval_s
        begin = time.process_time()
        time.sleep(seconds)
        used_s = time.process_time() - begin
        effective_s = sampler.effective_interval_s
    passes = max(1.0, seconds / max(interval_s, effective_s))
    return used_s / seconds, effective_s, used_s / passes * 1e6


def memory_bytes(root: str) -> int:
    """Python memory of a sampler with a full history and a governor that worked for a while."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    now_s = 0.0
    sampler = Sampler(root=root, clock=lambda: now_s)
    governor = Governor(
        host_governor(), PROFILE, budget="5W", telemetry=sampler, clock=lambda: now_s
    )
    for _ in range(4000):
        now_s += 0.05
        sampler.sample()
        governor.observe(20.0, governor.choose().k)
    governor.why()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used


def query_ms(artifact: str, root: str, seconds: float) -> dict[str, float]:
    """Median milliseconds of a query at the governor's k, with and without the governor."""
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    samples: dict[str, list[float]] = {"fixed": [], "auto": []}
    with (
        Sampler(root=root) as sampler,
        Localizer(artifact, k=0.2) as fixed,
        Localizer(artifact, k="auto", preset="battery-saver", telemetry=sampler) as auto,
    ):
        assert auto.governor is not None
        fixed.k = auto.governor.choose().k
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for name, localizer in (("fixed", fixed), ("auto", auto)):
                for _ in range(5):
                    begin = time.perf_counter()
                    localizer.describe(frame)
                    samples[name].append((time.perf_counter() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


@one_line
def main() -> int:
    """Exit status 0; 1 where a limit (1 % of query time, 2 MB) is exceeded."""
    parser = tool_parser(__doc__)
    parser.add_argument("artifact")
    parser.add_argument("--root", default="/", help="root of the board's sensors")
    parser.add_argument("--seconds", type=real(1, 3600), default=20.0)
    arguments = parser.parse_args()
    query = query_ms(arguments.artifact, arguments.root, arguments.seconds)
    share, interval_s, pass_us = sampler_share(arguments.root, arguments.seconds / 2)
    with Sampler(root=arguments.root) as sampler:
        governor = Governor(host_governor(), PROFILE, budget="5W", telemetry=sampler)
        call_us, step_us = per_call_us(governor)
    used = memory_bytes(arguments.root)
    # While a query runs, the sampler takes its share of one core; the governor adds its calls.
    overhead = share + call_us / 1e3 / query["fixed"]
    result: dict[str, Any] = {
        "query_ms_fixed": query["fixed"],
        "query_ms_auto": query["auto"],
        "governor_us_per_query": call_us,
        "governor_us_per_decision": step_us,
        "sampler_share_of_a_core": share,
        "sampler_interval_s": interval_s,
        "sampler_us_per_pass": pass_us,
        "overhead_of_query_time": overhead,
        "memory_bytes": used,
    }
    print(as_json(result))
    return 0 if overhead < 0.01 and used < 2_000_000 else 1


if __name__ == "__main__":
    sys.exit(main())

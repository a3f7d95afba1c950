"""Record a board's power, replay it or random boards under the governor, and plot what happened.

    python tools/governor_trials.py record --seconds 60 --output trace.csv
    python tools/governor_trials.py simulate --seed 7 --output governor.png
    python tools/governor_trials.py simulate --trace trace.csv --budget 5W --output governor.png
    python tools/governor_trials.py compare --plants 1000

``simulate`` and ``compare`` are simulation (governing.plant): no board is measured.
``simulate --trace`` takes the recorded power as the load beside which invented queries run.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from given import one_line, plot, real, target, tool_parser, whole, write_text

from governing.compare import Outcome, compare
from governing.plant import STEP_S, Plant, Trace, governor_for, random_plant, simulate
from tatvpr_edge.models.evaluate.plot import save_figure
from tatvpr_edge.runtime.governor import Budget, Kind, Reason
from tatvpr_edge.runtime.power import refuse_without_sensors
from tatvpr_edge.runtime.telemetry import Sampler
from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.lines import aligned

_LONGEST_S = 86400


def record(arguments: argparse.Namespace) -> None:
    """Total power, temperature and their conditions, one row a sample, as CSV; those until Ctrl-C,
    too. An earlier recording stays until this one is whole."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["time_s", "power_mw", "condition", "source", "hottest_c"])
    count = 0
    with Sampler(interval_s=arguments.interval, root=arguments.root) as sampler, ExitStack() as end:
        sampler.ready()
        refuse_without_sensors(sampler)
        end.callback(lambda: count and write_text(arguments.output, text.getvalue()))
        start_s, last_s = time.monotonic(), -math.inf
        while time.monotonic() < start_s + arguments.seconds:
            snapshot = sampler.latest()
            total = snapshot.total
            if total.taken_s > last_s:  # what other sensors say meanwhile is no news of it
                last_s = total.taken_s
                moment = f"{total.taken_s - start_s:.3f}"
                power = "" if total.value is None else f"{total.value:.1f}"
                hot = "" if snapshot.hottest.value is None else f"{snapshot.hottest.value:.1f}"
                rows.writerow([moment, power, total.condition.value, total.source, hot])
                count += 1
            time.sleep(arguments.interval / 4)
    print(f"{arguments.output}: {count} samples")


def read_trace(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Power in mW at every step of 0.25 s, and where the recording was blind."""
    times, powers = [], []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                times.append(float(row["time_s"]))
                powers.append(float(row["power_mw"]) if row["power_mw"] else np.nan)
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is no recorded trace ({error}): make one with 'record'") from None
    steps = np.diff(times)
    if not (np.isfinite(times).all() and (steps >= 0).all() and steps.sum() <= _LONGEST_S):
        raise DataError(
            f"{path} is no recorded trace, or several: its times are not in order, within a day"
        )
    power = np.array(powers)
    known = np.isfinite(power)
    if known.sum() < 2:
        raise DataError(f"{path} holds fewer than two readings: record for longer")
    grid = np.arange(times[0], times[-1], STEP_S)
    nearest = np.clip(np.searchsorted(times, grid), 0, len(times) - 1)
    return np.interp(grid, np.array(times)[known], power[known]), ~known[nearest]


def simulated(arguments: argparse.Namespace) -> tuple[Plant, float]:
    """The plant and the limit in mW that the arguments name."""
    plant, limit_mw = random_plant(arguments.seed, arguments.seconds)
    if arguments.trace:
        load, blind = read_trace(arguments.trace)
        # Queries are sized by the load, so that a choice of k matters beside it.
        size = float(np.median(load)) / (plant.rate_hz[0] * plant.levels[-1].energy_mj)
        levels = tuple(replace(one, energy_mj=one.energy_mj * size) for one in plant.levels)
        rate = np.full(len(load), plant.rate_hz[0])
        plant = replace(plant, levels=levels, load_mw=load, rate_hz=rate, blind=blind)
        limit_mw = float(np.median(load)) * 1.6
    if arguments.budget:
        budget = Budget.parse(arguments.budget)
        if budget.kind is not Kind.POWER:
            raise UsageError(f"--budget {arguments.budget}: simulate holds a power, such as 5W")
        limit_mw = budget.limit
    return plant, limit_mw


def simulate_one(arguments: argparse.Namespace) -> None:
    """One run, plotted."""
    plant, limit_mw = simulated(arguments)
    governor = governor_for(plant, limit_mw)
    trace = simulate(plant, governor)
    draw(plant, limit_mw, trace, arguments.output)
    worst = trace.worst_minute(limit_mw, plant.held_at_smallest(limit_mw))
    said = f"{100 * worst:.1f} % of it" if np.isfinite(worst) else "not known (none could be held)"
    print(
        f"{arguments.output}: budget {limit_mw / 1000:.2f} W, worst minute "
        f"{said}, {len(trace.switch_times_s())} switches in "
        f"{trace.time_s[-1]:.0f} s, at the end: {governor.reason.name.lower()} (simulated)"
    )


def draw(plant: Plant, limit_mw: float, trace: Trace, output: Path) -> None:
    """Power and budget above, k below, over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    width = round(5.0 / STEP_S)
    smooth = np.convolve(trace.power_mw, np.ones(width) / width, mode="same") / 1000
    above.plot(trace.time_s, trace.sensed_mw / 1000, color="#c9d3e0", lw=0.7, label="sensor")
    above.plot(trace.time_s[width:-width], smooth[width:-width], color="#2563a8", label="5 s mean")
    above.plot(trace.time_s, plant.load_mw / 1000, color="#8a94a3", lw=1, label="other loads")
    above.axhline(limit_mw / 1000, color="#b91c1c", ls="--", lw=1.2, label="budget")
    cannot = ~plant.held_at_smallest(limit_mw)
    top = 1.15 * max(float(np.nanmax(smooth)), limit_mw / 1000)
    above.fill_between(
        trace.time_s, 0, top, where=cannot, color="#fde2d2", lw=0, label="cannot be held"
    )
    above.set(ylabel="power, W", ylim=(0, top))
    above.legend(loc="lower right", ncols=5, fontsize=8, frameon=False)
    ks = np.array([level.k for level in plant.levels])
    below.step(trace.time_s, ks[trace.level], where="post", color="#2563a8")
    lost = np.array(trace.reason) == int(Reason.NO_TELEMETRY)
    below.fill_between(
        trace.time_s, 0, 1.05, where=lost, color="#e5e7eb", lw=0, label="no telemetry"
    )
    below.set(xlabel="time, s", ylabel="k", ylim=(0, 1.05), yticks=ks)
    if lost.any():
        below.legend(loc="lower right", fontsize=8, frameon=False)
    above.set_title("Governor on a simulated board", loc="left", fontsize=11)
    save_figure(figure, output, dpi=130)


def compare_all(arguments: argparse.Namespace) -> None:
    """The table of controllers."""
    print(f"{arguments.plants} simulated boards of {arguments.seconds:.0f} s; recall by k as")
    print("published for TAT-VPR BoQ on Pitts30k (k = .2 extrapolated by a parabola)")
    print(table(compare(range(arguments.plants), duration_s=arguments.seconds)))


def table(outcomes: list[Outcome]) -> str:
    """Fixed-width text, one controller a row."""
    heads = ["controller", "budget held", "worst minute", "energy used", "recall"]
    heads += ["right / J", "right / query J", "switches a minute"]
    rows = [
        [
            one.name,
            f"{100 * one.minutes_held:.1f} %",
            f"{100 * one.worst_minute:.1f} %",
            f"{100 * one.energy_used:.1f} %",
            f"{100 * one.mean_recall:.2f} %",
            f"{one.right_per_joule:.4f}",
            f"{one.right_per_query_joule:.4f}",
            str(one.most_switches_a_minute),
        ]
        for one in outcomes
    ]
    return "\n".join(aligned([heads, *rows], right=frozenset(range(1, len(heads)))))


@one_line
def main() -> int:
    """Exit status."""
    parser = tool_parser(__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    job = jobs.add_parser("record", help="the board's sensors to a CSV")
    job.add_argument("--seconds", type=real(0, _LONGEST_S), default=60.0)
    job.add_argument("--interval", type=real(0.02, 30), default=0.1, help="seconds between samples")
    job.add_argument("--root", default="/")
    job.add_argument("--output", type=target(), default="power.csv")
    job.set_defaults(do=record)
    job = jobs.add_parser("simulate", help="one simulated board under the governor, as PNG")
    job.add_argument("--seed", type=whole(0), default=7)
    job.add_argument("--seconds", type=real(1, 86400), default=300.0)
    job.add_argument("--trace", type=Path, help="a recorded CSV as the other loads")
    job.add_argument("--budget", help="such as 5W")
    job.add_argument("--output", type=plot, default="governor.png")
    job.set_defaults(do=simulate_one)
    job = jobs.add_parser("compare", help="governor, fixed choices and a threshold rule")
    job.add_argument("--plants", type=whole(1), default=1000)
    job.add_argument("--seconds", type=real(60, 86400), default=240.0)
    job.set_defaults(do=compare_all)
    arguments = parser.parse_args()
    arguments.do(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Percentiles, drift, and energy from power samples with the idle board subtracted."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governing.plant import STEP_S, FixedRule, Plant, random_plant, simulate
from tatvpr_edge.runtime.governor import Level
from tatvpr_edge.runtime.profiling.energy import energy_of_run, integrate_mj, news_of
from tatvpr_edge.runtime.profiling.measure import others_cores
from tatvpr_edge.runtime.profiling.statistics import drift_of, latency_of
from tatvpr_edge.runtime.telemetry import TimedPower

times = st.lists(st.floats(0.0, 1e4), min_size=1, max_size=200)


def curve(points: list[tuple[float, float | None]]) -> list[TimedPower]:
    return [TimedPower(time_s, power_mw) for time_s, power_mw in points]


def test_percentiles_of_known_samples() -> None:
    latency = latency_of(list(range(1, 101)))
    assert (latency.p50, latency.p95, latency.count) == (50.5, 95.05, 100)
    assert (latency.low, latency.high, latency.mean) == (1.0, 100.0, 50.5)


@given(times)
def test_percentiles_are_ordered(samples: list[float]) -> None:
    latency = latency_of(samples)
    assert latency.low <= latency.p50 <= latency.p95 <= latency.p99 <= latency.high


@pytest.mark.parametrize("wrong", [[], [1.0, math.nan], [-1.0], [math.inf]])
def test_impossible_latencies_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="finite milliseconds"):
        latency_of(wrong)


def test_drift() -> None:
    assert drift_of([10.0] * 30) == 1.0
    assert drift_of([10.0] * 20 + [15.0] * 10) == 1.5
    assert drift_of([10.0, 99.0]) == 1.0  # too few to tell
    assert drift_of([10.0] * 29 + [500.0]) == 1.0  # one slow query is no drift


def test_constant_power() -> None:
    points = curve([(t / 10, 5000.0) for t in range(101)])
    assert integrate_mj(points, 2.0, 7.0, 1.0) == pytest.approx(25_000.0)
    assert integrate_mj(points, 2.03, 6.97, 1.0) == pytest.approx(4.94 * 5000.0)


def test_a_ramp_is_integrated_exactly() -> None:
    points = curve([(t / 10, 100.0 * t / 10) for t in range(101)])
    assert integrate_mj(points, 1.05, 8.95, 1.0) == pytest.approx(50.0 * (8.95**2 - 1.05**2))


def test_a_gap_is_not_bridged() -> None:
    points = curve([(t / 10, 5000.0 if not 40 <= t < 60 else None) for t in range(101)])
    assert integrate_mj(points, 0.0, 10.0, 1.0) == "no power reading for 2.1 s within the run"
    assert integrate_mj(points, 0.0, 10.0, 3.0) == pytest.approx(50_000.0)


def test_a_gauge_that_failed_once_has_no_news() -> None:
    """Its old figure counted anew after each read that failed, five of which were an energy."""
    points = [(0.0, 5.0), (1.0, None), (2.0, 5.0), (3.0, 6.0), (4.0, None), (5.0, 6.0), (6.0, 5.0)]
    assert [point.time_s for point in news_of(curve(points))] == [0.0, 3.0, 6.0]


def test_too_few_samples() -> None:
    assert "2 power samples" in str(integrate_mj(curve([(1.0, 5.0), (2.0, 5.0)]), 0.0, 3.0, 5.0))
    assert integrate_mj([], 1.0, 1.0, 1.0) == "the run has no duration"


@given(
    st.lists(st.floats(0.0, 1e5), min_size=20, max_size=60),
    st.floats(0.3, 0.7),
)
def test_energy_of_two_parts_is_the_energy_of_the_whole(powers: list[float], share: float) -> None:
    points = curve([(n * 0.1, power) for n, power in enumerate(powers)])
    end_s = (len(powers) - 1) * 0.1
    middle_s = share * end_s
    parts = [integrate_mj(points, a, b, 10.0) for a, b in ((0.0, middle_s), (middle_s, end_s))]
    whole = integrate_mj(points, 0.0, end_s, 10.0)
    assert sum(float(part) for part in parts) == pytest.approx(float(whole), rel=1e-6, abs=1e-6)


def plant_with(load_mw: float, energy_mj: float, rate_hz: float) -> Plant:
    steps = round(60.0 / STEP_S)
    level = Level(1.0, 1.0, 20.0, 22.0, energy_mj)
    return Plant((level,), np.full(steps, load_mw), np.full(steps, rate_hz), sensor_noise=0.02)


def test_the_plants_energy_per_query_is_found_again() -> None:
    plant = plant_with(load_mw=2000.0, energy_mj=300.0, rate_hz=8.0)
    trace = simulate(plant, FixedRule(0))
    points = curve(list(zip(trace.time_s, trace.sensed_mw, strict=True)))
    queries = int(trace.queries[40:200].sum())
    energy = energy_of_run(points, trace.time_s[39], trace.time_s[199], queries, 2000.0, 1.0)
    assert energy.net_mj == pytest.approx(300.0, rel=0.05)
    assert energy.gross_mj == pytest.approx(300.0 + 2000.0 / 8.0, rel=0.05)


def test_queries_that_do_not_stand_out_have_no_energy() -> None:
    points = curve([(t / 10, 5000.0) for t in range(101)])
    energy = energy_of_run(points, 0.0, 10.0, 50, 4990.0, 1.0)
    assert energy.net_mj is None
    assert "do not stand out" in energy.note
    assert energy.gross_mj == pytest.approx(1000.0)


def test_unknown_idle_power_leaves_the_net_energy_unknown() -> None:
    points = curve([(t / 10, 5000.0) for t in range(101)])
    energy = energy_of_run(points, 0.0, 10.0, 50, None, 1.0)
    assert (energy.net_mj, energy.note) == (None, "the idle power is not known")


def test_plants_are_reproducible() -> None:
    first, second = (simulate(random_plant(3)[0], FixedRule(1)) for _ in range(2))
    assert np.array_equal(first.power_mw, second.power_mw)
    assert np.array_equal(first.sensed_mw, second.sensed_mw)


def test_a_run_of_a_few_ticks_blames_no_other_program_for_them() -> None:
    tick_s, cores = 1 / os.sysconf("SC_CLK_TCK"), os.cpu_count() or 1
    assert others_cores(tick_s * cores, 4 * tick_s) == 0.0  # a fourth of all cores was said
    assert math.isclose(others_cores(6.0 * cores, 6.0), cores, rel_tol=0.01)

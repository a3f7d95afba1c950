"""The governor's rules as its page and header state them, with the outcome worked out by hand: what
fits, what counts as measured. When it switches: `governor_rules_switching`.

Each rule is a function of the compiled governor, so that the same rules judge the governor that
ships and copies of it with one rule changed (`test_governor_rules`). Nothing here was written by
the code under test: the numbers follow from the profile in `governor_bench` and the text of the
rule.
"""

from __future__ import annotations

import math

from governor_bench import (
    LEVELS,
    STEP_S,
    Bench,
    World,
    blind,
    latency,
    near,
    power,
    rule,
    switches,
)
from governor_scenarios import NAN, UNMEASURED

from tatvpr_edge.runtime.governor import (
    GovernorCore,
    Inputs,
    Kind,
    Preference,
    Reason,
)

# ---- what fits --------------------------------------------------------------------------------


@rule
def a_budget_is_aimed_at_three_percent_below(core: GovernorCore) -> None:
    """And one percent with "turbo", a fifth with "battery-saver"; the top level costs 400 mJ."""
    for preference, too_little, enough in (
        (Preference.BALANCED, 412.0, 413.0),
        (Preference.TURBO, 404.0, 405.0),
        (Preference.SAVER, 499.0, 500.0),
    ):
        for limit_mj, level in ((too_little, 2), (enough, 3)):
            bench = Bench(core, Kind.ENERGY, limit_mj, preference=preference)
            bench.run(10.0, lambda _: {"queries": 1.0, "busy_ms": 30.0})
            assert bench.level == level, (preference, limit_mj)


@rule
def a_power_budget_takes_the_highest_level_that_fits_beside_the_load(core: GovernorCore) -> None:
    """Queries draw 480, 760, 1040 or 1600 mW at four a second; 3 % of 3000 stay free."""
    for base_mw, level in ((1300.0, 3), (1320.0, 2), (1860.0, 2), (1880.0, 1), (2160.0, 0)):
        bench = Bench(core, Kind.POWER, 3000.0)
        bench.run(20.0, power(base_mw))
        assert bench.level == level, base_mw


@rule
def a_search_counts_in_a_latency_budget_and_no_level_makes_it_shorter(core: GovernorCore) -> None:
    """50 ms of search varying as the rest (66 / 60) are 55: 99 at level 2, 88 at level 1."""
    for limit_ms, level in ((90.0, 0), (92.0, 1), (100.0, 1), (103.0, 2), (124.0, 2), (126.0, 3)):
        bench = Bench(core, Kind.LATENCY, limit_ms)
        bench.run(60.0, latency(search_ms=50.0))
        assert bench.level == level, limit_ms
    bench = Bench(core, Kind.LATENCY, 50.0)
    bench.run(10.0, latency(search_ms=72.0))
    assert (bench.level, bench.governor.reason) == (0, Reason.IMPOSSIBLE)
    figures = bench.governor.look(bench.now_s)
    assert near(figures.query_ms, 92.0, 1e-9) and near(figures.search_ms, 72.0, 1e-9)
    assert near(figures.latency_ratio, 1.0, 1e-9)


@rule
def a_search_counts_where_no_latency_was_profiled(core: GovernorCore) -> None:
    bench = Bench(core, Kind.LATENCY, 60.0, UNMEASURED, safe=3)
    bench.run(30.0, lambda _: {"queries": 1.0, "busy_ms": 10.0, "search_ms": 52.0})
    assert (bench.level, bench.governor.reason) == (0, Reason.IMPOSSIBLE)


@rule
def time_in_searches_saturates_a_board_too(core: GovernorCore) -> None:
    """Never idle: 20 + 180 ms a query are five a second; at 60 + 180 they would be 4.17."""
    bench = Bench(core, Kind.POWER, 700.0, safe=0)
    bench.run(
        40.0,
        lambda _: {"power_mw": 700.0, "queries": 1.25, "busy_ms": 25.0, "search_ms": 225.0},
    )
    assert bench.level == 0
    figures = bench.governor.look(bench.now_s)
    assert near(figures.query_mw, 600.0, 5.0)
    # base 100 + 190 mJ x 5 x 200 / 210 a second
    assert near(figures.next_needs, 100.0 + 904.8, 10.0)


@rule
def what_the_next_level_needs_is_known_where_levels_can_be_predicted(core: GovernorCore) -> None:
    def world(_: int) -> dict[str, float]:
        return {"power_mw": 29.0, "temperature_c": 29.0, "queries": 1.0, "busy_ms": 20.0}

    for kind in (Kind.POWER, Kind.LATENCY, Kind.TEMPERATURE):
        for levels in (LEVELS, UNMEASURED):
            bench = Bench(core, kind, 30.0, levels)
            assert math.isnan(bench.governor.look(bench.now_s).next_needs)
            bench.run(5.0, world)
            assert bench.level == 0
            told = levels is LEVELS and kind is not Kind.TEMPERATURE
            assert math.isnan(bench.governor.look(bench.now_s).next_needs) != told


def asked(rate_hz: float, base_mw: float) -> World:
    """Queries asked for at a rate, of which the board makes as many as it can."""

    def world(level: int) -> dict[str, float]:
        made_hz = min(rate_hz, 1000.0 / LEVELS[level].p50_ms)
        made = made_hz * STEP_S
        power_mw = base_mw + made_hz * LEVELS[level].energy_mj
        return {"power_mw": power_mw, "queries": made, "busy_ms": made * LEVELS[level].p50_ms}

    return world


@rule
def a_board_that_is_never_idle_makes_more_queries_at_a_lower_level(core: GovernorCore) -> None:
    """500 mW more, and of 6333 to 6667 mW for queries only level 0 (6000) keeps to 6693."""
    bench = Bench(core, Kind.POWER, 6900.0)
    bench.run(STEP_S, lambda _: {"power_mw": 6000.0})
    bench.run(20.0, asked(500.0, 0.0))
    assert bench.level == 3
    assert [level for _, level in switches(bench.run(40.0, asked(500.0, 500.0)), 3)] == [0]


@rule
def a_level_makes_no_more_queries_than_it_has_time_for(core: GovernorCore) -> None:
    """30 a second at level 0 are 16.7 at level 3: 6667 mW beside 500, not 12000."""
    bench = Bench(core, Kind.POWER, 7500.0)
    bench.run(20.0, asked(30.0, 500.0))
    assert bench.level == 3


# ---- what counts as measured ------------------------------------------------------------------


@rule
def telemetry_is_lost_after_two_seconds(core: GovernorCore) -> None:
    for kind, world, limit in (
        (Kind.POWER, power(1000.0), 9000.0),
        (Kind.TEMPERATURE, lambda _: {"temperature_c": 30.0, "queries": 1.0}, 90.0),
    ):
        bench = Bench(core, kind, limit, safe=1)
        bench.run(70.0, world)
        assert bench.level == 3
        log = bench.run(4.0, blind(world))
        for at_s, level, reason in log:
            lost = at_s > 2.0
            assert level == (1 if lost else 3), (kind, at_s)
            assert (reason is Reason.NO_TELEMETRY) == lost


@rule
def an_old_a_negative_and_a_zero_power_are_no_telemetry(core: GovernorCore) -> None:
    """A board that runs this code draws something; of unknown age is as good as old."""
    for wrong in (
        {"power_mw": 1500.0, "power_age_s": 2.01},
        {"power_mw": 1500.0, "power_age_s": NAN},
        {"power_mw": -200.0},
        {"power_mw": 0.0},
    ):
        bench = Bench(core, Kind.POWER, 9000.0, safe=1)
        bench.run(5.0, lambda _, wrong=wrong: wrong | {"queries": 1.0, "busy_ms": 30.0})
        assert (bench.level, bench.governor.reason) == (1, Reason.NO_TELEMETRY), wrong


@rule
def what_was_read_at_an_unknown_time_does_not_last(core: GovernorCore) -> None:
    """The governor is blind as long after the last reading of known age as after the last one."""
    for kind, unit, limit, blind_s in (
        (Kind.POWER, "power", 9000.0, 2.0),
        (Kind.TEMPERATURE, "temperature", 90.0, 2.0),
        (Kind.BATTERY, "battery", 7200.0, 90.0),
    ):
        bench = Bench(core, kind, limit, safe=1)

        def world(level: int) -> dict[str, float]:
            return power(500.0)(level) | {"temperature_c": 30.0, "battery_mj": 60_000_000.0}

        bench.run(70.0, world)
        assert bench.level == 3, kind
        log = bench.run(100.0, lambda n, w=world, unit=unit: w(n) | {f"{unit}_age_s": NAN})
        assert all(level == (1 if at_s > blind_s else 3) for at_s, level, _ in log), kind


@rule
def queries_of_unknown_number_or_time_are_as_good_as_none(core: GovernorCore) -> None:
    """They leave no trace: what is known again counts as before."""
    bench = Bench(core, Kind.POWER, 9000.0)
    bench.run(120.0, power(1000.0))
    for unknown in ("queries", "busy_ms", "search_ms"):
        bench.run(1.0, lambda n, unknown=unknown: power(1000.0)(n) | {unknown: NAN})
        bench.run(120.0, power(1000.0))
        assert bench.level == 3, unknown
        figures = bench.governor.look(bench.now_s)
        assert near(figures.rate_hz, 4.0, 0.01) and near(figures.latency_ratio, 1.0, 1e-9), unknown


@rule
def a_step_at_an_unknown_time_is_none(core: GovernorCore) -> None:
    for unknown_s in (NAN, math.inf, -math.inf):
        bench, other = Bench(core, Kind.POWER, 9000.0), Bench(core, Kind.POWER, 9000.0)
        for one in (bench, other):
            one.run(30.0, power(1000.0))
        assert bench.governor.step(Inputs(unknown_s, **power(9500.0)(3))) == bench.level == 3
        assert bench.run(20.0, power(8000.0)) == other.run(20.0, power(8000.0)), unknown_s
        assert bench.level < 3


@rule
def a_fuel_gauge_may_be_silent_for_a_minute_and_a_half(core: GovernorCore) -> None:
    bench = Bench(core, Kind.BATTERY, 7200.0, safe=1)
    bench.run(20.0, lambda n: power(500.0)(n) | {"battery_mj": 60_000_000.0})
    assert bench.level == 3
    log = bench.run(95.0, power(500.0))
    assert all(level == 3 for at_s, level, _ in log if at_s <= 90.0)
    assert all(level == 1 for at_s, level, _ in log if at_s > 90.0)


@rule
def a_battery_is_divided_by_the_time_that_is_left(core: GovernorCore) -> None:
    """An hour from 7,200 J is 2 W; the last minute is never divided by less than a minute."""
    bench = Bench(core, Kind.BATTERY, 3600.0, step_s=0.5)
    left_mj = 7_200_000.0

    def world(level: int) -> dict[str, float]:
        return power(500.0)(level) | {"battery_mj": left_mj}

    bench.run(0.5, world)
    assert near(bench.governor.look(bench.now_s).limit, 2000.0, 0.5)
    left_mj = 1_800_000.0
    bench.run(1800.0, world)
    assert near(bench.governor.look(bench.now_s).limit, 1000.0, 0.5)
    left_mj = 60_000.0
    bench.run(1770.0, world)  # 30 s are left
    assert near(bench.governor.look(bench.now_s).limit, 1000.0, 0.5)
    bench.run(600.0, world)  # it lasted: the last limit stays
    assert near(bench.governor.look(bench.now_s).limit, 1000.0, 0.5)


@rule
def the_rate_follows_within_eight_seconds(core: GovernorCore) -> None:
    bench = Bench(core, Kind.POWER, 9000.0)
    bench.run(120.0, power(1000.0))
    assert near(bench.governor.look(bench.now_s).rate_hz, 4.0, 0.01)
    bench.run(8.0, lambda _: {"power_mw": 1000.0})
    assert near(bench.governor.look(bench.now_s).rate_hz, 4.0 / math.e, 0.05)


@rule
def a_pause_between_steps_leaves_the_rate_as_it_was(core: GovernorCore) -> None:
    """A sensor that hangs holds the steps up, not the queries, which were not made at once."""
    for pause_s, made_hz in ((5.0, 4.0), (15.0, 4.0), (60.0, 4.0), (60.0, 0.0), (-9.0, 4.0)):
        bench = Bench(core, Kind.POWER, 3000.0)
        bench.run(120.0, power(1000.0))
        assert bench.level == 3
        bench.now_s += pause_s - STEP_S
        made = made_hz * abs(pause_s)
        meanwhile = power(1000.0)(3) | {"queries": made, "busy_ms": 60.0 * made}
        bench.run(STEP_S, lambda _, meanwhile=meanwhile: meanwhile)
        assert near(bench.governor.look(bench.now_s).rate_hz, 4.0, 0.01), pause_s
        assert not switches(bench.run(60.0, power(1000.0)), 3), pause_s


@rule
def a_switch_teaches_what_a_query_really_costs(core: GovernorCore) -> None:
    for true_gain, limit_mw, other_mw, low, high in (
        (1.35, 2600.0, 1400.0, 1.12, 1.45),
        (4.0, 9000.0, 3000.0, 1.4, 2.0),  # at most twofold,
        (0.1, 1700.0, 1500.0, 0.7, 0.8),  # at least half
    ):
        bench = Bench(core, Kind.POWER, limit_mw)
        for seconds, base_mw in ((30.0, 500.0), (60.0, other_mw), (120.0, 500.0)):
            bench.run(seconds, power(base_mw, true_gain))
        learned = bench.governor.look(bench.now_s).query_mj / LEVELS[bench.level].energy_mj
        assert low <= learned <= high, (true_gain, learned)


# ---- presets and what is not known ------------------------------------------------------------


@rule
def without_a_budget_the_preset_names_the_level(core: GovernorCore) -> None:
    for preference, level in ((Preference.TURBO, 3), (Preference.SAVER, 0)):
        bench = Bench(core, Kind.NONE, 0.0, preference=preference, safe=1)
        bench.run(1.0, power(1000.0))
        assert (bench.level, bench.governor.reason) == (level, Reason.PRESET)


@rule
def an_energy_budget_without_measured_energies_is_the_safe_level(core: GovernorCore) -> None:
    bench = Bench(core, Kind.ENERGY, 300.0, UNMEASURED, safe=1)
    bench.run(1.0, power(1000.0))
    assert (bench.level, bench.governor.reason) == (1, Reason.NO_COST)
    bench = Bench(core, Kind.ENERGY, 100.0)
    bench.run(1.0, power(1000.0))
    assert (bench.level, bench.governor.reason) == (0, Reason.IMPOSSIBLE)

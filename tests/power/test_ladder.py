"""What the governor makes of an artifact's measured profile."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.compilers.governor import host_governor
from tatvpr_edge.runtime.governor import GovernorCore, Kind, Ladder, ladder_from_profile
from tatvpr_edge.runtime.governor.level import nearest_level
from tatvpr_edge.spec.errors import ArtifactError, UsageError
from tatvpr_edge.spec.limits import DEFAULT_KS


def point(k: float, ms: float, mj: float | None = None, tokens: float = 1.0, **more: Any) -> dict:
    latency = {"p50": ms, "p95": ms * 1.1, "p99": ms * 1.2}
    return {"k": k, "tokens": tokens, "latency_ms": latency, "energy_mj": mj, "macs": 1, **more}


def profile(*points: dict) -> dict:
    return {"device": {}, "points": list(points)}


def ladder(
    profile: dict | None, k_range: tuple[float, float] = (0.0, 1.0), kind: Kind = Kind.POWER
) -> Ladder:
    return ladder_from_profile(host_governor(), profile, k_range, kind)


def settings(*points: dict, kind: Kind = Kind.POWER) -> list[tuple[float, float]]:
    return [(level.k, level.tokens) for level in ladder(profile(*points), kind=kind).levels]


def test_points_become_levels_in_ascending_cost() -> None:
    made = ladder(profile(point(1.0, 60, 400), point(0.2, 20, 120), point(0.6, 40, 260)))
    assert made.measured
    assert [(level.k, level.energy_mj) for level in made.levels] == [
        (0.2, 120),
        (0.6, 260),
        (1.0, 400),
    ]


@pytest.mark.parametrize("nothing", [None, {}, {"device": {}, "points": []}])
def test_without_points_the_default_levels_and_nothing_known(nothing: dict | None) -> None:
    made = ladder(nothing)
    assert not made.measured
    assert tuple(level.k for level in made.levels) == DEFAULT_KS
    assert all(math.isnan(level.p50_ms) and math.isnan(level.energy_mj) for level in made.levels)


def test_levels_stay_inside_the_artifacts_range() -> None:
    assert [level.k for level in ladder(None, (0.3, 0.7)).levels] == [0.4, 0.6]
    assert [level.k for level in ladder(None, (0.21, 0.25)).levels] == [0.25]
    points = profile(point(0.2, 20), point(0.6, 40))
    assert [level.k for level in ladder(points, (0.5, 1.0)).levels] == [0.6]


def test_without_points_no_level_that_saves_nothing_here() -> None:
    """A core whose dense product runs from k = .45 on takes no less for .6 than for 1."""

    def ks(below: float, k_range: tuple[float, float] = (0.0, 1.0)) -> list[float]:
        made = ladder_from_profile(host_governor(), None, k_range, pays_below=below)
        return [level.k for level in made.levels]

    assert ks(0.45) == [0.2, 0.4, 1.0]
    assert ks(0.3) == [0.2, 1.0]
    assert ks(0.0) == [1.0]
    assert ks(0.45, (0.3, 0.7)) == [0.4, 0.6]


def test_tokens_are_given_up_after_k_where_recall_is_not_known() -> None:
    assert settings(
        point(1.0, 60), point(1.0, 35, tokens=0.5), point(0.2, 20), point(0.2, 12, tokens=0.5)
    ) == [(0.2, 0.5), (0.2, 1.0), (1.0, 1.0)]


def test_measured_recall_decides_what_is_given_up() -> None:
    assert settings(
        point(1.0, 60, recall=0.9),
        point(1.0, 35, tokens=0.5, recall=0.89),
        point(0.2, 20, recall=0.6),
        point(0.2, 12, tokens=0.5, recall=0.5),
    ) == [(0.2, 0.5), (0.2, 1.0), (1.0, 0.5), (1.0, 1.0)]


def test_a_costlier_setting_that_recalls_no_more_is_left_out() -> None:
    assert settings(point(1.0, 60, recall=0.90), point(0.6, 40, recall=0.91)) == [(0.6, 1.0)]
    assert settings(point(1.0, 40), point(0.6, 45), point(0.2, 20)) == [(0.2, 1.0), (1.0, 1.0)]


def test_throttled_runs_are_not_used() -> None:
    assert settings(point(1.0, 60), point(0.6, 300, valid=False), point(0.2, 20)) == [
        (0.2, 1.0),
        (1.0, 1.0),
    ]


def test_a_throttled_end_stays_as_a_level_of_unknown_cost() -> None:
    made = ladder(profile(point(1.0, 60), point(0.2, 300, valid=False)))
    assert made.measured
    assert [level.k for level in made.levels] == [0.2, 1.0]
    assert math.isnan(made.levels[0].p50_ms)
    assert made.levels[1].p50_ms == 60


def test_a_level_of_unknown_cost_hides_no_costlier_ones_below_it() -> None:
    """Where a lower k costs more than a larger one, as on cores whose dense product runs at both,
    it is no level, whatever was throttled between them."""
    made = settings(
        point(1.0, 60),
        point(0.9, 300, valid=False),
        point(0.8, 61),
        point(0.6, 59.5),
        point(0.2, 300, valid=False),
    )
    assert made == [(0.2, 1.0), (0.9, 1.0), (1.0, 1.0)]


def test_runs_beside_other_programs_count_on_request_and_throttled_ones_never() -> None:
    measured = profile(
        point(1.0, 60),
        point(0.6, 70, valid=False, invalid="throttled"),
        point(0.4, 30, valid=False, busy=True, others_cores=1.5),
        point(0.2, 20),
    )
    assert [level.k for level in ladder(measured).levels] == [0.2, 1.0]
    on_request = ladder_from_profile(host_governor(), measured, busy=True)
    assert [level.k for level in on_request.levels] == [0.2, 0.4, 1.0]


def test_a_dial_that_does_not_pay_is_named_and_not_moved() -> None:
    k_is_dead = [point(1.0, 121.5), point(0.2, 125.0), point(1.0, 84.0, tokens=0.5)]
    made = ladder(profile(*k_is_dead))
    assert [(level.k, level.tokens) for level in made.levels] == [(1.0, 0.5), (1.0, 1.0)]
    assert made.note == "k stays at 1, because less does not pay on this board: tokens moves"
    assert "profile with --tokens" in ladder(profile(*k_is_dead[:2])).note
    assert ladder(profile(point(1.0, 60), point(0.2, 20))).note == ""


def test_null_and_impossible_costs_are_unknown() -> None:
    for value in (None, 0, -5, math.nan, math.inf):
        made = ladder(profile(point(1.0, 60, value)))
        assert made.measured
        assert math.isnan(made.levels[0].energy_mj)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 3},
        {"points": "k"},
        profile({"tokens": 1.0}),
        profile({"k": "fast"}),
        profile({"k": 10**400}),
        profile({"k": 1.0, "energy_mj": 10**400}),
        profile({"k": 1.0, "latency_ms": 5}),
        profile({"k": 0.0}),
        profile({"k": 0.5, "tokens": 1.5}),
        profile(None),  # type: ignore[arg-type]
    ],
)
def test_malformed_profiles_are_refused(wrong: dict) -> None:
    with pytest.raises(ArtifactError, match="profile"):
        ladder(wrong)


numbers = st.floats(1.0, 1000.0)
fractions = st.sampled_from([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
points = st.lists(
    st.builds(
        lambda k, t, ms, mj, recall: point(k, ms, mj, t, recall=recall),
        fractions,
        fractions,
        numbers,
        st.none() | numbers,
        st.none() | st.floats(0.01, 1.0),
    ),
    min_size=1,
    max_size=49,
)


@given(points)
def test_each_level_costs_less_and_finds_no_better_than_the_next(measured: list[dict]) -> None:
    levels = ladder(profile(*measured)).levels
    assert 1 <= len(levels) <= GovernorCore.max_levels
    distinct = {(one["k"], one["tokens"]): one for one in measured}.values()
    energies = all(one["energy_mj"] is not None for one in distinct)
    costs = [level.energy_mj if energies else level.p50_ms for level in levels]
    recalls = all(one["recall"] is not None for one in distinct)
    for at, (low, high) in enumerate(itertools.pairwise(levels)):
        assert (low.k, low.tokens) != (high.k, high.tokens)
        assert costs[at] <= 0.98 * costs[at + 1] * (1 + 1e-12)
        if recalls:
            assert low.recall <= high.recall
        else:
            assert low.k <= high.k and low.tokens <= high.tokens


@given(points)
def test_where_recall_is_known_nothing_left_out_is_cheaper_and_better(measured: list[dict]) -> None:
    known = [one for one in measured if one["recall"] is not None]
    levels = ladder(profile(*known), kind=Kind.LATENCY).levels if known else ()
    distinct = {(one["k"], one["tokens"]): one for one in known}.values()
    for one in distinct if len(levels) < GovernorCore.max_levels else ():
        cost, found = one["latency_ms"]["p50"], one["recall"]
        assert any(level.p50_ms * 0.98 <= cost and level.recall >= found for level in levels)


def test_the_level_that_a_user_names() -> None:
    levels = ladder(None).levels
    assert [levels[nearest_level(levels, k)].k for k in (0.01, 0.25, 0.5, 0.9)] == [
        0.2,
        0.2,
        0.4,
        1.0,
    ]
    for k in (0.0, 1.5, math.nan, "fast"):
        with pytest.raises(UsageError, match="fraction"):
            nearest_level(levels, k)  # type: ignore[arg-type]

"""Probabilities that hold, and thresholds that keep the precision, learned from answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate_answers import Answers, AtSetting
from tatvpr_edge.mapping.calibrate_sequences import fit_sequences
from tatvpr_edge.mapping.logistic import (
    auroc,
    average_precision,
    choose_threshold,
    expected_calibration_error,
    fit_weights,
    log_odds,
    recall_at_full_precision,
)
from tatvpr_edge.spec.calibration import NO_DIALS, Calibration, dimming

RNG = np.random.default_rng


def drawn(count: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:  # type: ignore[type-arg]
    """Scores and margins whose truth follows known log-odds 1 + 2 score + 8 margin."""
    rng = RNG(seed)
    scores, margins = rng.uniform(-1, 1, count), rng.uniform(-0.3, 0.4, count)
    odds = log_odds((-1.0, 2.0, 8.0), scores, margins)
    return scores, margins, rng.random(count) < 1 / (1 + np.exp(-odds))


# ---- the fit ---------------------------------------------------------------------------------


def test_the_weights_that_made_the_answers_are_found() -> None:
    scores, margins, right = drawn(40_000, 1)
    assert fit_weights(scores, margins, right) == pytest.approx((-1, 2, 8), abs=0.25)


def test_its_probabilities_hold_on_answers_that_it_never_saw() -> None:
    weights = fit_weights(*drawn(20_000, 1))
    scores, margins, right = drawn(20_000, 2)
    confidence = 1 / (1 + np.exp(-log_odds(weights, scores, margins)))
    assert expected_calibration_error(confidence, right) < 0.02


def test_what_k_counts_is_learned_where_several_are_asked() -> None:
    """Scores that fall with k are as good there, and the same where they do not fall."""
    rng, ks = RNG(5), np.repeat([1.0, 0.4, 0.2], 10_000)
    scores, margins, right = drawn(len(ks), 3)
    fallen = scores - 0.25 * np.array([dimming(k) for k in ks])
    parts = rng.permutation(len(ks)) < 15_000

    def of(scores: NDArray, chosen: NDArray) -> Answers:  # type: ignore[type-arg]
        columns = np.stack([scores, margins], axis=1)
        one_band, known = np.zeros(len(ks), np.int64), np.ones(len(ks), np.bool_)
        made = Answers(one_band, ks, known * 1.0, columns, right, known, one_band)
        return made.where(chosen)

    weights, dials = of(fallen, parts).learn()
    assert (dials.least_k_percent, dials.tokens, dials.least_tokens_percent) == (20, 0, 0)
    assert (*weights, dials.k) == pytest.approx((-1, 2, 8, 0.5), abs=0.4)
    for k in (1.0, 0.4, 0.2):
        judged = of(fallen, ~parts & (ks == k))
        confidence = 1 / (1 + np.exp(-judged.odds(weights, dials)))
        assert expected_calibration_error(confidence, judged.right) < 0.03
    assert of(scores, parts).learn()[1].k == pytest.approx(0, abs=0.15)
    alone = of(fallen, ks == 0.2).learn()
    assert alone[1] == NO_DIALS and alone[0] == pytest.approx(
        (-1 + 0.5 * dimming(0.2), 2, 8), abs=0.4
    )


def test_what_a_map_keeps_as_all_of_k_teaches_nothing_of_k() -> None:
    """k = .995 rounds to 1: a weight would say nothing, and old readers would refuse the map."""
    ks = np.repeat([1.0, 0.995], 1000)
    scores, margins, right = drawn(len(ks), 3)
    columns, known = np.stack([scores, margins], axis=1), np.ones(len(ks), np.bool_)
    answers = Answers(np.zeros(len(ks), np.int64), ks, ks, columns, right, known, 0 * right)
    assert answers.learn()[1] == NO_DIALS


def test_what_is_accepted_is_told_of_each_setting() -> None:
    rows = [
        (0, (1.0, 1.0), (0.9, 0.4), True, True, 0),
        (0, (1.0, 1.0), (0.8, 0.3), False, False, 0),
        (0, (0.2, 1.0), (0.7, 0.2), True, True, 0),
        (0, (0.2, 1.0), (0.6, 0.1), False, True, 0),
        (0, (0.2, 1.0), (0.6, 0.1), False, False, 0),
        (0, (0.4, 0.5), (0.5, 0.1), False, True, 0),
        (0, (0.3, 0.5), (0.5, 0.1), False, False, 0),  # nothing there was to be found
    ]
    answers = Answers.of(rows, 2)
    told = answers.by_setting(np.array([True, True, True, False, True, False, True]))
    assert told == (
        AtSetting(1.0, 1.0, 1.0, 2, 1),
        AtSetting(0.2, 1.0, 0.5, 2, 1),
        AtSetting(0.4, 0.5, 0.0, 0, 0),
    )


def test_answers_that_part_cleanly_give_finite_weights_that_part_them() -> None:
    scores = np.linspace(-1, 1, 100)
    right = scores > 0
    weights = fit_weights(scores, np.zeros(100), right)
    assert np.isfinite(weights).all()
    assert ((log_odds(weights, scores, np.zeros(100)) > 0) == right).all()


@given(st.integers(0, 2**32 - 1), st.integers(30, 400), st.sampled_from((0.8, 0.95)))
def test_a_threshold_keeps_the_precision_on_what_it_saw_or_says_it_cannot(
    seed: int, count: int, precision: float
) -> None:
    rng = RNG(seed)
    odds = np.round(rng.normal(0, 2, count), 1)
    right = rng.random(count) < 1 / (1 + np.exp(-odds))
    made = choose_threshold(odds, right, precision)
    accepted = odds >= made.threshold
    assert accepted.sum() == made.accepted
    if made.reached:
        assert (~right[accepted]).sum() + 1 <= (1 - precision) * accepted.sum() + 1e-9
    else:
        assert made.accepted == 0


def test_answers_that_are_likelier_wrong_than_right_are_never_accepted() -> None:
    """Where hardly any answer is wrong, any threshold would keep the precision."""
    odds = np.linspace(-3, 3, 601)
    surely = choose_threshold(odds, odds > -2.9, 0.9)
    assert surely.reached and surely.threshold == 0 and surely.accepted == (odds >= 0).sum()
    never = choose_threshold(odds - 10, np.ones(601, bool), 0.5)
    assert not never.reached and never.threshold > 0 and never.accepted == 0


def test_a_threshold_keeps_the_precision_on_answers_that_it_never_saw() -> None:
    kept = accepted = 0
    for seed in range(40):
        scores, margins, right = drawn(400, seed)
        weights = fit_weights(scores, margins, right)
        limit = choose_threshold(log_odds(weights, scores, margins), right, 0.9).threshold
        scores, margins, right = drawn(400, seed + 1000)
        taken = log_odds(weights, scores, margins) >= limit
        accepted, kept = accepted + taken.sum(), kept + right[taken].sum()
    assert accepted > 1000 and kept / accepted > 0.89


def test_measures_are_those_worked_out_by_hand() -> None:
    values, right = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False])
    assert auroc(values, right) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert average_precision(values, right) == pytest.approx((1 + 2 / 3) / 2)
    assert recall_at_full_precision(values, right) == 0.5
    # bins .8 (two: one right), .9 and .1: |1.6 - 1| + |.9 - 1| + |.1 - 0| of 4
    assert expected_calibration_error(values, right) == pytest.approx(0.8 / 4)
    assert np.isnan(auroc(values, np.ones(4, bool)))


# ---- answers that are right or wrong together ------------------------------------------------


def along_walls(rng: np.random.Generator, walls: int, each: int, told: float) -> Answers:
    """Answers along paths, which look alike along each and are all right or all wrong; the first
    number counts ``told`` in the log-odds of its truth, the others nothing."""
    looks = rng.normal(size=(walls, 5))
    right = rng.random(walls) < 1 / (1 + np.exp(-told * looks[:, 0]))
    at = np.repeat(np.arange(walls), each)
    columns = looks[at] + 0.1 * rng.normal(size=(len(at), 5))
    ones = np.ones(len(at))
    return Answers(0 * at, ones, ones, columns, right[at], ones > 0, at)


def test_few_paths_that_say_nothing_teach_nothing_to_accept() -> None:
    """Weights suit the few paths that they were learned from; judged by them, a threshold kept the
    precision there, and let an eighth of other paths pass."""
    rng, accepted, asked = RNG(0), 0, 0
    for _ in range(20):
        report = fit_sequences(along_walls(rng, 30, 60, told=0.0), 0, 5, 0.9)
        assert report is not None
        made, others = report.calibration, along_walls(rng, 400, 5, told=0.0)
        accepted += int((others.odds(made.weights, made.dials) >= made.threshold).sum())
        asked += len(others)
    assert accepted < 0.03 * asked


def test_paths_that_say_much_are_accepted_where_they_were_not_seen() -> None:
    rng = RNG(1)
    report = fit_sequences(along_walls(rng, 1000, 10, told=6.0), 0, 5, 0.9)
    assert report is not None and report.reached
    made, others = report.calibration, along_walls(rng, 2000, 5, told=6.0)
    taken = others.odds(made.weights, made.dials) >= made.threshold
    assert taken.mean() > 0.3 and others.right[taken].mean() >= 0.88


@pytest.mark.parametrize("threshold", [-99.0, 1.5, 99.0])
def test_the_first_frames_of_a_path_are_counted_as_they_are_accepted(threshold: float) -> None:
    """Where single frames are as well: a map that lets hardly one pass promised them all."""
    answers = along_walls(RNG(1), 1000, 10, told=6.0)
    answers = replace(answers, few=np.arange(len(answers)) % 10 < 4)
    single = Calibration("logistic", threshold, (0.0, 1.0, 1.0), 5.0)
    plain = fit_sequences(answers, 0, 5, 0.9)
    report = fit_sequences(answers, 0, 5, 0.9, single)
    assert plain is not None and report is not None
    margins = answers.columns[:, 1]
    alone = answers.columns[:, 0] + margins * abs(margins) >= threshold
    taken = answers.odds_by_others() >= plain.calibration.threshold
    wanted = taken & (~answers.few | alone)
    assert (report.accepted, plain.accepted) == (wanted.sum(), taken.sum())
    assert report.calibration.recall == pytest.approx(wanted.mean())
    assert [(at.recall, at.accepted) for at in report.by_setting] == [(wanted.mean(), wanted.sum())]
    assert replace(report.calibration, recall=plain.calibration.recall) == plain.calibration


@pytest.mark.parametrize(("frames", "reached"), [(2, True), (3, False)])
def test_room_is_left_for_one_wrong_path_more(frames: int, reached: bool) -> None:
    """It lasts for up to twice the sequence: a hundred right answers cover four at .95, not six."""
    right = np.arange(200) % 2 == 0
    columns = np.zeros((200, 5))
    columns[:, 0] = np.where(right, 1.0, -1.0) + RNG(0).uniform(-0.5, 0.5, 200)
    ones = np.ones(200)
    answers = Answers(0 * right, ones, ones, columns, right, right, np.arange(200))
    report = fit_sequences(answers, 0, frames, 0.95)
    assert report is not None and report.reached is reached
    assert report.accepted == (100 if reached else 0)


def test_answers_are_judged_by_those_of_other_parts_of_the_map() -> None:
    """One place's answers stay together, whatever their setting; parts follow the map's order."""
    answers = along_walls(RNG(2), 50, 8, told=2.0)
    mixed = answers.where(RNG(3).permutation(len(answers)))
    wanted = np.zeros(len(mixed))
    for first in range(0, 50, 10):
        here = (mixed.where_asked >= first) & (mixed.where_asked < first + 10)
        wanted[here] = mixed.where(here).odds(*mixed.where(~here).learn())
    assert np.array_equal(mixed.odds_by_others(), wanted)
    few = answers.where(answers.where_asked < 3)
    assert np.array_equal(few.odds_by_others(), few.odds(*few.learn()))  # others teach too little

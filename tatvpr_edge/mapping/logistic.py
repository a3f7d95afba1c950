"""How sure a match is, learned from matches that are known to be right or wrong.

In: score, margin and truth of many answers. Out: weights of a logistic regression and the log-odds
from which answers are right as often as was asked. Plain NumPy; ``calibrate`` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Penalty on the standardised weights: keeps them finite where truth and score part cleanly.
_RIDGE = 1e-2
_STEPS = 50
_BINS = 10


def fit_weights(scores: F64, margins: F64, right: Bools) -> tuple[float, float, float]:
    """(w0, w1, w2) of log-odds ``w0 + w1 * score + w2 * margin``."""
    w0, w1, w2 = fit_columns(np.stack([scores, margins], axis=1), right)
    return w0, w1, w2


def fit_columns(columns: F64, right: Bools) -> tuple[float, ...]:
    """(w0, w1 ... wM) of log-odds ``w0 + sum of w * column``, by Newton's method.

    Both kinds of answers must be there; the numbers are rounded to float32, as a map stores them.

    Args:
        columns: float64 [N, M].
        right: bool [N].
    """
    count = columns.shape[1]
    middle = columns.mean(axis=0)
    spread = np.maximum(columns.std(axis=0), 1e-9)
    design = np.column_stack([np.ones(len(right)), (columns - middle) / spread])
    penalty = np.diag([0.0, *[_RIDGE] * count])
    weights = np.zeros(count + 1)
    loss = _loss(design, right, weights, penalty)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        slope = design.T @ (chance - right) + penalty @ weights
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(count + 1), slope)
        # Newton's step may overshoot where classes part cleanly: halved until it is one down.
        size = 1.0
        while _loss(design, right, weights - size * step, penalty) > loss and size > 1e-6:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _loss(design, right, weights, penalty)
        if before - loss < 1e-10 * max(1.0, abs(loss)):
            break
    slopes = weights[1:] / spread
    bias = weights[0] - (weights[1:] * middle / spread).sum()
    return tuple(np.array([bias, *slopes], np.float32).tolist())


def _loss(design: F64, right: Bools, weights: F64, penalty: F64) -> float:
    odds = design @ weights
    fit = np.logaddexp(0, np.where(right, -odds, odds)).sum()
    return float(fit + weights @ penalty @ weights / 2)


def log_odds(weights: tuple[float, float, float], scores: F64, margins: F64) -> F64:
    """``w0 + w1 * score + w2 * margin``."""
    return weights[0] + weights[1] * scores + weights[2] * margins


def log_odds_of(weights: Sequence[float], columns: F64) -> F64:
    """``w0 + sum of w * column`` float64 [N], of columns [N, M]."""
    odds: F64 = weights[0] + columns @ np.asarray(weights[1:], np.float64)
    return odds


@dataclass(frozen=True)
class Setting:
    """From which log-odds answers are accepted.

    Attributes:
        threshold: of the log-odds.
        reached: whether the precision asked for can be had; else ``threshold`` accepts none of the
            answers that were seen.
        accepted: how many of those it accepts.
    """

    threshold: float
    reached: bool
    accepted: int


def choose_threshold(odds: F64, right: Bools, precision: float, spare: int = 1) -> Setting:
    """The lowest log-odds from which ``precision`` of the answers is right; never below 0: where
    truth parts cleanly, the precision would be kept by answers that are likelier wrong than right.

    ``spare`` more wrong answers are counted than were seen, because a threshold chosen among few
    answers is chosen at their luckiest.
    """
    order = np.argsort(-odds, kind="stable")
    ranked = odds[order]
    wrong = np.cumsum(~right[order]) + spare
    count = np.arange(1, len(ranked) + 1)
    # Equal odds are accepted together.
    last = np.append(ranked[1:] != ranked[:-1], True)
    good = np.flatnonzero(last & (ranked >= 0) & (wrong <= (1 - precision) * count + 1e-9))
    if not len(good):
        beyond = np.nextafter(np.float32(max(ranked[0], 0.0)) + 1, np.float32(np.inf))
        return Setting(float(beyond), False, 0)
    at = int(good[-1])
    below = ranked[at + 1] if at + 1 < len(ranked) else ranked[at] - 1
    return Setting(max(float(np.float32((ranked[at] + below) / 2)), 0.0), True, at + 1)


# ---- how good a confidence is ----------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """How well a confidence tells right answers from wrong ones.

    Attributes:
        auroc: how probable it is that a right answer has more of it than a wrong one; NaN where
            one of the two kinds is missing.
        average_precision: mean precision over the right answers.
        recall_at_full_precision: share of the right answers that stand before the first wrong one.
        ece: expected calibration error over ten bins of equal width.
    """

    auroc: float
    average_precision: float
    recall_at_full_precision: float
    ece: float


def quality(confidence: F64, right: Bools) -> Quality:
    """The :class:`Quality` of confidences 0..1 of answers."""
    return Quality(
        auroc(confidence, right),
        average_precision(confidence, right),
        recall_at_full_precision(confidence, right),
        expected_calibration_error(confidence, right),
    )


def auroc(values: F64, right: Bools) -> float:
    """Area under the receiver operating characteristic (Mann and Whitney; ties count half)."""
    positives, negatives = int(right.sum()), int((~right).sum())
    if not positives or not negatives:
        return float("nan")
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    total = ranks[right].sum() - positives * (positives + 1) / 2
    return float(total / (positives * negatives))


def average_precision(values: F64, right: Bools) -> float:
    """Mean over the right answers of the precision from each one up; ties stand together."""
    if not right.any():
        return float("nan")
    levels, index = np.unique(-values, return_inverse=True)
    hits = np.bincount(index, right, len(levels))
    shown = np.cumsum(np.bincount(index, minlength=len(levels)))
    return float((np.cumsum(hits) / shown * hits).sum() / right.sum())


def recall_at_full_precision(values: F64, right: Bools) -> float:
    """Share of the right answers that exceed every wrong one."""
    if not right.any():
        return float("nan")
    highest = values[~right].max() if (~right).any() else -np.inf
    return float((values[right] > highest).sum() / right.sum())


def expected_calibration_error(confidence: F64, right: Bools) -> float:
    """Mean distance of confidence and share of right answers, over ten bins weighed by count
    (Guo et al., 2017)."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    error = sum(
        abs(float(confidence[bins == b].sum() - right[bins == b].sum())) for b in range(_BINS)
    )
    return error / len(right)

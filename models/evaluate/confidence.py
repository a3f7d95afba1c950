"""How well the score of a best answer tells whether it is right: on the protocol's queries, and on
frames of places that the map does not hold.

In: best scores and their truth, trial after trial. Out: AUROC, average precision, recall at 100 %
precision and expected calibration error. A score becomes a probability by a logistic curve that
one half of the queries is fitted by and the other half judged by, in turn; halves are taken in the
protocol's order, so that neighbouring frames of a clip stand on one side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.logistic import fit_weights, log_odds, quality

Floats = NDArray[np.float32]
Ranks = NDArray[np.int64]


def confidence(
    ranks: Sequence[Ranks], scores: Sequence[Floats], unknown: Sequence[Floats]
) -> dict[str, dict[str, float | None]]:
    """Quality of the confidence in best answers; a figure is None where there is none.

    Args:
        ranks: of each trial: rank of the first right answer, -1 where the map has none.
        scores: of each trial: the best score of each query; -inf where no place could answer.
        unknown: the same of the map without the query's right answers.

    Returns:
        ``held``: queries whose place is in the map; ``with_unknown``: all queries, and each of
        them once more of the map without its place, where whatever answers is wrong.
    """
    rank = np.concatenate(ranks)
    score, lacking = np.concatenate(scores), np.concatenate(unknown)
    first = np.concatenate([np.arange(len(part)) < len(part) / 2 for part in ranks])
    held, again = rank >= 0, np.isfinite(lacking) & (rank >= 0)
    return {
        "held": _judged(score[held], rank[held] == 0, first[held]),
        "with_unknown": _judged(
            np.concatenate([score, lacking[again]]),
            np.concatenate([rank == 0, np.zeros(int(again.sum()), np.bool_)]),
            np.concatenate([first, first[again]]),
        ),
    }


def _judged(
    scores: Floats, right: NDArray[np.bool_], first: NDArray[np.bool_]
) -> dict[str, float | None]:
    answered = np.isfinite(scores)
    values = scores[answered].astype(np.float64)
    right, first = right[answered], first[answered]
    # Margins need places that lie elsewhere, which a protocol does not say: the score alone tells.
    none = np.zeros(len(values))
    odds = np.full(len(values), np.nan)
    for own in (first, ~first):
        if own.any() and 0 < right[~own].sum() < (~own).sum():
            weights = fit_weights(values[~own], none[~own], right[~own])
            odds[own] = log_odds(weights, values[own], none[own])
    known = ~np.isnan(odds)
    if not known.any():
        names = ("auroc", "average_precision", "recall_at_full_precision", "ece")
        return {"answers": 0, **dict.fromkeys(names)}
    measured = quality(1 / (1 + np.exp(-np.clip(odds[known], -500, 500))), right[known])
    figures = {
        name: None if math.isnan(value) else round(value, 4)
        for name, value in asdict(measured).items()
    }
    return {"answers": int(known.sum()), **figures}

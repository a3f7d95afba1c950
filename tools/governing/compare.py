"""The governor beside what it replaces, on the same simulated boards: one table.

Controllers: always the largest k, always the smallest (k = .2), a plain threshold rule, and the
governor. Recall of a level is an input; where it is not measured, the curve used is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from governing.plant import (
    Controller,
    FixedRule,
    Plant,
    ThresholdRule,
    Trace,
    governor_for,
    random_plant,
    simulate,
)


def published_recall(k: float) -> float:
    """Recall@1 (0 to 1) of TAT-VPR BoQ on Pitts30k: the parabola through its published points.

    They are at sparsity 0, .4 and .6, so at k = 1, .6 and .4; below, this is an extrapolation.
    """
    from tatvpr_edge.models.evaluate.plot import PITTS30K

    name = "TAT-VPR BoQ, s = "
    rows = [point for point in PITTS30K if point.name.startswith(name)]
    ks = [1.0 - float(point.name.removeprefix(name)) for point in rows]
    curve = np.polyfit(ks, [point.recall_at_1 / 100.0 for point in rows], 2)
    return float(np.polyval(curve, k))


@dataclass(frozen=True)
class Outcome:
    """One controller over many plants."""

    name: str
    minutes_held: float
    """Share of the plants, of those that can be held, whose every minute stayed within 5 %."""
    worst_minute: float
    mean_recall: float
    """Of the queries that were answered."""
    right_per_joule: float
    """Recall-weighted queries per joule of the whole board."""
    right_per_query_joule: float
    """The same per joule of the queries alone."""
    most_switches_a_minute: int
    energy_used: float
    """Of what the budget allowed."""


def judge(
    name: str,
    runs: Sequence[tuple[Plant, float, Trace]],
    recall: Callable[[float], float],
) -> Outcome:
    """What a controller reached over runs of (plant, limit in mW, trace)."""
    worst: list[float] = []
    right = joules = query_joules = allowed = queries = 0.0
    switches = 0
    for plant, limit_mw, trace in runs:
        minute = trace.worst_minute(limit_mw, plant.held_at_smallest(limit_mw))
        if not math.isnan(minute):
            worst.append(minute)
        values = np.array([recall(level.k) for level in plant.levels])
        costs = np.array([plant.query_mj(i) for i in range(len(plant.levels))])
        right += float(values[trace.level] @ trace.queries)
        queries += float(trace.queries.sum())
        joules += float(trace.power_mw.sum()) * 0.25 / 1000.0
        query_joules += float(costs[trace.level] @ trace.queries) / 1000.0
        allowed += limit_mw / 1000.0 * len(trace.power_mw) * 0.25
        switches = max(switches, trace.most_switches_in_a_minute())
    return Outcome(
        name,
        float(np.mean([minute <= 1.05 for minute in worst])) if worst else math.nan,
        max(worst, default=math.nan),
        right / queries,
        right / joules,
        right / query_joules,
        switches,
        joules / allowed,
    )


def compare(
    seeds: Sequence[int],
    recall: Callable[[float], float] = published_recall,
    duration_s: float = 240.0,
) -> list[Outcome]:
    """Every controller on the same random plants and budgets."""
    plants = [random_plant(seed, duration_s) for seed in seeds]
    controllers: dict[str, Callable[[Plant, float], Controller]] = {
        "always k = 1": lambda plant, limit: FixedRule(len(plant.levels) - 1),
        "always k = 0.2": lambda plant, limit: FixedRule(0),
        "threshold rule": lambda plant, limit: ThresholdRule(len(plant.levels), limit),
        "governor": governor_for,
    }
    return [
        judge(
            name,
            [(plant, limit, simulate(plant, make(plant, limit))) for plant, limit in plants],
            recall,
        )
        for name, make in controllers.items()
    ]

"""Measures an artifact where it runs: latency, energy and layers for each k and tokens.

Needs NumPy alone, so that a board measures itself; ``tatvpr_edge.profile`` makes reports of it.
"""

from tatvpr_edge.runtime.profiling.energy import Energy, energy_of_run, integrate_mj
from tatvpr_edge.runtime.profiling.measure import profile_artifact
from tatvpr_edge.runtime.profiling.runs import Plan, Setting
from tatvpr_edge.runtime.profiling.statistics import Latency, drift_of, latency_of

__all__ = [
    "Energy",
    "Latency",
    "Plan",
    "Setting",
    "drift_of",
    "energy_of_run",
    "integrate_mj",
    "latency_of",
    "profile_artifact",
]

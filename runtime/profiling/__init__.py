"""Measures an artifact where it runs: latency, energy and layers for each k and tokens.

Needs NumPy alone, so that a board measures itself; ``tatvpr_edge.profile`` makes reports of it.
"""

from tatvpr_edge.runtime.profiling.measure import profile_artifact
from tatvpr_edge.runtime.profiling.runs import Plan, Setting

__all__ = ["Plan", "Setting", "profile_artifact"]

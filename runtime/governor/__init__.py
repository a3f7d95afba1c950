"""Chooses k (and tokens) at run time, so that a budget of power, time or heat is held."""

from tatvpr_edge.runtime.governor.budget import Budget, Kind
from tatvpr_edge.runtime.governor.governor import PRESETS, Choice, Governor
from tatvpr_edge.runtime.governor.ladder import Level, ladder_from_profile
from tatvpr_edge.runtime.governor.policy import Inputs, Policy, Reason, Tuning

__all__ = [
    "PRESETS",
    "Budget",
    "Choice",
    "Governor",
    "Inputs",
    "Kind",
    "Level",
    "Policy",
    "Reason",
    "Tuning",
    "ladder_from_profile",
]

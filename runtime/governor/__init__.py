"""Chooses k and tokens at run time, so that a budget of power, time or heat is held."""

from tatvpr_edge.runtime.governor.binding import CGovernor, GovernorCore, Inputs, Preference, Reason
from tatvpr_edge.runtime.governor.budget import Budget, Kind
from tatvpr_edge.runtime.governor.governor import Choice, Governor, check_governed, check_preset
from tatvpr_edge.runtime.governor.ladder import Ladder, ladder_from_profile
from tatvpr_edge.runtime.governor.level import Level

__all__ = [
    "Budget",
    "CGovernor",
    "Choice",
    "Governor",
    "GovernorCore",
    "Inputs",
    "Kind",
    "Ladder",
    "Level",
    "Preference",
    "Reason",
    "check_governed",
    "check_preset",
    "ladder_from_profile",
]

"""Power, temperature and battery of a board, each reading with its unit, source, age and condition.

`discover` finds what there is; `Sampler` reads it in a thread at a bounded cost.
"""

from tatvpr_edge.runtime.telemetry.conditions import Conditions, busy_core_s, read_conditions
from tatvpr_edge.runtime.telemetry.discover import Discovery, Source, discover
from tatvpr_edge.runtime.telemetry.fed import FedSource
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.sampler import Sampler, Snapshot, TimedPower
from tatvpr_edge.runtime.telemetry.tree import Tree

__all__ = [
    "Condition",
    "Conditions",
    "Discovery",
    "FedSource",
    "Reading",
    "Role",
    "Sampler",
    "Snapshot",
    "Source",
    "TimedPower",
    "Tree",
    "busy_core_s",
    "discover",
    "read_conditions",
]

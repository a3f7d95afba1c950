"""What runs on the device: Localizer, place map, governor, telemetry, artifact reader.

Needs NumPy and the standard library only."""

if __name__ != "tatvpr_edge.runtime":
    raise ImportError(
        f"this folder is the package tatvpr_edge.runtime, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import runtime'"
    )

from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.closures import Closure, LoopCloser
from tatvpr_edge.runtime.default import demo_map
from tatvpr_edge.runtime.found import Candidate
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.governor import Budget, Governor
from tatvpr_edge.runtime.growth import Addition
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.mapwriter import MapWriter
from tatvpr_edge.runtime.match import Match
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.streams import Stream, StreamFrame, stream
from tatvpr_edge.runtime.testing import FakeLocalizer
from tatvpr_edge.runtime.tracking import Tracker
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.errors import (
    ArtifactError,
    DeployError,
    FrameError,
    MapError,
    SignatureError,
    TatvprError,
    TelemetryError,
    UsageError,
)

__all__ = [
    "Addition",
    "Artifact",
    "ArtifactError",
    "Budget",
    "CameraFrame",
    "Candidate",
    "Client",
    "Closure",
    "DeployError",
    "FakeLocalizer",
    "FrameError",
    "Governor",
    "Localizer",
    "LoopCloser",
    "MapError",
    "MapWriter",
    "Match",
    "PlaceMap",
    "SignatureError",
    "Stream",
    "StreamFrame",
    "TatvprError",
    "TelemetryError",
    "Tracker",
    "UsageError",
    "demo_map",
    "read_artifact",
    "stream",
]

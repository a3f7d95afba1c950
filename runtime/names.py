# ruff: noqa: I001
"""The public names of ``tatvpr_edge.runtime``, imported when the first of them is asked for.

Each under its own name, which is how a checker of types knows that it is public.
"""

from tatvpr_edge.runtime.client import Client as Client
from tatvpr_edge.runtime.closures import Closure as Closure, LoopCloser as LoopCloser
from tatvpr_edge.runtime.default import demo_map as demo_map
from tatvpr_edge.runtime.found import Candidate as Candidate
from tatvpr_edge.runtime.frame import CameraFrame as CameraFrame
from tatvpr_edge.runtime.governor import Budget as Budget, Governor as Governor
from tatvpr_edge.runtime.growth import Addition as Addition
from tatvpr_edge.runtime.localizer import Localizer as Localizer
from tatvpr_edge.runtime.mapwriter import MapWriter as MapWriter
from tatvpr_edge.runtime.match import Match as Match
from tatvpr_edge.runtime.placemap import PlaceMap as PlaceMap
from tatvpr_edge.runtime.streams import (
    Stream as Stream,
    StreamFrame as StreamFrame,
    stream as stream,
)
from tatvpr_edge.runtime.testing import FakeLocalizer as FakeLocalizer
from tatvpr_edge.runtime.tracking import Tracker as Tracker
from tatvpr_edge.spec.artifact import Artifact as Artifact, read_artifact as read_artifact
from tatvpr_edge.spec.errors import (
    ArtifactError as ArtifactError,
    DeployError as DeployError,
    FrameError as FrameError,
    MapError as MapError,
    SignatureError as SignatureError,
    TatvprError as TatvprError,
    TelemetryError as TelemetryError,
    UsageError as UsageError,
)

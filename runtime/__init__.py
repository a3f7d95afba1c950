# ruff: noqa: F403, F405
"""What runs on the device: Localizer, place map, governor, telemetry, artifact reader.

Needs NumPy and the standard library only. Nothing is imported eagerly, so that the board's commands
(``python -m tatvpr_edge.runtime``) begin before NumPy is there, and can be interrupted."""

if __name__ != "tatvpr_edge.runtime":
    raise ImportError(
        f"this folder is the package tatvpr_edge.runtime, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import runtime'"
    )

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all of this
if TYPE_CHECKING:
    from tatvpr_edge.runtime.names import *

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


def __getattr__(name: str) -> object:
    """One of ``__all__``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tatvpr_edge.runtime import names

    globals()[name] = value = getattr(names, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Every error that this project raises on purpose.

TatvprError                    one line that names the thing and the remedy
 +- UsageError                 an argument is outside its range (k, tokens, names, shapes)
 |   +- FrameError             a frame of the wrong shape, type or content
 +- ModelError                 an ONNX file, checkpoint or model name is not usable
 +- ArtifactError              an artifact is truncated, altered, too new, for another board
 |   +- SignatureError         an artifact's signature is missing, wrong, revoked or not trusted
 +- MapError                   a place map is truncated, altered, too new, of another model
 +- BoardError                 a board is unknown or its file is invalid, or a model does not fit
 +- ToolError                  a compiler, emulator or other program is missing or failed
 +- DataError                  a folder of frames, a pose file or a data set is not usable
 +- TelemetryError             power telemetry was required and cannot be had
 +- DeployError                a board cannot be reached, or a release was refused
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BoardError",
    "DataError",
    "DeployError",
    "FrameError",
    "MapError",
    "ModelError",
    "SignatureError",
    "TatvprError",
    "TelemetryError",
    "ToolError",
    "UsageError",
]


def by_name(name: object, default: type[TatvprError]) -> type[TatvprError]:
    """The class of this module called ``name``, which a service or a board says; ``default`` where
    there is none."""
    kind = globals().get(name) if isinstance(name, str) else None
    return kind if isinstance(kind, type) and issubclass(kind, TatvprError) else default


class TatvprError(Exception):
    """Base of all deliberate errors; its text is one line for the user."""


class UsageError(TatvprError, ValueError):
    """An argument is outside its range."""


class FrameError(UsageError):
    """A frame of the wrong shape, type or content."""


class ModelError(TatvprError):
    """An ONNX file, checkpoint or model name is not usable."""


class ArtifactError(TatvprError):
    """An artifact is truncated, altered, too new, or for another board."""


class SignatureError(ArtifactError):
    """An artifact's signature is missing, wrong, revoked or not trusted."""


class MapError(TatvprError):
    """A place map is truncated, altered, too new, or of another model."""


class BoardError(TatvprError):
    """A board is unknown, its file is invalid, or a model does not fit it."""


class ToolError(TatvprError):
    """A compiler, emulator or other program is missing or failed."""


class DataError(TatvprError):
    """A folder of frames, a pose file or a data set is not usable."""


class TelemetryError(TatvprError):
    """Power telemetry was required and cannot be had."""


class DeployError(TatvprError):
    """A board cannot be reached, or a release was refused."""

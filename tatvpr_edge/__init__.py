# ruff: noqa: F403, F405
"""tatvpr-edge: ternary, top-k gated visual place recognition on boards.

Nothing is imported eagerly, so that ``from tatvpr_edge import runtime`` stays light on a board.
Names of ``tatvpr_edge.runtime`` are exported here as well: ``from tatvpr_edge import Localizer``.
"""

from __future__ import annotations

from tatvpr_edge import runtime  # which imports nothing

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all of this
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tatvpr_edge.compilers.report import BuildPlan
    from tatvpr_edge.mapping import BuiltMap, FrameFile, Picking
    from tatvpr_edge.runtime.names import *

__all__ = ["__version__", "build", "build_map", "plan", "read_frame"]
#: The names of ``tatvpr_edge.runtime`` are ours as well.
__all__ += runtime.__all__

__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """Names of the runtime, which is imported when the first of them is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(runtime, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def build(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    sign: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Build the artifact of ``model`` for ``board``; the same as ``tatvpr-edge build``.

    Args:
        board: a name of ``tatvpr-edge boards``, or a board's TOML file (docs/boards.md).
        model: a shipped model's name, or an ONNX file; None takes the shipped model that is made
            for boards of this class, as the board's file names it.
        output: a folder that does not exist yet. Without it ``./MODEL-BOARD``; for ``host`` the
            cached artifact that ``Localizer()`` takes, which is replaced.
        k_range: smallest and largest k that the artifact is checked for.
        backend: "tvm", or "tensorrt" for the GPU's part of a Jetson.
        sign: a private SSH key (Ed25519) to sign the artifact with.
        prefix: begins a microcontroller build's own names, so that two models fit one firmware.
        progress: called as ``progress(what, done, of)``.

    Returns:
        The artifact's folder.

    Raises:
        TatvprError: one line that names what is wrong (arguments, model, board, tools, output).
    """
    _need_build_extra()
    from tatvpr_edge.compilers.build import build_artifact

    return build_artifact(
        board,
        model=model,
        output=output,
        k_range=k_range,
        backend=backend,
        sign=sign,
        prefix=prefix,
        progress=progress,
    )


def plan(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    prefix: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> BuildPlan:
    """What :func:`build` would make, without making it; the same as ``build --dry-run``.

    Args:
        board, model, k_range, backend, prefix, progress: as :func:`build`.

    Returns:
        Operators, bytes of flash, RAM and arena, multiply-accumulates per k, and tools needed.

    Raises:
        TatvprError: as :func:`build`; a model that does not fit the board too.
    """
    _need_build_extra()
    from tatvpr_edge.compilers.build import plan_artifact

    return plan_artifact(
        board, model=model, k_range=k_range, backend=backend, prefix=prefix, progress=progress
    )


def build_map(
    localizer: Localizer,
    frames: str | os.PathLike[str] | Sequence[FrameFile],
    output: str | os.PathLike[str],
    *,
    poses: str | os.PathLike[str] | None = None,
    pose_frame: str | None = None,
    kind: str = "int8",
    bands: Sequence[tuple[float, float]] | None = None,
    threshold: float | None = None,
    strict: bool = False,
    picking: Picking | None = None,
    views: bool = True,
    one_drive: bool = False,
    progress: Callable[[int], None] | None = None,
) -> BuiltMap:
    """Make a place map of pictures, a bag or a video; the same as ``tatvpr-edge map build``.

    Args:
        localizer: describes the frames; its model is the map's.
        frames: a folder, or files of one (``tatvpr_edge.mapping.frame_files``); a bag or video.
        output: the ``.placemap`` to write; it must not exist.
        poses: a CSV with name, x, y; None: ``poses.csv`` in the folder, else the frames' names.
        pose_frame: "local", "utm" or "geographic", where names or columns do not say it.
        kind: "int8" or "binary": a byte or a bit for each element of a descriptor; "weighed": bits,
            and the surest bits of a query count most among the nearest places.
        bands: (k, tokens) to describe at; None: one, at the artifact's highest k, at
            most 1, with all tokens.
        threshold: score from which a match is accepted.
        strict: a frame that cannot be read, or that shows nothing (black, blank, a covered lens),
            is an error; otherwise it is left out and listed.
        picking: topics of a bag, and which frames of a recording.
        views: describe a place from several views of its frame, and with a part of its neighbours
            along a drive, so that more queries find it, at eight times the describing; False: from
            the frame alone.
        one_drive: the frames of all folders are one drive, in the order of their names; False:
            every folder is a drive of its own.
        progress: told after every frame, with 1.

    Returns:
        Path, number of places, where positions came from, frames left out.

    Raises:
        TatvprError: frames, names or poses that cannot be used, or an output that cannot be made.
    """
    _need_pillow()
    from tatvpr_edge.mapping import build as room

    return room.build_map(
        localizer,
        frames,
        output,
        poses=poses,
        pose_frame=pose_frame,
        kind=kind,
        bands=bands,
        threshold=threshold,
        strict=strict,
        picking=picking,
        views=views,
        one_drive=one_drive,
        progress=progress,
    )


def read_frame(source: str | os.PathLike[str] | Image) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3], RGB and upright, of an image file or a Pillow image.

    What all commands, training and evaluation see, and what ``Localizer.query`` takes.

    Raises:
        DataError: the file is missing, no image, cut short, or absurdly large.
    """
    _need_pillow()
    from tatvpr_edge.mapping import read_frame as read

    return read(source)


def stream(  # type: ignore[no-redef]
    source: int | str | os.PathLike[str], *, realtime: bool = False, backend: str | None = None
) -> Stream:
    """Frames of a camera, a video or a folder, read in a thread: ``for frame in stream(0): ...``.

    As :func:`tatvpr_edge.runtime.stream`, which describes the arguments; a folder's pictures are
    read by Pillow where it is installed, as everywhere on a host.

    Raises:
        TatvprError: no such source, or what reads it is not installed.
    """
    from importlib.util import find_spec

    from tatvpr_edge.runtime import stream as open_stream

    return open_stream(
        source,
        realtime=realtime,
        backend=backend,
        read_picture=None if find_spec("PIL") is None else read_frame,
    )


def _need_build_extra() -> None:
    _need(
        ("onnx", "onnxruntime", "tvm"),
        "building needs {}, which this Python lacks: pip install 'tatvpr-edge[build]' "
        "(Python 3.11 to 3.13)",
    )


def _need_pillow() -> None:
    _need(
        ("PIL",),
        "pictures are read by Pillow, which this Python lacks: pip install 'tatvpr-edge[cli]'",
    )


def _need(modules: Sequence[str], text: str) -> None:
    from importlib.util import find_spec

    from tatvpr_edge.spec.errors import ToolError

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ToolError(text.format(", ".join(missing)))

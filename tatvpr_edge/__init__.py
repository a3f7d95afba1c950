"""tatvpr-edge: ternary, top-k gated visual place recognition on boards.

Nothing is imported eagerly, so that ``from tatvpr_edge import runtime`` stays light on a board.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tatvpr_edge.compilers.report import BuildPlan

__all__ = ["__version__", "build", "plan"]

__version__ = "0.1.0"


def build(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "micro",
    output: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    sign: str | os.PathLike[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Build the artifact of ``model`` for ``board``; the same as ``tatvpr-edge build``.

    Args:
        board: a name of ``tatvpr-edge boards``.
        model: a shipped model's name, or an ONNX file.
        output: a folder that does not exist yet. Without it ``./MODEL-BOARD``; for ``host`` the
            cached artifact that ``Localizer()`` takes, which is replaced.
        k_range: smallest and largest k that the artifact is checked for.
        backend: "tvm", or "tensorrt" for the GPU's part of a Jetson.
        sign: a private SSH key (Ed25519) to sign the artifact with.
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
        progress=progress,
    )


def plan(
    board: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "micro",
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    progress: Callable[[str, int, int], None] | None = None,
) -> BuildPlan:
    """What :func:`build` would make, without making it; the same as ``build --dry-run``.

    Args:
        board, model, k_range, backend, progress: as :func:`build`.

    Returns:
        Operators, bytes of flash, RAM and arena, multiply-accumulates per k, and tools needed.

    Raises:
        TatvprError: as :func:`build`; a model that does not fit the board too.
    """
    _need_build_extra()
    from tatvpr_edge.compilers.build import plan_artifact

    return plan_artifact(board, model=model, k_range=k_range, backend=backend, progress=progress)


def _need_build_extra() -> None:
    from importlib.util import find_spec

    from tatvpr_edge.spec.errors import ToolError

    missing = [name for name in ("onnx", "onnxruntime", "tvm") if find_spec(name) is None]
    if missing:
        raise ToolError(
            f"building needs {', '.join(missing)}, which this Python lacks: "
            "pip install 'tatvpr-edge[build]' (Python 3.11 or 3.12)"
        )

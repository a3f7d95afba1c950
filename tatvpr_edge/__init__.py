"""tatvpr-edge: ternary, top-k gated visual place recognition on boards.

Nothing is imported eagerly, so that ``from tatvpr_edge import runtime`` stays light on a board.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def build(board: str, **options: Any) -> Any:
    """Build an artifact for ``board``; the same as ``tatvpr-edge build``.

    Options are those of :func:`tatvpr_edge.compilers.build.build_artifact`.
    Returns the path of the artifact folder.
    """
    from tatvpr_edge.compilers.build import build_artifact

    return build_artifact(board, **options)

"""Names of nodes as C identifiers that meet neither each other nor what generated code uses."""

from __future__ import annotations

import re
from collections.abc import Collection

from tatvpr_edge.compilers.graph import KEPT

#: What code generators append to a step's identifier for the norms inside it.
NORM_SUFFIXES = ("_norm", "_fc1_norm", "_fc2_norm")
_KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while"
)
_OWN = "c run copy_rows program ternaries mlps linears weights main NULL STEP CHECK KERNEL F32"
_RESERVED = frozenset([*_KEYWORDS.split(), *_OWN.split(), *KEPT])


def identifier(name: str) -> str:
    """``blocks.0.qkv`` -> ``blocks_0_qkv``: a C identifier."""
    text = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    return f"n{text}" if not text or text[0].isdigit() else text


def unique(name: str, taken: Collection[str]) -> str:
    """A C identifier made of ``name`` that neither ``taken`` nor generated code uses.

    Descriptors of norms are called like their step with a suffix, so those count as taken too.
    """
    base = identifier(name)
    used = {*_RESERVED, *taken, *(t + suffix for t in taken for suffix in NORM_SUFFIXES)}
    key, number = base, 2
    while key in used or any(key + suffix in used for suffix in NORM_SUFFIXES):
        key, number = f"{base}_{number}", number + 1
    return key

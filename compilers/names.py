"""Names of nodes as ends of C identifiers that do not meet each other."""

from __future__ import annotations

import re
from collections.abc import Collection

#: What code generators append to a step's identifier for the norms inside it.
NORM_SUFFIXES = ("_norm", "_fc1_norm", "_fc2_norm")
#: Begins a step's C names: no header, keyword or kernel of TVM is called so, whatever a node is.
STEP_PREFIX = "step_"


def identifier(name: str) -> str:
    """``blocks.0.qkv`` -> ``blocks_0_qkv``: letters that a C identifier may go on with."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "n"


def unique(name: str, taken: Collection[str]) -> str:
    """An identifier made of ``name`` that is not among ``taken``.

    Descriptors of norms are called like their step with a suffix, so those count as taken too.
    """
    base = identifier(name)
    used = {*taken, *(t + suffix for t in taken for suffix in NORM_SUFFIXES)}
    key, number = base, 2
    while key in used or any(key + suffix in used for suffix in NORM_SUFFIXES):
        key, number = f"{base}_{number}", number + 1
    return key

"""Where compilers keep what is slow to make twice: ``$XDG_CACHE_HOME/tatvpr-edge`` or ~/.cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(what: str) -> Path:
    """Folder for one kind of cached thing; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / "tatvpr-edge" / what

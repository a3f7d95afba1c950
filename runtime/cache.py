"""Where this project keeps what is slow to make twice: $XDG_CACHE_HOME/tatvpr-edge or ~/.cache.

Standard library only. Everything in it may be deleted at any time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(what: str) -> Path:
    """Folder for one kind of cached thing ("objects", "artifacts"); it may not exist yet."""
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if base.startswith("~"):  # a user without a home, as a container may have, keeps nothing
        base = "/nonexistent"
    return Path(base) / "tatvpr-edge" / what


def unwritable() -> OSError | None:
    """Why nothing can be kept there; None where it can."""
    folder = cache_folder("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def host_artifact() -> Path:
    """The artifact that ``build --board host`` leaves for ``Localizer()`` without arguments."""
    return cache_folder("artifacts") / "host"

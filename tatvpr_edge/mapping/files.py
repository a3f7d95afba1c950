"""Which files of a folder are frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.spec.errors import DataError

#: Endings of picture files, in any case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
#: Folders that file managers, storage boxes and notebooks leave beside pictures; those whose name
#: begins with a dot (.Trash-1000, .ipynb_checkpoints) are passed over as well.
_LITTER = frozenset({"@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN"})


@dataclass(frozen=True)
class FrameFile:
    """A frame and its name in the map: the path below the folder that was given."""

    path: Path
    name: str


def frame_files(path: str | Path) -> list[FrameFile]:
    """The pictures below a folder, sorted by name; or one file.

    Raises:
        DataError: no such path, no frame in it, or a name that is not UTF-8 (a map could not
            hold it).
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _readable([FrameFile(path, path.name)])
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder of frames")
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _LITTER)
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                file = Path(folder) / name
                found.append(FrameFile(file, file.relative_to(path).as_posix()))
    if not found:
        endings = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise DataError(f"{path} holds no frame: expected files named {endings}")
    return _readable(sorted(found, key=lambda frame: frame.name))


def _readable(frames: list[FrameFile]) -> list[FrameFile]:
    """``frames``, of which every name is text. Python marks bytes that are not as surrogates."""
    bad = [frame.name for frame in frames if any("\ud800" <= c <= "\udfff" for c in frame.name)]
    if bad:
        shown = bad[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"the file name {shown}{more} is not UTF-8, so a map cannot hold it: rename it "
            "(convmv -f latin1 -t utf8 does a whole folder)"
        )
    return frames

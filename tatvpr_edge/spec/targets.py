"""Where a result shall go, looked at before the work is done that it is to hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .atomic import refuse_device
from .errors import ArtifactError, DataError, TatvprError, UsageError
from .manifest import MANIFEST, MAX_MANIFEST_BYTES, parse_manifest

#: What pictures of curves are written as.
PLOTS = (".png", ".svg", ".pdf")


def check_target(
    path: Path, suffixes: tuple[str, ...] = (), error: type[TatvprError] = DataError
) -> None:
    """Refuse a file that could not be written at ``path``.

    Raises:
        UsageError: it is called otherwise than with one of ``suffixes``.
        error: it is a folder; or its own is missing, takes no file, or is an artifact's. The
            message names both.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"cannot write {path}: name it with {' or '.join(suffixes)}")
    if path.is_dir():
        raise error(f"cannot write {path}: it is a folder: name a file")
    _check_folder(path, path.absolute().parent, error)


def check_replaced(path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """The same for a file that is replaced whole (``atomic.replacing``), as no device can be."""
    check_target(path, suffixes)
    try:
        refuse_device(path)
    except OSError as fault:
        raise DataError(f"cannot write {path}: {fault.strerror}") from None


def check_apart(path: Path, read: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a result that would take the place of what it is made of.

    Raises:
        UsageError: ``path`` is one of ``read``, be it by another name.
    """
    if any(same_file(path, given) for given in read):
        raise UsageError(f"cannot write {path}: it is what shall be read: name another file")


def same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both are one file; of what cannot be looked at, its reader or writer tells."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def check_new_folder(folder: Path) -> None:
    """Refuse a folder of results that cannot be made, or written into where it stands.

    Raises:
        DataError: it names the folder, or the artifact, that is in the way.
    """
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    _check_folder(folder, above, DataError)


def refuse_in_artifact(path: str | Path, error: type[TatvprError] = DataError) -> None:
    """Refuse to write at ``path`` inside an artifact, which with a file more is one no longer.

    Raises:
        error: it names the artifact.
    """
    place = Path(os.path.realpath(path))
    for folder in (place, *place.parents):
        if _is_artifact(folder):
            raise error(
                f"cannot write {path}: {folder} is an artifact, which holds its own files alone: "
                "name a place outside it"
            )


def _is_artifact(folder: Path) -> bool:
    """Whether a manifest of ours lies there: other programs have their ``manifest.json``, too."""
    manifest = folder / MANIFEST
    try:
        if not manifest.is_file():  # a pipe would be waited for
            return False
        with manifest.open("rb") as source:
            parse_manifest(source.read(MAX_MANIFEST_BYTES + 1))
    except (OSError, ArtifactError):
        return False
    return True


def _check_folder(path: Path, folder: Path, error: type[TatvprError]) -> None:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist: create it first"
        raise error(f"cannot write {path}: {folder} {what}")
    try:  # access(2) tells root yes below /proc and /sys, where no file can be made
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        why = fault.strerror
        raise error(f"cannot write {path}: {folder} is not writable ({why})") from None
    refuse_in_artifact(path, error)

"""Which files of a folder are frames, and which folder is a bag: one rule for maps, training and
streams."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections import Counter
from pathlib import Path

from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import path as check_path

#: Endings of picture files, in any case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_READ = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
#: Endings of pictures that are not read: phones and web pages write them, so that a folder may be
#: full of them.
_UNREAD = (
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".heic", ".heif", ".hif", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jxl", ".nef", ".orf", ".pbm", ".pnm", ".psd", ".raf", ".rw2", ".svg",
    ".tga",
)  # fmt: skip
#: Folders that file managers, storage boxes and notebooks leave beside pictures; those whose name
#: begins with a dot (.Trash-1000, .ipynb_checkpoints) are passed over as well.
_LITTER = frozenset({"@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN"})
_LOG = logging.getLogger("tatvpr_edge")
#: What was logged: a command may list a folder more than once.
_told: set[str] = set()


def picture_files(path: str | Path) -> list[tuple[Path, str]]:
    """The pictures below a folder and their names (the paths below it), as :func:`in_order`; or one
    file. Links to folders elsewhere are not followed. Logging says, once a process, how many
    pictures of other kinds, and which of such links, were passed over.

    Raises:
        DataError: no such path, one that cannot be read, no frame in it, or a name that is not
            UTF-8 (a map could not hold it).
    """
    path = check_path(path, "frames", "a folder of frames, or one")
    if os.path.isfile(path):
        return _readable([(path, path.name)])
    try:
        os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file or folder of frames") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    found = []
    unread: Counter[str] = Counter()
    linked: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _LITTER)
        linked += [f for f in (os.path.join(folder, f) for f in folders) if _leads_away(f, path)]
        for name in names:
            if name.startswith("."):
                continue
            ending = os.path.splitext(name)[1].lower()
            if ending in SUFFIXES:
                file = Path(folder) / name
                found.append((file, file.relative_to(path).as_posix()))
            elif ending in _UNREAD:
                unread[ending] += 1
    if not found:
        others = f", and the {_counted(unread)} in it are of no such kind" if unread else ""
        others += f", and {_links(linked)}" if linked else ""
        raise DataError(f"{path} holds no frame: expected files named {_READ}{others}")
    if unread:
        _tell(f"{path}: {_counted(unread)} passed over: frames are files named {_READ}")
    if linked:
        _tell(f"{path}: {_links(linked)}")
    return _readable(sorted(found, key=lambda frame: in_order(frame[1])))


def _leads_away(folder: str, path: Path) -> bool:
    """Whether it is a link to a folder that is not below ``path`` anyway."""
    if not os.path.islink(folder):
        return False
    target, above = os.path.realpath(folder), os.path.realpath(path)
    return os.path.commonpath((target, above)) not in (target, above)


def _links(linked: list[str]) -> str:
    named = ", ".join(printable(folder) for folder in linked[:3])
    more = f" and {len(linked) - 3} more" if len(linked) > 3 else ""
    return (
        f"links to folders elsewhere are not followed ({named}{more}): give those folders, or "
        "mount or copy them here"
    )


def _tell(line: str) -> None:
    if line not in _told:
        _told.add(line)
        _LOG.warning("%s", line)


def lists_bag(folder: Path) -> bool:
    """Whether a folder's ``metadata.yaml`` is of a ROS 2 bag; other programs write one beside
    pictures."""
    path = folder / "metadata.yaml"
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as source:
            return b"rosbag2_bagfile_information" in source.read(4096)
    except OSError:
        return False


def storages(folder: Path) -> list[Path]:
    """The files of a ROS 2 bag, which may have lost its ``metadata.yaml``; none in a folder that
    cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(f for f in folder.iterdir() if f.suffix.lower() in (".mcap", ".db3"))
    return []


def in_order(name: str) -> list[tuple[list[tuple[int, str]], str]]:
    """What names are sorted by: ``f9.jpg`` before ``f10.jpg`` and ``7.25.jpg`` before ``7.5.jpg``,
    as cameras and clocks count, so that the frames of a drive follow each other as they were taken;
    folders likewise."""
    return [(_runs(part), part) for part in name.split("/")]


def _runs(text: str) -> list[tuple[int, str]]:
    """Text and the numbers in it, in turn; decimals compare as text does."""
    runs = []
    for index, run in enumerate(re.split(r"(\d+(?:\.\d+)?)", text)):
        whole, _, decimals = run.partition(".")
        runs.append((int(whole), decimals) if index % 2 else (-1, run))
    return runs


def _counted(unread: Counter[str]) -> str:
    """How many pictures, of which kinds."""
    count = unread.total()
    kinds = ", ".join(f"*{ending}" for ending in sorted(unread))
    return f"{count} picture{'s' if count > 1 else ''} ({kinds})"


def _readable(frames: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """``frames``, of which every name is text. Python marks bytes that are not as surrogates."""
    bad = [name for _, name in frames if any("\ud800" <= c <= "\udfff" for c in name)]
    if bad:
        shown = bad[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"the file name {shown}{more} is not UTF-8, so a map cannot hold it: rename it "
            "(convmv -f latin1 -t utf8 does a whole folder)"
        )
    return frames

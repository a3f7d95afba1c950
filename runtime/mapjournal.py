"""The journal of a place map: places added since its base file was written.

``M.journal`` beside ``M``: a header that binds it to one base file, then one record an append.
A record is synced before the call returns, and holds all places of that call, so that a power cut
leaves all of them or none. What a cut append left is no record; the next append keeps those bytes
aside (``M.journal.torn``) and writes its own in their place. An altered record is an error
wherever a whole one follows it. An append reads the end of the journal and the head of the base
alone, whatever their size, but for the first of a drive. ``compact`` writes a new base file and
removes the journal.

Writers lock the map (:mod:`tatvpr_edge.spec.mapfiles`). Readers do not: a base file is only ever
replaced by rename, records are whole or not there, and a reader that saw the base replaced while
it read begins again. :mod:`tatvpr_edge.runtime.journalfile` is the file byte for byte.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tatvpr_edge.runtime.deployed import release_of
from tatvpr_edge.runtime.journalfile import (
    HEADER,
    binding_of,
    check_header,
    header,
    keep_torn,
    last_record,
    model_of,
    write_record,
)
from tatvpr_edge.runtime.journalrecords import (
    encode_record,
    no_places,
    read_records,
    record_bytes,
)
from tatvpr_edge.runtime.signed_release import refuse_rewriting
from tatvpr_edge.spec.atomic import replacing, sync_folder
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapfiles import explain, followed, plain, writing
from tatvpr_edge.spec.maptypes import (
    MAX_DRIVES,
    MAX_PLACES,
    MOMENT,
    MapInfo,
    Places,
    calibrated,
)
from tatvpr_edge.spec.placemap import (
    Base,
    Header,
    parse_header,
    read_base,
    write_map,
)
from tatvpr_edge.spec.targets import refuse_in_artifact

_MOST_READS = 100


def journal_path(path: str | Path) -> Path:
    """Where the journal of the map at ``path`` lies."""
    return Path(f"{followed(path)}.journal")


def torn_path(path: str | Path) -> Path:
    """Where bytes of appends that never finished are kept."""
    return Path(f"{followed(path)}.journal.torn")


@dataclass(frozen=True)
class StoredMap:
    """A base file and what its journal adds."""

    base: Base
    added: Places
    #: Bytes at the end of the journal that belong to an append which never finished.
    torn_bytes: int = 0
    #: Whether a journal counts (one that compaction absorbed and did not remove does not).
    journalled: bool = False
    #: What no base file has that replaced it, be it of the same places.
    file: object = None

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    def places(self) -> Places:
        """All of them, in memory."""
        return Places.joined([self.base.places(), self.added])


def read_map(path: str | Path, sha256: str | None = None) -> StoredMap:
    """Open a map and its journal; ``sha256``: of the base file, as :func:`read_base` takes it.

    Raises:
        MapError: either is damaged, or the journal belongs to another base file.
    """
    for _ in range(_MOST_READS):
        before = map_state(path)
        try:
            found = _read(path, sha256)[0]
        except MapError:
            if map_state(path) == before:
                raise
        else:
            if map_state(path)[0] == before[0]:
                return replace(found, file=before[0])
    raise MapError(f"the map {path} is replaced faster than it can be read: try again")


class Appended(NamedTuple):
    """What an append did.

    Attributes:
        number: of the first of the places in the map.
        places: as they were added.
        file: which base file's journal took them, as ``StoredMap.file``.
    """

    number: int
    places: Places
    file: object


def check_free(path: str | Path, otherwise: str) -> None:
    """Refuse to make a map at ``path``.

    Args:
        otherwise: what can be done but remove what lies there.

    Raises:
        MapError: it lies in a release, something lies there, or the journal of a map that was
            removed: its places would be the new one's, where that begins as the old one did.
    """
    if os.path.isdir(path):
        raise MapError(f"{path} is a folder: name a file in it")
    if os.path.lexists(path):
        raise MapError(f"{path} exists already: remove it, or {otherwise}")
    _refuse_in_release(path)
    journal = journal_path(path)
    if os.path.lexists(journal):
        raise MapError(
            f"{journal} is what was added to a map that is gone: remove it as well, bring that map "
            f"back, or {otherwise}"
        )


def create_map(path: str | Path, info: MapInfo) -> None:
    """Make a map without places, unless one stands at ``path`` by now.

    Raises:
        MapError: it cannot be written, lies in an artifact or a release, or a journal of another
            lies there.
    """
    path = followed(path)
    refuse_in_artifact(path, MapError)
    if not os.path.exists(path):  # first: the lock would stay there
        _refuse_in_release(path)
    with writing(path):
        if not path.exists():
            check_free(path, "name another")
            write_map(path, info, [])


def _refuse_in_release(path: str | Path) -> None:
    release = release_of(path)
    if release is not None:
        raise MapError(
            f"cannot write {path}: {release} is a release, which would not start again with a file "
            "that was not deployed: name a place outside it (a map that grows belongs there as "
            "well), or deploy with --map"
        )


def append(
    path: str | Path,
    places: Places,
    *,
    neighbours: bool = False,
    made_for: MapInfo | None = None,
) -> int:
    """Add ``places`` to the map at ``path``: all of them or, on any failure, none.

    Args:
        made_for: what the map was as it was opened; None: not known.
        neighbours: some of them keep a part of their neighbours' descriptors. A base file that does
            not say so of its map is written anew, once; its journal stays.

    Returns:
        The number of the first of them in the map.

    Raises:
        MapError: the map cannot be read or written, or the places have other bands or sizes, or it
            is another map by now.
    """
    return append_drive(path, places, neighbours=neighbours, made_for=made_for, own=False).number


def append_drive(
    path: str | Path,
    places: Places,
    *,
    neighbours: bool = False,
    made_for: MapInfo | None = None,
    own: bool = True,
) -> Appended:
    """As :func:`append`, and where they are their ``own``, the drives of ``places`` are new ones:
    their numbers are found while the map is held, because another writer may have begun one since
    it was opened. That looks at every place.

    Raises:
        MapError: also where the map holds as many drives as it may.
    """
    path = followed(path)
    map_state(path)
    with writing(path):
        head = _read_head(path)
        if made_for is not None:
            check_same(path, made_for, head.info)
        _check_fits(head.info, places)
        try:
            end, count = _open_end(path, head)
            if head.places + count + len(places) > MAX_PLACES:
                raise MapError(f"map {path} is full: it holds at most {MAX_PLACES} places")
            if own:
                moments = places.moments.copy()
                more = int(moments["drive"].max(initial=0))
                moments["drive"] += np.uint16(_next_drive(path, head, end, more))
                places = replace(places, moments=moments)
            if neighbours and not head.info.neighbours:
                # The journal is bound to what the base holds of its places, which stays.
                refuse_rewriting(path)
                info = replace(head.info, neighbours=True)
                write_map(path, info, [read_base(path).places()])
            file = map_file(path)
            write_record(journal_path(path), end, encode_record(places, count))
        except OSError as error:
            raise MapError(f"cannot add to the map {path}: {explain(error)}") from error
    return Appended(head.places + count, places, file)


def map_end(path: str | Path) -> tuple[object, int] | None:
    """(``StoredMap.file``, places) of the map as it stands, from its head and last record; None
    where all of it must be seen.

    Raises:
        MapError: base or journal cannot be read.
    """
    file = map_file(path)
    head = _read_head(followed(path))
    journal = journal_path(path)
    try:
        found = last_record(journal, binding_of(head)) if journal.exists() else (0, 0)
    except OSError as error:
        raise MapError(f"cannot read {journal}: {explain(error)}") from None
    return None if found is None else (file, head.places + found[1])


def _next_drive(path: Path, head: Header, journal_bytes: int, more: int) -> int:
    """One more than the highest number of a drive in a map and so much of its journal, of which
    there is room for ``more`` behind it."""
    with plain(path) as base, plain(journal_path(path)) as journal:
        base.seek(head.layout.moments)
        stored = np.frombuffer(base.read(head.places * MOMENT.itemsize), MOMENT)
        added = read_records(
            journal.read(journal_bytes), HEADER.size, head.info, journal_path(path)
        )[0].moments
    drive = 1 + max((int(of["drive"].max()) for of in (stored, added) if len(of)), default=-1)
    if drive + more >= MAX_DRIVES:
        full = "the last" if not more else f"and has no room for {more + 1} more"
        raise MapError(f"map {path} holds drives up to number {drive - 1}, {full}: make another")
    return drive


def compact(path: str | Path) -> None:
    """Fold the journal into a new base file. Without a journal, nothing happens.

    Raises:
        MapError: the map cannot be read or written, or is part of a signed release.
    """
    path = followed(path)
    map_state(path)
    with writing(path):
        _fold(path)


def rewrite(
    path: str | Path, change: Callable[[StoredMap], tuple[MapInfo, Sequence[Places]]]
) -> None:
    """Replace the map at ``path`` by what ``change`` makes of it, atomically.

    The journal is folded in first, so that a power cut leaves the old places or the new ones.

    Raises:
        MapError: as :func:`compact`; or what ``change`` raises.
    """
    path = followed(path)
    refuse_rewriting(path)
    map_state(path)
    with writing(path):
        _fold(path)
        write_map(path, *change(_read(path)[0]))


def _fold(path: Path) -> None:
    stored = _read(path)[0]
    if stored.journalled:
        refuse_rewriting(path)
        write_map(path, stored.base.info, [stored.base.places(), stored.added])
    with contextlib.suppress(FileNotFoundError):
        journal_path(path).unlink()
        sync_folder(path.parent)


def map_file(path: str | Path) -> object:
    """``StoredMap.file`` of the map as it stands.

    Raises:
        MapError: there is none that can be seen.
    """
    return map_state(path)[0]


def map_state(path: str | Path) -> tuple[object, object]:
    """What tells one state of the files from another: (base, journal).

    Raises:
        MapError: there is no base that can be seen.
    """
    try:
        base = os.stat(path)
    except OSError as error:
        raise MapError(f"cannot read the map {path}: {explain(error)}") from None
    journal: object = None
    with contextlib.suppress(OSError):
        status = os.stat(journal_path(path))
        journal = (status.st_ino, status.st_size, status.st_mtime_ns)
    return (base.st_dev, base.st_ino, base.st_mtime_ns), journal


# ---- writing ---------------------------------------------------------------------------------


def _read_head(path: Path) -> Header:
    """The base's header alone: an append does not read its places."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        what = explain(error) if isinstance(error, OSError) else "it is empty"
        raise MapError(f"cannot read the map {path}: {what}") from None
    try:
        return parse_header(data, len(data))
    except MapError as error:
        raise MapError(f"map {path}: {error}") from None


def _open_end(path: Path, head: Header) -> tuple[int, int]:
    """Where the next record goes, and how many places stand before it. Makes the journal."""
    journal, binding = journal_path(path), binding_of(head)
    found = last_record(journal, binding)
    if found is not None:
        return found
    if journal.exists():  # torn, absorbed by compaction, or damaged: the whole of it must be seen
        stored, end = _read(path)
        if stored.journalled:
            keep_torn(journal, torn_path(path), end)
            return end, len(stored.added)
    with replacing(journal, like=path) as sink:
        sink.write(header(binding))
    return HEADER.size, 0


# ---- reading ---------------------------------------------------------------------------------


def _read(path: str | Path, sha256: str | None = None) -> tuple[StoredMap, int]:
    """The map, and where in its journal the next record goes."""
    base = read_base(path, sha256)
    nothing = no_places(base.info)
    journal = journal_path(path)
    try:
        with plain(journal) as source:
            data = source.read()
    except FileNotFoundError:
        return StoredMap(base, nothing), 0
    except OSError as error:
        raise MapError(f"cannot read {journal}: {explain(error)}") from None
    binding = check_header(data, journal)
    added, end = read_records(data, HEADER.size, base.info, journal)
    if binding != binding_of(base):
        same_model = model_of(binding) == base.info.model_hash
        if same_model and _absorbed(base, added):
            return StoredMap(base, nothing), 0
        raise MapError(
            f"{journal} belongs to another map than {path}: bring that map back, or remove the "
            "journal (the places in it are lost)"
        )
    return StoredMap(base, added, len(data) - end, True), end


def _absorbed(base: Base, added: Places) -> bool:
    """Whether ``base`` ends with these places: compaction was cut before it removed the journal."""
    count = len(added)
    if count > len(base):
        return False
    first = len(base) - count
    return (
        all(
            np.array_equal(mine.data[first:], theirs.data)
            for mine, theirs in zip(base.rows, added.rows, strict=True)
        )
        and np.array_equal(base.stored_poses[first:], np.nan_to_num(added.poses, nan=0.0))
        and np.array_equal(base.moments[first:], added.moments)
        and all(base.tag(first + index) == tag for index, tag in enumerate(added.tags))
    )


def check_same(path: Path, opened: MapInfo, now: MapInfo) -> None:
    """Refuse what was made for the map at ``path`` as it was opened where ``now`` it is another.

    Raises:
        MapError: its places are described, stored or positioned otherwise. (How matches are judged,
            and whether places lean on their neighbours, may be another.)
    """
    mine, theirs = (
        replace(calibrated(of, [None] * len(of.bands)), neighbours=False) for of in (opened, now)
    )
    if mine != theirs:
        raise MapError(f"{path} is another map by now: open it again")


def _check_fits(info: MapInfo, places: Places) -> None:
    if len(places.rows) != len(info.bands) or any(
        rows.data.shape[1] != info.row_bytes or (rows.norms is not None) != (info.kind == "int8")
        for rows in places.rows
    ):
        raise MapError("these places have other bands, kind or size than the map")


def append_bytes(info: MapInfo, tag: str) -> int:
    """By how many bytes one more place lets the files of a map grow, at the most."""
    return HEADER.size + record_bytes(info, tag)


def map_bytes(path: str | Path) -> int:
    """Bytes of a map's file and of its journal."""
    total = 0
    for file in (Path(path), journal_path(path)):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(file).st_size
    return total

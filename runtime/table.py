"""The list of a release's files: what the host announces and the board holds it to.

In: rows from JSON. Out: checked rows, the release's name, the text of ``release.json``. Used by
both ends of a deploy and by whoever starts a release; standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.spec.errors import ArtifactError, DeployError
from tatvpr_edge.spec.manifest import check_member

from . import deployed

MAX_FILES = 20_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,79}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,120}")
_SINGLE = (deployed.MAP, deployed.PYTHON, deployed.START)
_FOLDERS = (deployed.ARTIFACT + "/", deployed.RUNTIME + "/")


@dataclass(frozen=True)
class Row:
    """One file of a release: POSIX path inside it, size, lower-case hex SHA-256."""

    path: str
    bytes: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True)
class Stamp:
    """What a list that is signed says of itself.

    Attributes:
        serial: a board that has seen a larger one refuses this list.
        board: the board that the release is for.
        expires: seconds since 1970 after which it is no longer installed; None: never.
    """

    serial: int
    board: str
    expires: int | None = None


@dataclass(frozen=True)
class Table:
    """All files of a release and what it is, for people."""

    label: str
    rows: tuple[Row, ...]
    #: What the map was called on the machine that it came from; empty without a map.
    map_name: str = ""
    #: None: the list is not signed.
    stamp: Stamp | None = None

    def text(self) -> bytes:
        """``release.json``: canonical, so that equal releases are equal bytes."""
        rows = [[row.path, row.bytes, row.sha256, int(row.executable)] for row in self.rows]
        document: dict[str, Any] = {"format": 1, "label": self.label, "files": rows}
        if self.map_name:
            document["map_name"] = self.map_name
        if self.stamp is not None:
            # What every reader has to know beyond this format stands in "requires".
            document.update(dataclasses.asdict(self.stamp), format=2, requires=[])
        return json.dumps(document, sort_keys=True, indent=0).encode("ascii") + b"\n"

    @property
    def name(self) -> str:
        """The release's folder: what it is, and a hash of all its content."""
        return self.label + "-" + hashlib.sha256(self.text()).hexdigest()[:16]

    @property
    def content(self) -> str:
        """A hash of all its content, whether and whenever it was signed."""
        return hashlib.sha256(dataclasses.replace(self, stamp=None).text()).hexdigest()

    @property
    def map(self) -> Row | None:
        """The place map, if the release has one."""
        return next((row for row in self.rows if row.path == deployed.MAP), None)

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(row.bytes for row in self.rows)


def is_release_name(name: Any) -> bool:
    """Whether ``name`` can be a release's folder below ``releases``: it has no other characters and
    does not climb."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and ".." not in name


def check_release_name(name: Any) -> str:
    """``name`` when it can be a folder below ``releases``.

    Raises:
        DeployError: it cannot.
    """
    if not is_release_name(name):
        raise DeployError(f"{str(name)[:80]!r} is no name of a release: see `tatvpr-edge status`")
    return str(name)


def make_table(
    label: str, rows: list[Row], map_name: str = "", stamp: Stamp | None = None
) -> Table:
    """A table, sorted and checked.

    Raises:
        DeployError: a path leaves the release or has unusual characters, or is there twice.
    """
    if not isinstance(label, str) or _LABEL.fullmatch(label) is None or ".." in label:
        raise DeployError(f"{str(label)[:80]!r} cannot be part of a release's name")
    if len(rows) > MAX_FILES:
        raise DeployError(f"a release of {len(rows)} files: at most {MAX_FILES} are supported")
    if not isinstance(map_name, str) or len(map_name) > 200 or not map_name.isprintable():
        raise DeployError("the name of the map is no line of text")
    for row in rows:
        _check_row(row)
    names = [row.path for row in rows]
    folders = {name[:i] for name in names for i, letter in enumerate(name) if letter == "/"}
    if len(set(names)) != len(names) or folders & set(names):
        raise DeployError("a file of the release is listed twice")
    return Table(label, tuple(sorted(rows, key=lambda row: row.path)), map_name, stamp)


def parse_table(document: Any) -> Table:
    """The table in a parsed ``release.json``, or in the host's announcement.

    Raises:
        DeployError: it is malformed.
    """
    try:
        if document["format"] not in (1, 2):
            raise DeployError("the release's format is newer than this tool: update tatvpr-edge")
        stamp = _stamp(document) if document["format"] == 2 else None
        rows = [Row(path, size, digest, bool(x)) for path, size, digest, x in document["files"]]
        return make_table(document["label"], rows, document.get("map_name", ""), stamp)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DeployError("the list of the release's files is malformed") from None


def _stamp(document: dict[str, Any]) -> Stamp:
    if document["requires"] != []:
        raise DeployError(
            f"the release requires {str(document['requires'])[:80]}, which this tool does not "
            "know: update tatvpr-edge"
        )
    stamp = Stamp(document["serial"], document["board"], document["expires"])
    for number in (stamp.serial, 1 if stamp.expires is None else stamp.expires):
        if type(number) is not int or not 0 < number < 2**53:
            raise DeployError("the serial or the expiry of the release is no time")
    if not isinstance(stamp.board, str) or _LABEL.fullmatch(stamp.board) is None:
        raise DeployError("the release names no board")
    return stamp


def _check_row(row: Row) -> None:
    try:
        check_member(row.path)
    except ArtifactError as error:
        raise DeployError(str(error)) from None
    if row.path not in _SINGLE and not row.path.startswith(_FOLDERS):
        raise DeployError(f"file {row.path!r} has no place in a release")
    if isinstance(row.bytes, bool) or not isinstance(row.bytes, int) or row.bytes < 0:
        raise DeployError(f"file {row.path!r} has no valid size")
    if not isinstance(row.sha256, str) or _SHA256.fullmatch(row.sha256) is None:
        raise DeployError(f"file {row.path!r} has no valid SHA-256")

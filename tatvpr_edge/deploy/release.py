"""What a release is made of, on the host's side.

In: an artifact, perhaps a place map, and this very package. Out: the table of files and where each
file's bytes come from. Nothing is copied on the host; a file that changes between here and its
sending is noticed by :mod:`tatvpr_edge.deploy.push`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tatvpr_edge
from tatvpr_edge.runtime import deployed, signature, signing
from tatvpr_edge.runtime.table import Row, Stamp, Table, make_table
from tatvpr_edge.spec.artifact import MANIFEST, SIGNATURE, Artifact, read_artifact
from tatvpr_edge.spec.errors import BoardError, DeployError, MapError

from .packed import start_file
from .protocol import CHUNK
from .script import release_script

#: The rooms that a board needs; the compilers, models and the command line stay here.
RUNTIME_ROOMS = ("spec", "boards", "runtime")
_RUNTIME_SUFFIXES = (".py", ".toml", ".json")
_NOT_IN_LABEL = re.compile(r"[^A-Za-z0-9_.\-]+")
#: The bytes of a file of the release: a path, a member of a wheel, or the bytes themselves.
#: None: the board has it, and it is not sent.
Source = Path | tuple[Path, str] | bytes | None


@dataclass(frozen=True)
class KeptMap:
    """The map of the release that is live on a board, kept by the new one."""

    row: Row
    name: str


@dataclass(frozen=True)
class Release:
    """A table, and the source of each of its rows (in the table's order)."""

    table: Table
    sources: tuple[Source, ...]
    artifact: Artifact


def open_artifact(path: str | Path | Artifact, place_map: str | Path | None) -> Artifact:
    """Check an artifact and the map that goes with it, before anything is sent: of an artifact
    that was read before, the map alone.

    Raises:
        ArtifactError: the artifact is not whole.
        MapError: the map is no place map, of another model, or newer than the artifact's code.
        BoardError: the artifact is for a microcontroller, which has no SSH.
    """
    artifact = path if isinstance(path, Artifact) else read_artifact(path)
    manifest = artifact.manifest
    if manifest.code.kind != "shared-library":
        raise BoardError(
            f"{artifact.root} is for the microcontroller {manifest.board}, which has no SSH: "
            f"{flash_tool(manifest.board)}"
        )
    if place_map is not None:
        _check_map(Path(place_map), artifact)
    return artifact


def flash_tool(board: str) -> str:
    """What puts a program on a microcontroller, in words."""
    from tatvpr_edge.boards.loader import load

    try:
        emulator = load(board).emulator
    except BoardError:
        emulator = None
    if board.startswith("stm32"):
        return "link it into your firmware and flash that with STM32_Programmer_CLI -c port=SWD -w"
    if emulator is not None:
        return (
            f"link it into your firmware and run that in {emulator.program} "
            f"(apt-get install {emulator.package})"
        )
    return "link it into your firmware and flash that with the board's own tool (openocd, probe-rs)"


@dataclass(frozen=True)
class Runtime:
    """The runtime's files as a release holds them, hashed."""

    sources: dict[str, Source]
    rows: dict[str, Row]


def read_runtime(wheel: Path | None) -> Runtime:
    """The runtime of ``wheel``, or of the package that is running.

    Raises:
        DeployError: it cannot be read, or is none.
    """
    found = _wheel_members(wheel) if wheel is not None else _package_members()
    sources = {f"{deployed.RUNTIME}/{name}": source for name, source in found}
    return Runtime(sources, {path: _row(path, source) for path, source in sources.items()})


def make_release(
    artifact: Artifact,
    place_map: str | Path | KeptMap | None,
    runtime: Runtime | None,
    python: list[str],
) -> Release:
    """List and hash every file of a release.

    Args:
        place_map: the map to send, or the one that the board keeps.
        runtime: what travels along; None: the board has one.
        python: the board's Python, words of a command, for the release's own ``python`` script.

    Raises:
        DeployError, MapError, ArtifactError: a source is missing or cannot be read.
    """
    sources: dict[str, Source] = {}
    members = [MANIFEST, *(entry.path for entry in artifact.manifest.files)]
    if artifact.signed:
        members.append(SIGNATURE)
    for member in members:
        sources[f"{deployed.ARTIFACT}/{member}"] = artifact.root / member
    map_name = ""
    if isinstance(place_map, KeptMap):
        sources[deployed.MAP] = None
        map_name = place_map.name
    elif place_map is not None:
        sources[deployed.MAP] = Path(place_map)
        map_name = _NOT_IN_LABEL.sub("-", Path(place_map).name)[:80]
    if runtime is not None:
        sources.update(runtime.sources)
    sources[deployed.PYTHON] = release_script(python).encode("utf-8")
    sources[deployed.START] = start_file()
    manifest = artifact.manifest
    known = _known_rows(artifact) | ({} if runtime is None else runtime.rows)
    if isinstance(place_map, KeptMap):
        known[deployed.MAP] = place_map.row
    rows = [known.get(path) or _row(path, source) for path, source in sources.items()]
    label = _NOT_IN_LABEL.sub("-", f"{manifest.model.name}-{manifest.board}")[:60].strip("-.")
    table = make_table(label or "release", rows, map_name)
    return Release(table, tuple(sources[row.path] for row in table.rows), artifact)


def sign_release(
    release: Release, key: str | Path, expires_days: float | None, live: dict[str, Any] | None
) -> tuple[Release, bytes]:
    """The release with a list that can be signed, and the signature of that list.

    Args:
        key: an OpenSSH private key, or the public key of one that ssh-agent holds.
        expires_days: after so many days no board installs it any more; None: it never expires.
        live: the board's live list, as its agent says; the same content is signed as the same
            release, unless an expiry is wanted.

    Raises:
        SignatureError: the key is missing, or ssh-keygen refuses it.
    """
    now = signing.new_serial()
    board = release.artifact.manifest.board
    serial = now
    same = live is not None and live["content"] == release.table.content
    if live is not None and same and live["board"] == board and 0 < live["serial"] <= now:
        serial = live["serial"] if expires_days is None and live["expires"] is None else now
    expires = None if expires_days is None else now + round(86400 * expires_days)
    table = dataclasses.replace(release.table, stamp=Stamp(serial, board, expires))
    made = signing.sign_bytes(table.text(), key, signature.RELEASE_NAMESPACE)
    return dataclasses.replace(release, table=table), made


def read_source(source: Source, offset: int = 0) -> Iterator[bytes]:
    """The bytes of a source from ``offset`` on, in pieces.

    Raises:
        DeployError: it cannot be read.
    """
    if source is None:
        raise DeployError(
            "the map of the robot's live release was written anew meanwhile, or is damaged: deploy "
            "again, or give --map"
        )
    try:
        if isinstance(source, bytes):
            if source[offset:]:
                yield source[offset:]
        elif isinstance(source, tuple):
            with zipfile.ZipFile(source[0]) as wheel:
                data = wheel.read(source[1])[offset:]
            if data:
                yield data
        else:
            with open(source, "rb", buffering=0) as stream:
                stream.seek(offset)
                while chunk := stream.read(CHUNK):
                    yield chunk
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        name = source[0] if isinstance(source, tuple) else source
        raise DeployError(f"cannot read {name!s}: {error}") from None


def _known_rows(artifact: Artifact) -> dict[str, Row]:
    """Rows of an artifact's files, by path: opening it checked each against the manifest, and one
    that changes before it is sent is noticed then."""
    inside = deployed.ARTIFACT + "/"
    return {
        inside + entry.path: Row(inside + entry.path, entry.bytes, entry.sha256)
        for entry in artifact.manifest.files
    }


def _row(path: str, source: Source) -> Row:
    size, digest = 0, hashlib.sha256()
    for chunk in read_source(source):
        size += len(chunk)
        digest.update(chunk)
    return Row(path, size, digest.hexdigest(), path == deployed.PYTHON)


def _check_map(path: Path, artifact: Artifact) -> None:
    from tatvpr_edge.runtime.placemap import PlaceMap
    from tatvpr_edge.runtime.search import check_functions

    place_map = PlaceMap(path, artifact.manifest.model)
    code = artifact.manifest.code.path
    # Of whatever processor: the names of its functions lie between zeros.
    library = artifact.read(code)
    check_functions(
        artifact.root / code, place_map.info, lambda name: f"\0{name}\0".encode() in library
    )
    added = len(place_map) - len(place_map.stored.base)
    if added:
        raise MapError(
            f"{path} has places in its journal ({added}), which would stay behind: fold them "
            "in with `tatvpr-edge map compact` first"
        )


def _package_members() -> Iterator[tuple[str, Source]]:
    package = Path(tatvpr_edge.__path__[0])
    yield "tatvpr_edge/__init__.py", package / "__init__.py"
    for room in RUNTIME_ROOMS:
        top = package / room
        for folder, folders, files in os.walk(top, followlinks=False):
            inside = Path(folder).relative_to(top)
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "core"))
            for name in sorted(files):
                if name.endswith(_RUNTIME_SUFFIXES):
                    member = (Path("tatvpr_edge") / room / inside / name).as_posix()
                    yield member, Path(folder) / name


def _wheel_members(wheel: Path) -> Iterator[tuple[str, Source]]:
    rooms = tuple(f"tatvpr_edge/{room}/" for room in RUNTIME_ROOMS)
    found = False
    if wheel.exists() and not wheel.is_file():  # a pipe would be waited for
        raise DeployError(f"{wheel} is no wheel, but a folder, a pipe or a device: give a file")
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DeployError(f"{wheel} is no wheel: {error}") from None
    for name in names:
        if name == "tatvpr_edge/__init__.py" or (
            name.startswith(rooms)
            and name.endswith(_RUNTIME_SUFFIXES)
            and not name.startswith("tatvpr_edge/runtime/core/")
        ):
            found = True
            yield name, (wheel, name)
    if not found:
        raise DeployError(f"{wheel} does not hold tatvpr_edge: make it with `make wheels`")

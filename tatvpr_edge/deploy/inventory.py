"""Many boards at once, staged: canaries first, one by one; then the rest in parallel, and no new
board after the first failure.

In: an inventory (TOML). Out: one outcome a board, as each is done. The file::

    artifact = "out/jetson-orin-nano"     # relative to the inventory; a board may name its own
    map = "hall.placemap"                 # may be left out

    [[board]]
    host = "robot@jetson-1"
    canary = true

    [[board]]
    host = "robot@jetson-2"
    port = 2222
    artifact = "out/raspberry-pi-5"

Also per board or for all: root, python. Without any canary the first board is it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.documents import read_toml
from tatvpr_edge.spec.errors import DeployError, TatvprError
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import nameable
from tatvpr_edge.spec.workers import as_done

from .naming import LOCAL, lead
from .push import Options, Result, deploy
from .release import open_artifact
from .transport import LocalTransport, SshTransport, Transport

_KEYS = {"host": str, "port": int, "artifact": str, "map": str, "root": str, "python": str}
_SHARED = ("port", "artifact", "map", "root", "python")


@dataclass(frozen=True)
class Board:
    """One line of an inventory, its files relative to the inventory's folder."""

    host: str
    artifact: Path | None = None
    map: Path | None = None
    port: int | None = None
    root: str | None = None
    python: str | None = None
    canary: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one board: ``result``, or ``error``, or neither where it was not begun."""

    board: Board
    result: Result | None = None
    error: str | None = None


def read_inventory(path: Path) -> list[Board]:
    """The boards of an inventory.

    Raises:
        DeployError: the file cannot be read or a key is wrong; the text names it.
    """
    document = read_toml(path, DeployError)
    shared = {key: document.pop(key) for key in _SHARED if key in document}
    entries = document.pop("board", [])
    if document:
        raise DeployError(f"{path}: unknown key {sorted(document)[0]!r}")
    if not isinstance(entries, list) or not entries:
        raise DeployError(f'{path} lists no boards: add [[board]] with host = "USER@HOST"')
    boards = [_board(path, shared, entry) for entry in entries]
    places = [(board.host, board.port, board.root) for board in boards]
    for place in places:
        if places.count(place) > 1:
            raise DeployError(f"{path}: board {place[0]} is listed twice")
    if not any(board.canary for board in boards):
        boards[0] = replace(boards[0], canary=True)
    return boards


def _board(path: Path, shared: dict[str, Any], own: Any) -> Board:
    if not isinstance(own, dict) or not isinstance(own.get("host"), str):
        raise DeployError(f'{path}: a [[board]] has no host = "USER@HOST"')
    entry = {**shared, **own}
    canary = entry.pop("canary", False)
    for key, value in entry.items():
        kind = _KEYS.get(key)
        if kind is None or not isinstance(value, kind) or isinstance(value, bool):
            raise DeployError(f"{path}: board {lead(entry['host'])} {key!r} is unknown or wrong")
        if isinstance(value, str) and key != "host" and not (value and nameable(value)):
            raise DeployError(f"{path}: board {lead(entry['host'])} no {key} can be called so")
    if not isinstance(canary, bool):
        raise DeployError(f"{path}: board {lead(entry['host'])} canary is true or false")
    if not 1 <= entry.get("port", 22) <= 65535:
        raise DeployError(
            f"{path}: board {lead(entry['host'])} port is {entry['port']}: 1 to 65535"
        )
    for key in ("artifact", "map"):
        if key in entry:
            entry[key] = path.parent / entry[key]
    return Board(**entry, canary=canary)


def open_transport(board: Board, config: str | None) -> Transport:
    """The way to a board of an inventory, or of the command line; nobody is there to be asked."""
    if board.host == LOCAL:
        return LocalTransport()
    return SshTransport(board.host, board.port, config, batch=True)


def deploy_all(
    boards: list[Board],
    artifact: Path | None,
    place_map: Path | None,
    options: Options,
    config: str | None = None,
    parallel: int = 8,
    on_begin: Callable[[Board], None] = lambda board: None,
) -> Iterator[Outcome]:
    """Deploy to all boards; outcomes as they come, those not begun at the end.

    Everything that is to be sent is checked before the first board is touched.

    Raises:
        ArtifactError, MapError, DeployError: what is to be sent is not whole, or not named.
    """
    opened: dict[tuple[Path, Path | None], Artifact] = {}
    jobs = []
    for board in boards:
        source, its_map = board.artifact or artifact, board.map or place_map
        if source is None:
            raise DeployError(f"no artifact for {lead(board.host)} name one in the inventory")
        if (source, its_map) not in opened:
            opened[source, its_map] = open_artifact(source, its_map)
        jobs.append((board, opened[source, its_map], its_map, open_transport(board, config)))
    stop = threading.Event()

    def one(job: tuple[Board, Artifact, Path | None, Transport]) -> Outcome:
        board, whole, its_map, transport = job
        if stop.is_set():
            return Outcome(board)
        on_begin(board)
        own = replace(
            options, root=board.root or options.root, python=board.python or options.python
        )
        try:
            return Outcome(board, deploy(transport, whole, its_map, own))
        except (TatvprError, OSError) as error:
            stop.set()
            return Outcome(board, error=printable(error))
        except Exception as error:  # one board's is not the end of the others' report
            stop.set()
            fault = f"{type(error).__name__}: {printable(error)[:300]}"
            return Outcome(board, error=f"{fault}: this is a fault of tatvpr-edge")

    for job in jobs:
        if job[0].canary:
            yield one(job)
    rest = [job for job in jobs if not job[0].canary]
    yield from as_done(one, rest, parallel)

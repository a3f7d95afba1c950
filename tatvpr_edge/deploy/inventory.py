"""Many boards at once, staged: canaries first, one by one; then the rest in parallel, and no new
board after the first on which the release was tried and failed.

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

Also per board or for all: root, python. Without any canary the first board that takes it is it. A
board that is off, refuses the login or has no room says nothing of the release: the others go on.
"""

from __future__ import annotations

import os
import shlex
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
from .transport import Transport, transport_to

_KEYS = {"host": str, "port": int, "artifact": str, "map": str, "root": str, "python": str}
_SHARED = ("port", "artifact", "map", "root", "python")
#: From this step on a board runs what it was sent.
_TRIED = "golden"
_UNKNOWN = "interrupted before it answered: it has the old release or the new one, see its `status`"


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
    #: What it is called where other boards have its address: behind one router, on one machine.
    apart: str | None = None

    @property
    def name(self) -> str:
        """Its address, or as our commands take it where that names more than one board."""
        return self.apart or self.host


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
    hosts = [board.host for board in boards]
    return [b if hosts.count(b.host) == 1 else replace(b, apart=_apart(b)) for b in boards]


def _apart(board: Board) -> str:
    port = [] if board.port is None else ["--port", str(board.port)]
    return shlex.join([board.host, *port, *([] if board.root is None else ["--root", board.root])])


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
            entry[key] = path.parent / os.path.expanduser(entry[key])
    if entry["host"] == LOCAL and not entry.get("root", "~").startswith("~"):
        entry["root"] = os.path.join(path.parent, entry["root"])  # of this machine, too
    return Board(**entry, canary=canary)


def open_transport(board: Board, config: str | None) -> Transport:
    """The way to a board of an inventory, or of the command line; nobody is there to be asked."""
    return transport_to(board.host, board.port, config, batch=True)


def deploy_all(
    boards: list[Board],
    artifact: Path | None,
    place_map: Path | None,
    options: Options,
    config: str | None = None,
    parallel: int = 8,
    on_begin: Callable[[Board], None] = lambda board: None,
    on_wait: Callable[[list[Board]], None] = lambda boards: None,
) -> Iterator[Outcome]:
    """Deploy to all boards; outcomes as they come, those not begun at the end.

    Everything that is to be sent is checked before the first board is touched. An interruption ends
    it once boards that were begun are done, for which it waits (``on_wait``), or it comes again;
    then all outcomes are told first.

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
    begun: set[Board] = set()
    made: dict[Board, Outcome] = {}
    told: set[Board] = set()

    def one(job: tuple[Board, Artifact, Path | None, Transport]) -> Outcome:
        board, whole, its_map, transport = job
        if stop.is_set():
            return Outcome(board)
        begun.add(board)
        on_begin(board)
        own = replace(
            options, root=board.root or options.root, python=board.python or options.python
        )
        steps: set[Any] = set()
        try:
            result = deploy(transport, whole, its_map, own, lambda e: steps.add(e.get("name")))
            made[board] = Outcome(board, replace(result, board=board.name))
        except (TatvprError, OSError) as error:
            if _TRIED in steps:
                stop.set()
            made[board] = Outcome(board, error=printable(error))
        except Exception as error:  # one board's is not the end of the others' report
            stop.set()
            fault = f"{type(error).__name__}: {printable(error)[:300]}"
            made[board] = Outcome(board, error=f"{fault}: this is a fault of tatvpr-edge")
        return made[board]

    def waits() -> None:
        stop.set()
        if left := [board for board in boards if board in begun and board not in made]:
            on_wait(left)

    def in_turn() -> Iterator[Outcome]:
        alone = [job for job in jobs if job[0].canary]
        others = [job for job in jobs if not job[0].canary]
        for job in alone or jobs:
            yield from as_done(one, [job], 1, waits)
            if not alone:
                del others[0]
                if any(outcome.result for outcome in made.values()):
                    break
        if not any(outcome.result for outcome in made.values()):
            stop.set()  # no canary tells whether the release is good
        yield from as_done(one, others, parallel, waits)

    try:
        for outcome in in_turn():
            told.add(outcome.board)
            yield outcome
    except KeyboardInterrupt:
        for board in boards:
            if board not in told:
                unknown = _UNKNOWN if board in begun else None
                yield made.get(board) or Outcome(board, error=unknown)
        raise

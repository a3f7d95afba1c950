"""A map on the disk whose writer is killed, whose journal is torn and whose disk is full: what was
acknowledged stays."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import struct
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from soaking.ledger import Ledger
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path, read_map, torn_path
from tatvpr_edge.spec.errors import MapError, TatvprError
from tatvpr_edge.spec.placemap import MapInfo, make_places, write_map

#: The map begins anew beyond so many places, so that a soak of hours ends as large as one of
#: minutes.
MOST_PLACES = 400


def _places(info: MapInfo, number: int) -> object:
    rng = np.random.default_rng(number)
    size = info.descriptor_size or info.dim
    rows = [rng.standard_normal((1, size)).astype(np.float32) for _ in info.bands]
    return make_places(info, rows, np.full((1, 7), np.nan), [f"written {number}"])


def _write(path: str, info: MapInfo, first: int, told: Connection, room: int | None) -> None:
    """A writer: adds places as fast as it can and tells of each that was acknowledged. With
    ``room``, its files may grow by so much, as on a disk that fills up."""
    if room is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = journal_path(path)
        here = journal.stat().st_size if journal.exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (here + room, resource.RLIM_INFINITY))
    number = first
    while True:
        try:
            append(path, _places(info, number))  # type: ignore[arg-type]
        except MapError:
            told.send(None)
            return
        number += 1
        told.send(number)


def tear(path: Path, info: MapInfo, service: Path, ledger: Ledger, over: threading.Event) -> None:
    """Write, kill, tear, fill the disk, read again, until ``over``; a service opens the result."""
    chance = random.Random(3)
    spawn = multiprocessing.get_context("spawn")
    write_map(path, info, [])
    known = 0
    while not over.is_set():
        full = chance.random() < 0.3
        mine, theirs = spawn.Pipe(duplex=False)
        room = chance.randrange(4_000, 20_000) if full else None
        writer = spawn.Process(target=_write, args=(str(path), info, known, theirs, room))
        writer.start()
        theirs.close()
        acknowledged = _listen(mine, writer, known, full, chance, over)
        ledger.fault("disk full" if full else "writer killed")
        if chance.random() < 0.7 and journal_path(path).exists():
            with journal_path(path).open("ab") as journal:  # a record that was cut
                journal.write(struct.pack("<4sI", b"PLCS", 4096) + chance.randbytes(17))
            ledger.fault("journal torn")
        known = _check(path, known, acknowledged, ledger)
        _serve(path, service, ledger)
        if chance.random() < 0.2:
            compact(path)
        if known > MOST_PLACES:
            for old in (torn_path(path), journal_path(path)):
                old.unlink(missing_ok=True)
            write_map(path, info, [])
            known = 0
        over.wait(0.2)


def _listen(
    mine: Connection,
    writer: multiprocessing.process.BaseProcess,
    known: int,
    full: bool,
    chance: random.Random,
    over: threading.Event,
) -> int:
    """Places that the writer acknowledged before it was killed, or its disk was full."""
    acknowledged, begun = known, None
    patience_s = chance.uniform(0.05, 1.0)
    try:
        while True:
            if begun is not None and not full and time.monotonic() - begun > patience_s:
                break
            if mine.poll(0.02):
                told = mine.recv()
                if told is None:
                    break
                acknowledged = told
                begun = begun or time.monotonic()
            elif over.is_set():
                break
    except EOFError:
        pass
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    try:
        while mine.poll():
            acknowledged = mine.recv() or acknowledged
    except EOFError:
        pass
    mine.close()
    return acknowledged


def _check(path: Path, before: int, acknowledged: int, ledger: Ledger) -> int:
    """Every acknowledged place is there, in order; at most one more, which was being written."""
    try:
        stored = read_map(path)
    except MapError as error:
        ledger.miss("acknowledged place", str(error))
        return acknowledged
    count = len(stored)
    if not acknowledged <= count <= acknowledged + 1:
        ledger.miss("acknowledged place", f"{acknowledged} were acknowledged, {count} are there")
    tags = [*(stored.base.tag(i) for i in range(len(stored.base))), *stored.added.tags]
    if tags != [f"written {i}" for i in range(count)]:
        ledger.miss("acknowledged place", "places are there in another order, or others")
    ledger.did("acknowledged place", times=count - before)
    return count


def _serve(path: Path, service: Path, ledger: Ledger) -> None:
    """A running service takes the map as it is now, and goes back to its own."""
    try:
        with Client(service, timeout_s=60) as client:
            own = client.info()["map_path"]
            client.set(map=str(path))
            client.set(map=own)
    except TatvprError as error:
        ledger.miss("map changed live", str(error))
    else:
        ledger.did("map changed live")

"""The service as systemd runs it, its clients, and what is done to both."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soaking.ledger import Ledger
from tatvpr_edge.runtime import messages
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.spec.errors import TatvprError


@dataclass
class Limits:
    """How long the slowest may take; :meth:`stretch` is for a machine that does other work."""

    #: A good query after bad messages to a service that is not killed.
    answer_s: float = 10.0
    #: A service that was killed, until it answers again.
    restart_s: float = 60.0

    def stretch(self, factor: float) -> None:
        """Everything may take ``factor`` times longer."""
        self.answer_s *= factor
        self.restart_s *= factor


LIMITS = Limits()
GOOD = "good query after bad messages"
#: Tags of the map that a service is made to search for a moment begin so.
OTHER_MAP = "written "


@dataclass(frozen=True)
class Known:
    """A frame, and the tag of the place that it shows."""

    frame: Any
    tag: str


class Supervised:
    """A service that is started again whenever it ends, until :meth:`stop`."""

    def __init__(self, artifact: Path, place_map: Path, path: Path, log: Path) -> None:
        self.path = path
        words = [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--artifact", str(artifact)]
        self._words = [*words, "--map", str(place_map), "--socket", str(path), "--k", "0.2"]
        self._log = log.open("ab")
        self._stopping = False
        self.process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, stdout=self._log, stderr=self._log)

    def _keep(self) -> None:
        while not self._stopping:
            self.process.wait()
            if not self._stopping:
                self.process = self._start()

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + LIMITS.restart_s
        while True:
            try:
                with Client(self.path) as client:
                    client.info()
                return
            except TatvprError:
                if time.monotonic() > end or self.process.poll() not in (None, -9, 0):
                    raise
                time.sleep(0.1)

    def end(self, number: int) -> None:
        """Send a signal; it is started again."""
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """End it for good."""
        self._stopping = True
        self.process.terminate()
        self.process.wait()
        self._thread.join()
        self._log.close()


def ask(path: Path, known: list[Known], ledger: Ledger, over: threading.Event, name: str) -> None:
    """A robot program: asks for one known place after the other, over restarts, until ``over``."""
    chance = random.Random(name)
    with Client(path, timeout_s=LIMITS.restart_s, restart_s=LIMITS.restart_s) as client:
        while not over.is_set():
            wanted = chance.choice(known)
            started = time.monotonic()
            try:
                match = client.query(wanted.frame, top=chance.choice((1, 1, 1, 5)))
            except TatvprError as error:
                ledger.miss(name, str(error))
                continue
            if match.tag.startswith(OTHER_MAP):
                ledger.did("answered from a map that was set meanwhile")
            elif match.tag != wanted.tag:
                ledger.miss(name, f"{wanted.tag} was taken for {match.tag} ({match.score:.3f})")
            ledger.did(name, time.monotonic() - started)


def end_again_and_again(
    service: Supervised, ledger: Ledger, over: threading.Event, every_s: float
) -> None:
    """Kill the service, or end it as a deploy does, by turns."""
    chance = random.Random(5)
    while not over.wait(every_s * chance.uniform(0.5, 1.5)):
        number = chance.choice((signal.SIGKILL, signal.SIGTERM))
        ledger.fault("service killed" if number == signal.SIGKILL else "service restarted")
        service.end(number)
        service.wait()


def bad_messages(chance: random.Random) -> list[bytes]:
    """One of every kind."""
    header = struct.Struct(">II")
    query = json.dumps({"op": "query", "format": "RGB888", "width": 4, "height": 4}).encode()
    planes = json.dumps({"op": "query", "format": "X", "planes": [[2**20, 2**20]] * 99}).encode()
    return [
        b"",
        b"\0\0",
        header.pack(2**32 - 1, 2**32 - 1),
        header.pack(5, 90 << 20) + b"{}",  # announces and does not send
        header.pack(4, 0) + b"nope",
        header.pack(2, 0) + b"[]",
        header.pack(10, 0) + b'{"op":"x"}',
        header.pack(len(query), 0) + query,
        header.pack(len(planes), 0) + planes,
        header.pack(50_000, 0) + b"[" * 50_000,
        chance.randbytes(chance.randrange(1, 4096)),
    ]


def molest(
    service: Supervised, known: list[Known], ledger: Ledger, over: threading.Event, within_s: float
) -> None:
    """Bad messages of every kind, then a good query, until ``over``; one that took longer than
    ``within_s`` was missed. Of a service that is killed meanwhile a query takes a restart."""
    chance = random.Random(11)
    with Client(service.path, timeout_s=LIMITS.restart_s, restart_s=LIMITS.restart_s) as client:
        while not over.wait(0.2):
            _molest(service, client, known[0], ledger, chance, within_s)


def _molest(
    service: Supervised,
    client: Client,
    known: Known,
    ledger: Ledger,
    chance: random.Random,
    within_s: float,
) -> None:
    for data in bad_messages(chance):
        ledger.fault("bad message")
        # It may hang up on us, or be away just now.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            with messages.short_path(str(service.path)) as short:
                connection.connect(short)
            connection.sendall(data)
            if chance.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)
    name, started = f"{GOOD}, {service.path.stem} service", time.monotonic()
    try:
        client.query(known.frame)
    except TatvprError as error:
        ledger.miss(name, str(error))
        return
    took_s = time.monotonic() - started
    ledger.did(name, took_s)
    if took_s > within_s:
        ledger.miss(name, f"it took {took_s:.1f} s")

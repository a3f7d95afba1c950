"""A stream of frames, played again and again; pictures in it are damaged and mended meanwhile."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import tatvpr_edge
from soaking.ledger import Ledger
from soaking.service import LIMITS, OTHER_MAP
from tatvpr_edge.runtime.client import Client

PART = "frame of a stream"
#: Between two passes: a pass opens and closes a stream.
_PAUSE_S = 0.5


def play(gallery: Path, folder: Path, service: Path, ledger: Ledger, over: threading.Event) -> None:
    """Ask the service for every frame of ``folder``, a copy of ``gallery``, until ``over``. Each
    whole picture comes once a pass, under its name; a damaged one does not end the stream."""
    chance = random.Random(17)
    shutil.copytree(gallery, folder)
    names = sorted(path.name for path in folder.iterdir())
    with Client(service, timeout_s=LIMITS.restart_s, restart_s=LIMITS.restart_s) as client:
        while not over.is_set():
            damaged = chance.choice(names) if chance.random() < 0.5 else None
            if damaged is not None:
                data = (gallery / damaged).read_bytes()
                (folder / damaged).write_bytes(data[: chance.randrange(len(data) // 2)])
                ledger.fault("picture damaged")
            seen = []
            with tatvpr_edge.stream(folder) as frames:
                for frame in frames:
                    started = time.monotonic()
                    match = client.query(frame.image)
                    seen.append(frame.name)
                    if match.tag != frame.name and not match.tag.startswith(OTHER_MAP):
                        ledger.miss(PART, f"{frame.name} was taken for {match.tag}")
                    ledger.did(PART, time.monotonic() - started)
            if seen != [name for name in names if name != damaged]:
                ledger.miss(PART, f"{len(seen)} of {len(names)} came, {damaged} was damaged")
            if damaged is not None:
                shutil.copy(gallery / damaged, folder / damaged)
            over.wait(_PAUSE_S)

"""Everything at once, for as long as one likes, under injected faults.

    python tools/soak.py [--minutes 60] [--artifact DIR] [--patience 5]

A service with clients is killed, restarted and sent bad messages; a second one is never killed,
takes maps live and is measured; a robot's program queries, adds places within a limit and lets the
governor choose k by telemetry that goes silent, lies and hangs; a map's writer is killed, its
journal torn, its disk full; a stream plays pictures of which some are damaged. Printed: what was
done and how slow the slowest was, the faults, memory, open files and threads of every process that
lives throughout. Exit status 1 where an answer was missed, something acknowledged was lost, or a
process grew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from given import one_line, real, tool_parser

from soaking import maps, robot, streams
from soaking.growth import Trend
from soaking.ledger import Ledger
from soaking.service import GOOD, LIMITS, Known, Supervised, ask, end_again_and_again, molest
from tatvpr_edge import build
from tatvpr_edge.cli.demo import make_demo_map
from tatvpr_edge.mapping import frame_files, read_frame
from tatvpr_edge.spec.placemap import read_base
from tatvpr_edge.zoo import ZOO

SAMPLE_S = 0.5
PLACES = 24


class Soak:
    """All parts of one soak, in ``folder``."""

    def __init__(self, folder: Path, artifact: Path, minutes: float) -> None:
        self.folder, self.artifact, self.minutes = folder, artifact, minutes
        self.ledger, self.over = Ledger(), threading.Event()
        self.gallery = gallery = folder / "gallery"
        gallery.mkdir()
        for file in frame_files(ZOO / "places" / "gallery")[:PLACES]:
            shutil.copy(file.path, gallery / Path(file.name).name)
        self.map = folder / "places.placemap"
        make_demo_map(str(artifact), gallery, [0.2], self.map, quiet=True)
        files = frame_files(gallery)
        self.known = [Known(read_frame(file.path), file.name) for file in files]
        self.trends: list[Trend] = []
        self.ended = False

    def threads(self, mortal: Supervised, steady: Supervised) -> list[threading.Thread]:
        """Whoever asks, and whoever does harm. A further part is one more row here."""
        info = read_base(self.map).info
        work: dict[str, Callable[[], None]] = {
            "client of a mortal service": lambda: ask(
                mortal.path, self.known, self.ledger, self.over, "client of a mortal service"
            ),
            "client of a steady service": lambda: ask(
                steady.path, self.known, self.ledger, self.over, "client of a steady service"
            ),
            "ends": lambda: end_again_and_again(mortal, self.ledger, self.over, 8.0),
            "bad messages": lambda: molest(
                mortal, self.known, self.ledger, self.over, LIMITS.restart_s
            ),
            "more of them": lambda: molest(
                steady, self.known, self.ledger, self.over, LIMITS.answer_s
            ),
            streams.PART: lambda: streams.play(
                self.gallery, self.folder / "played", steady.path, self.ledger, self.over
            ),
            "maps": lambda: maps.tear(
                self.folder / "written.placemap", info, steady.path, self.ledger, self.over
            ),
        }
        return [
            threading.Thread(target=self.ledger.watch, args=(name, part), name=name)
            for name, part in work.items()
        ]

    def run(self) -> None:
        """Until the minutes are over."""
        log = self.folder / "service.log"
        mortal = Supervised(self.artifact, self.map, self.folder / "mortal.sock", log)
        steady = Supervised(self.artifact, self.map, self.folder / "steady.sock", log)
        mine, theirs = multiprocessing.Pipe()
        growing = self.folder / "growing.placemap"
        shutil.copy(self.map, growing)
        frames = [known.frame for known in self.known[:8]]
        driver = robot.start(self.artifact, growing, frames, self.minutes, theirs)
        theirs.close()
        try:
            mortal.wait()
            steady.wait()
            parts = self.threads(mortal, steady)
            for part in parts:
                part.start()
            self.trends = [
                Trend("steady service", steady.process.pid),
                Trend("robot", driver.pid),
                Trend("clients", os.getpid()),
            ]
            self._watch(mine)
            for part in parts:
                part.join()
        finally:
            self.over.set()
            with contextlib.suppress(OSError):  # its program may have ended: that is told below
                mine.send("end")
            self._hear_out(mine, driver)
            for service in (mortal, steady):
                service.stop()

    def _watch(self, mine: Any) -> None:
        began = time.monotonic()
        while (now := time.monotonic() - began) < 60 * self.minutes:
            for trend in self.trends:
                trend.add(now)
            self._hear(mine)
            time.sleep(SAMPLE_S)
        self.over.set()

    def _hear(self, mine: Any) -> None:
        """What the robot's program has to tell."""
        try:
            while mine.poll():
                done, faults, missed = mine.recv()
                for what, times in done.items():
                    self.ledger.did(what, times=times)
                for kind, times in faults.items():
                    self.ledger.fault(kind, times)
                for what, why in missed:
                    self.ledger.miss(what, why)
        except (EOFError, ConnectionResetError):
            if not self.ended:
                self.ledger.miss("robot", "its program ended early")

    def _hear_out(self, mine: Any, driver: Any) -> None:
        end = time.monotonic() + 60
        self.ended = True
        while driver.is_alive() and time.monotonic() < end:
            self._hear(mine)
            driver.join(0.1)
        self._hear(mine)  # what it said last, and ended
        if driver.is_alive():
            self.ledger.miss("robot", "its program did not end")
            driver.kill()
        elif driver.exitcode != 0:
            self.ledger.miss("robot", f"its program ended with {driver.exitcode}")

    def report(self) -> list[str]:
        """Print what happened; the reasons to fail."""
        ledger = self.ledger
        print(f"{self.minutes:g} minutes")
        for what in sorted(ledger.done):
            slow = ledger.slowest_s.get(what, 0.0)
            said = f", the slowest in {slow:.2f} s" if slow else ""
            print(f"  {what}: {ledger.done[what]}{said}")
        print(f"{sum(ledger.faults.values())} injected faults:")
        for kind in sorted(ledger.faults):
            print(f"  {kind}: {ledger.faults[kind]}")
        for trend in self.trends:
            print(trend.line())
        failed = [fault for trend in self.trends for fault in trend.faults()]
        failed += [f"missed: {what} ({times})" for what, times in ledger.missed.items()]
        needed = ("client of a mortal service", "client of a steady service", "robot's query")
        needed += (
            "place added",
            "acknowledged place",
            *(f"{GOOD}, {service} service" for service in ("mortal", "steady")),
            streams.PART,
        )
        failed += [f"nothing of {what!r} happened" for what in needed if not ledger.done[what]]
        return failed


@one_line
def main() -> int:
    """Soak; exit status 1 where something was missed or grew."""
    parser = tool_parser(__doc__)
    parser.add_argument("--minutes", type=real(0.01, 1e5), default=60.0, help="how long (60)")
    parser.add_argument("--artifact", type=Path, help="default: micro, built for this machine")
    parser.add_argument(
        "--patience",
        type=real(1, 100),
        default=1.0,
        help="times longer that the slowest may take (1)",
    )
    arguments = parser.parse_args()
    LIMITS.stretch(arguments.patience)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        artifact = arguments.artifact or build("host", output=folder / "micro")
        soak = Soak(folder, artifact, arguments.minutes)
        soak.run()
        failed = soak.report()
        for line in [*soak.ledger.lines, *failed]:
            print(f"error: {line}", file=sys.stderr)
        if failed:
            tail = (folder / "service.log").read_text(errors="replace").splitlines()[-20:]
            print("\n".join(["the services said last:", *tail]), file=sys.stderr)
    print("nothing was missed, nothing grew" if not failed else "FAILED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

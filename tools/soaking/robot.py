"""A robot's program: queries, adds what it sees to a map that stays bounded, and lets the governor
choose k by telemetry that its own program feeds, and that goes silent, lies and hangs."""

from __future__ import annotations

import random
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.telemetry import Reading, Sampler
from tatvpr_edge.runtime.telemetry.fed import FedSource
from tatvpr_edge.spec.errors import TatvprError

SAFE_K = 0.4
MOST_PLACES = 150
BUDGET_W = 5.0
#: How long bad telemetry may be believed: readings grow old, and then safe_k holds.
BELIEVED_S = 5.0
#: What telemetry does, and for how many seconds.
MOODS = {"well": 30.0, "silent": 10.0, "zero": 10.0, "thousandfold": 10.0, "hanging": 10.0}
TELL_S = 0.5


class Moody:
    """A sensor that does as it is told."""

    name = "moody"

    def __init__(self) -> None:
        self.fed = FedSource(self.name, covers="the whole robot")
        self.mood = "well"

    def describe(self) -> str:
        """For people."""
        return "a sensor of the soak"

    def read(self, now_s: float) -> list[Reading]:
        """What was fed; a sensor that hangs answers when it is well again."""
        while self.mood == "hanging":
            time.sleep(0.05)
        return self.fed.read(now_s)

    def close(self) -> None:
        """Nothing is held."""

    def feed(self, watts: float) -> None:
        """One sample of the program's, as the mood has it."""
        shown = {"zero": 0.0, "thousandfold": 1000.0 * watts}.get(self.mood, watts)
        if self.mood != "silent":
            self.fed.feed(power_w=shown)


def drive(
    artifact: str, place_map: str, frames: list[Any], minutes: float, told: Connection
) -> None:
    """Drive until ``told`` says so, or the other end is gone. Sends (done, faults, missed)."""
    chance = random.Random(1)
    rng = np.random.default_rng(1)
    sensor = Moody()
    # A short soak goes through every mood once.
    scale = min(1.0, 60 * minutes / (1.1 * sum(MOODS.values())))
    moods = list(MOODS)
    with (
        Sampler([sensor], interval_s=0.1) as sampler,
        Localizer(
            artifact,
            place_map,
            k="auto",
            budget=f"{BUDGET_W:g}W",
            safe_k=SAFE_K,
            telemetry=sampler,
        ) as localizer,
    ):
        begun = said = time.monotonic()
        done: Counter[str] = Counter()
        faults: Counter[str] = Counter()
        missed: list[tuple[str, str]] = []
        number = 0
        while not told.poll():
            now = time.monotonic()
            if now - begun > MOODS[sensor.mood] * scale:
                sensor.mood = moods[(moods.index(sensor.mood) + 1) % len(moods)]
                begun = now
                if sensor.mood != "well":
                    faults[f"telemetry {sensor.mood}"] += 1
            sensor.feed(2.5 + 0.2 * chance.random())
            frame = np.roll(frames[number % len(frames)], 16 * (number // len(frames)), 1)
            try:
                _step(localizer, frame, number, rng, done, missed)
            except TatvprError as error:
                missed.append(("robot's step", str(error)))
            badly_s = time.monotonic() - begun if sensor.mood != "well" else 0.0
            assert localizer.governor is not None
            chosen = localizer.governor.choose()
            if badly_s > BELIEVED_S:
                if chosen.k > SAFE_K + 1e-6:
                    why = localizer.governor.why()
                    missed.append(("safe k", f"{sensor.mood} for {badly_s:.0f} s: {why}"))
                done["safe k held"] += 1
            done["k above the safe one, telemetry well"] += chosen.k > SAFE_K + 1e-6
            number += 1
            if now - said > TELL_S:
                told.send((done, faults, missed))
                done, faults, missed, said = Counter(), Counter(), [], now
        sensor.mood = "well"  # lets the sampler's thread go
        told.recv()
        told.send((done, faults, missed))


def _step(
    localizer: Localizer,
    frame: Any,
    number: int,
    rng: np.random.Generator,
    done: Counter[str],
    missed: list[tuple[str, str]],
) -> None:
    """One frame: queried, sometimes added; what was added is in the map."""
    match = localizer.query(frame, top=3)
    if match.place < 0 or not np.isfinite(match.score):
        missed.append(("robot's query", f"place {match.place}, score {match.score}"))
    done["robot's query"] += 1
    if number % 3:
        return
    pose = (float(rng.uniform(0, 100)), float(rng.uniform(0, 100)))
    tag = f"added {number}"
    added = localizer.add(frame, pose, tag, max_places=MOST_PLACES)
    place_map = localizer.map
    assert place_map is not None
    if added.place is None or place_map.tag(added.place) != tag:
        missed.append(("place added", f"{tag}: {added}"))
    elif len(place_map) > MOST_PLACES:
        missed.append(("place added", f"the map holds {len(place_map)} places"))
    done["place added"] += 1


def start(
    artifact: Path, place_map: Path, frames: list[Any], minutes: float, told: Connection
) -> Any:
    """The program as a process of its own."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(
        target=drive, args=(str(artifact), str(place_map), frames, minutes, told)
    )
    process.start()
    return process

"""A robot that maps while it drives, and closes loops: 2,000 frames, half of known places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.mapping import calibrate_map
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.service import resident_bytes

HEIGHT, WIDTH = 96, 128
#: Pixels of the wall between two frames, which stand a metre apart.
STEP_PX = 16
#: A closure is right within so many metres.
RIGHT_M = 5.0
FRAME_S = 0.5
#: What the map knows is not added again.
KNOWN_SCORE = 0.97


@dataclass(frozen=True)
class Wall:
    """A long wall of coloured blobs that the robot drives along, looking at it."""

    pixels: NDArray[np.float32]

    @classmethod
    def of(cls, metres: int) -> Wall:
        rng = np.random.default_rng(5)
        width = metres * STEP_PX + WIDTH
        coarse = rng.uniform(0, 255, (7, width // 16 + 2, 3)).astype(np.float32)
        across = np.arange(width) / 16
        left = across.astype(int)
        part = (across - left)[None, :, None].astype(np.float32)
        wide = coarse[:, left] * (1 - part) + coarse[:, left + 1] * part
        down = np.linspace(0, 5.999, HEIGHT)
        top = down.astype(int)
        share = (down - top)[:, None, None].astype(np.float32)
        return cls(wide[top] * (1 - share) + wide[top + 1] * share)

    def frame(self, metre: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """What a camera sees there: a little off, brighter or darker, with noise."""
        left = int(metre * STEP_PX) + int(rng.integers(0, STEP_PX // 4))
        seen = self.pixels[:, left : left + WIDTH] * rng.uniform(0.85, 1.0)
        noisy = seen + rng.normal(0, 4, seen.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def another_day(wall: Wall, folder: Path, rng: np.random.Generator) -> Path:
    """Frames of the first 500 m as files with positions, to learn from when answers are right."""
    folder.mkdir()
    rows = ["name,x,y"]
    for metre in range(0, 500, 2):
        Image.fromarray(wall.frame(metre, rng)).save(folder / f"{metre}.png")
        rows.append(f"{metre}.png,{metre},0")
    (folder / "poses.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.slow
def test_two_thousand_frames_with_revisits(tiny_host: Path, tmp_path: Path) -> None:
    wall, rng = Wall.of(1000), np.random.default_rng(6)
    path = tmp_path / "drive.placemap"
    # 500 m out; the same 500 m once more; 500 m of new wall; and a part of both.
    route = [*range(500), *range(500), *range(500, 1000), *range(250, 750)]
    times = [1e6 + FRAME_S * index for index in range(len(route))]
    # A closure: two frames in a row are accepted, and agree on where that is.
    where: float | None = None
    false: list[tuple[int, float]] = []
    seen = set(route[:500])
    found = revisits = early = 0
    with Localizer(tiny_host, k=1.0, tokens=1.0) as localizer:
        MapWriter(path, localizer).close()
        localizer.map = path  # type: ignore[assignment]
        for metre, now in zip(route[:500], times, strict=False):
            localizer.add(wall.frame(metre, rng), (metre, 0.0), time_s=now)
        day = another_day(wall, tmp_path / "day", rng)
        calibrate_map(localizer, path, day)
        localizer.map = path  # type: ignore[assignment]
        for metre, now in zip(route[500:], times[500:], strict=True):
            frame = wall.frame(metre, rng)
            match = localizer.query(frame, exclude_last="30s", time_s=now)
            revisits += metre in seen
            before, where = where, match.pose[0] if match.accepted and match.pose else None
            if before is not None and where is not None and abs(where - before) <= RIGHT_M:
                if abs(where - metre) <= RIGHT_M:
                    found += metre in seen
                else:
                    false.append((metre, where))
            localizer.add(
                frame,
                (metre, 0.0),
                match=match,
                novelty=KNOWN_SCORE,
                novelty_m=RIGHT_M,
                time_s=now,
            )
            seen.add(metre)
            early = early or resident_bytes()
        late = resident_bytes()
    assert not false
    assert revisits == 1000 and found >= 600
    assert late - early < 8 << 20  # the places that were added, and nothing for the queries

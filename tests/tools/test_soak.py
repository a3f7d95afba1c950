"""A soak fails where something grows or an acknowledged place is lost; CI runs one beside this."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from soaking import maps
from soaking.growth import Sample, Trend
from soaking.ledger import Ledger
from tatvpr_edge.spec.maptypes import Band, MapInfo, make_places
from tatvpr_edge.spec.placemap import write_map

FLAT = [Sample(t, 50.0 + 0.01 * (t % 3), 9, 4) for t in range(60)]


def trend(**growing: float) -> Trend:
    """A process in which these fields rise by so much a second."""
    found = Trend("it", 1)
    for sample in FLAT:
        more = {name: getattr(sample, name) + by * sample.at_s for name, by in growing.items()}
        found.samples.append(Sample(**{**vars(sample), **more}))
    return found


def test_a_process_that_stays_as_it_is_passes() -> None:
    assert trend().faults() == []
    warming = trend()
    warming.samples = [Sample(t, min(50.0, 30.0 + t), 9, 4) for t in range(60)]
    assert warming.faults() == [], "what a start takes is no growth"
    assert abs(trend(rss_mb=0.5).slope_mb_per_hour - 1800) < 20


@pytest.mark.parametrize("name, by", [("rss_mb", 0.5), ("descriptors", 0.4), ("threads", 0.4)])
def test_a_process_that_grows_fails(name: str, by: float) -> None:
    faults = trend(**{name: by}).faults()
    assert len(faults) == 1 and "it grew by" in faults[0]


def test_a_lost_place_is_missed(tmp_path: Path) -> None:
    info = MapInfo("ab" * 32, "int8", 8, (Band(0.2),))
    path = tmp_path / "m.placemap"

    def write(tags: list[str]) -> None:
        rows = np.ones((len(tags), 8), np.float32)
        write_map(path, info, [make_places(info, [rows], None, tags)])

    for tags, lost in (
        (["written 0", "written 1"], 0),
        (["written 0", "written 1", "written 2"], 0),  # one was being written
        (["written 0"], 1),
        (["written 0", "written 2"], 1),
    ):
        write(tags)
        ledger = Ledger()
        maps._check(path, 0, 2, ledger)
        assert bool(ledger.missed) == bool(lost), tags
    path.write_bytes(path.read_bytes()[:-1])
    ledger = Ledger()
    maps._check(path, 0, 2, ledger)
    assert ledger.missed["acknowledged place"] == 1


def test_a_part_that_ends_by_an_error_is_missed() -> None:
    ledger = Ledger()
    ledger.watch("part", lambda: subprocess.run(["false"], check=True))  # type: ignore[arg-type]
    assert ledger.missed["part"] == 1 and "CalledProcessError" in ledger.lines[0]

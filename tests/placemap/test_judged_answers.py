"""When the answer of a search is accepted: against its rivals elsewhere, and at the threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support import score_reference
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.found import Found
from tatvpr_edge.runtime.verdict import reason_against
from tatvpr_edge.spec.placemap import Band, Calibration, MapInfo, Places, make_places, write_map

F32 = NDArray[np.float32]
Some = Callable[..., Places]


def along_a_line(engine: Engine, path: Path, places: int) -> PlaceMap:
    """Places ten metres apart, calibrated so that any answer with a positive margin is accepted;
    elsewhere is what lies further than five metres."""
    judged = Calibration("logistic", 0.0, (0.0, 0.0, 9.0), 5.0, 0, precision=0.95, recall=0.4)
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0, 1.0, judged),))
    poses = np.full((places, 7), np.nan)
    poses[:, :2] = np.arange(places)[:, None] * (10.0, 0.0)
    rows = np.random.default_rng(1).standard_normal((places, 16)).astype("f4")
    write_map(path, info, [make_places(info, [rows], poses)])
    return PlaceMap(path, engine=engine)


def test_an_answer_without_rivals_is_not_accepted(engine: Engine, tmp_path: Path) -> None:
    """The first minute of a map that grows: nothing else is known that might look the same."""
    query = np.random.default_rng(1).standard_normal((1, 16)).astype("f4")[0]
    few = along_a_line(engine, tmp_path / "few", score_reference.FEWEST_RIVALS).search(query, 1.0)
    assert (few.candidates[0].place, few.margin, few.confidence) == (0, None, None)
    assert few.accepted is False
    assert "too few places elsewhere" in str(reason_against(few, None))
    enough = along_a_line(engine, tmp_path / "enough", score_reference.FEWEST_RIVALS + 1).search(
        query, 1.0
    )
    assert enough.accepted and enough.margin is not None and enough.margin > 0


def test_a_radius_limits_the_answer_and_not_its_rivals(engine: Engine, tmp_path: Path) -> None:
    place_map = along_a_line(engine, tmp_path / "m", 20)
    query = np.random.default_rng(1).standard_normal((20, 16)).astype("f4")[15]
    found = place_map.search(query, 1.0, near=(30.0, 0.0), radius=4.0)
    everywhere = place_map.search(query, 1.0, scores=True).scores
    assert found.candidates[0].place == 3 and everywhere is not None
    assert found.margin == everywhere[3] - everywhere[15]  # another place looks more like it
    assert found.accepted is False


def test_a_score_exactly_at_the_threshold_is_accepted(
    engine: Engine, tmp_path: Path, some: Some
) -> None:
    plain = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
    query = np.random.default_rng(3).standard_normal(16).astype(np.float32)
    write_map(tmp_path / "m", plain, [some(plain, 5)])
    found = PlaceMap(tmp_path / "m", engine=engine).search(query, 1.0)
    score = np.float32(found.candidates[0].score)
    above = np.nextafter(score, np.float32(2))
    for limit, accepted in ((score, True), (above, False)):
        info = MapInfo("ab" * 32, "int8", 16, (Band.accepting(1.0, 1.0, float(limit)),))
        write_map(tmp_path / "m", info, [some(info, 5)])
        assert PlaceMap(tmp_path / "m", engine=engine).search(query, 1.0).accepted is accepted


def test_odds_exactly_at_the_threshold_are_accepted(
    engine: Engine, tmp_path: Path, some: Some
) -> None:
    query = np.random.default_rng(3).standard_normal(16).astype(np.float32)
    w0, w1, w2 = (np.float32(w) for w in (-1.5, 4.0, 2.5))

    def found(limit: float) -> Found:
        judged = Calibration(
            "logistic", limit, (-1.5, 4.0, 2.5), 0.0, 1, precision=0.95, recall=0.4
        )
        info = MapInfo("ab" * 32, "int8", 16, (Band(1.0, 1.0, judged),))
        write_map(tmp_path / "m", info, [some(info, 15)])
        return PlaceMap(tmp_path / "m", engine=engine).search(query, 1.0)

    first = found(0.0)
    assert first.margin is not None
    odds = (w0 + w1 * np.float32(first.candidates[0].score)) + w2 * np.float32(first.margin)
    for limit, accepted in ((odds, True), (np.nextafter(odds, np.float32(9)), False)):
        assert found(float(limit)).accepted is accepted

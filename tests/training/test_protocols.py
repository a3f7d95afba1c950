"""Protocols mean what they say: which places are right answers, and which sets are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_sets import labelled_set, picture, tower_set, utm_set

from tatvpr_edge.models.evaluate import protocols
from tatvpr_edge.models.evaluate.calibrated import on_a_line
from tatvpr_edge.models.evaluate.describers import (
    Gray32,
)
from tatvpr_edge.models.evaluate.run import evaluate
from tatvpr_edge.spec.errors import DataError


def test_tower_shift(tmp_path: Path) -> None:
    trials = list(protocols.tower_shift(tower_set(tmp_path, frames=9)))
    assert len(trials) == protocols.PERTURBATION_SEEDS
    trial = trials[0]
    # validation has 4 clips of 9 frames; frames 1, 5 and 9 of each are in the map
    assert (len(trial.gallery), len(trial.queries)) == (12, 24)
    assert trial.right_wide is not None
    first = trial.right[:6, :3]  # frames 2 3 4 6 7 8 against 1 5 9 of the first clip
    wanted = [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1], [0, 1, 1]]
    np.testing.assert_array_equal(first, np.array(wanted, bool))
    assert not trial.right[:6, 3:].any()
    assert (trial.right <= trial.right_wide).all()
    assert np.asarray(trials[0].queries[0]).tobytes() != np.asarray(trials[1].queries[0]).tobytes()
    again = next(iter(protocols.tower_shift(tmp_path)))
    for a, b in zip(trial.queries, again.queries, strict=True):
        assert a.tobytes() == b.tobytes()


def test_tower_floor_excludes_the_own_clip(tmp_path: Path) -> None:
    (trial,) = protocols.tower_floor(tower_set(tmp_path, frames=3))
    assert trial.allowed is not None
    assert not trial.allowed[:3, :3].any() and trial.allowed[:3, 3:].all()
    assert trial.right[:3, 3:6].all() and not trial.right[:3, 6:].any()


def test_one_floor_alone_is_no_question(tmp_path: Path) -> None:
    """Every answer was right: 100 %."""
    with pytest.raises(DataError, match=r"of one floor alone \(f1\).*name more with --floors"):
        next(protocols.trials_of("tower-floor", tower_set(tmp_path, frames=3), ("f1",)))


def test_validation_floors_are_not_used_for_choosing(tmp_path: Path) -> None:
    root = tower_set(tmp_path, frames=3)
    (chosen,) = protocols.trials_of("tower-floor", root, ("f1", "f2"))
    (validation,) = protocols.trials_of("tower-floor", root)
    seen = {image.tobytes() for image in validation.gallery}
    assert not any(image.tobytes() in seen for image in chosen.gallery)


@pytest.mark.parametrize("name", ["tower-shift", "tower-floor"])
def test_a_floor_or_a_number_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    root = tower_set(tmp_path, frames=3)
    with pytest.raises(DataError, match=r"frames\.csv: no frames of split 'train', floor 'f8'"):
        next(protocols.trials_of(name, root, ("f1", "f8")))
    table = root / "frames.csv"
    table.write_text(table.read_text().replace(",a,2", ",a,2b"))
    for read in (lambda: next(protocols.trials_of(name, root)), lambda: on_a_line(root, None)):
        with pytest.raises(DataError, match="a frame number is not a whole number"):
            read()


def test_utm_rule_of_25_metres(tmp_path: Path) -> None:
    (trial,) = protocols.utm(utm_set(tmp_path))
    np.testing.assert_array_equal(trial.right[:4, :], np.eye(4, dtype=bool))
    assert not trial.right[4:].any()  # far from everything: not answerable, not counted
    results = evaluate([Gray32()], iter([trial]), timed=False)
    values = results["gray32"].to_json()
    assert values["recall@1"] == {"1.0": 100.0}
    assert (values["queries"], values["queries_counted"]) == (5, 4)


@pytest.mark.parametrize(("views", "neighbours"), [(1, 19), (4, 0)])
def test_views_of_one_spot_are_no_drive(tmp_path: Path, views: int, neighbours: int) -> None:
    """Panoramas cut into views (Pitts30k, Tokyo 24/7) look all around from where they stand: each
    was mixed with those that look elsewhere."""
    utm_set(tmp_path)
    for path in (tmp_path / "database").iterdir():
        path.unlink()
    for number in range(20):
        for view in range(views):
            name = f"@{550000 + 10 * number:.2f}@4180000.00@{number:02d}@{30 * view}@.jpg"
            picture(number, view).save(tmp_path / "database" / name)
    (trial,) = protocols.utm(tmp_path)
    assert trial.linked is not None and trial.linked.sum() == neighbours


def test_a_robot_that_waits_is_on_its_drive(tmp_path: Path) -> None:
    """Where it is known to look the same way: views of one spot look elsewhere."""
    utm_set(tmp_path)
    for path in (tmp_path / "database").iterdir():
        path.unlink()
    rows = ["name,x,y,yaw_deg"]
    for number in range(20):
        picture(number, 0).save(tmp_path / "database" / f"{number:02d}.jpg")
        rows.append(f"{number:02d}.jpg,{550000 + 10 * (number // 2)},4180000,0")
    (tmp_path / "database" / "poses.csv").write_text("\n".join(rows))
    (trial,) = protocols.utm(tmp_path, pose_frame="utm")
    assert trial.linked is not None and trial.linked.sum() == 19


def degrees_set(root: Path) -> Path:
    """The same as :func:`utm_set`, its names in degrees: 100 m are 0.0009 of latitude."""
    for folder, offset in (("database", 0.0), ("queries", 0.00018)):
        (root / folder).mkdir(parents=True)
        for place in range(4):
            name = f"@{48.1 + 0.0009 * place + offset:.6f}@11.600000@x{place}@.jpg"
            picture(place, int(1e5 * offset)).save(root / folder / name)
    return root


def test_degrees_in_names_are_degrees(tmp_path: Path) -> None:
    root = degrees_set(tmp_path)
    (trial,) = protocols.utm(root)
    np.testing.assert_array_equal(trial.right[:, :], np.eye(4, dtype=bool))
    (wide,) = protocols.utm(root, within_m=85.0)  # a neighbour lies 80 m ahead or 120 m behind
    np.testing.assert_array_equal(wide.right[:, :], (np.eye(4) + np.eye(4, k=1)) > 0)


def test_a_prepared_set_may_carry_tables(tmp_path: Path) -> None:
    for folder in ("database", "queries"):
        labelled_set(tmp_path / folder, places=3, views=1)
    (trial,) = protocols.utm(tmp_path)
    np.testing.assert_array_equal(trial.right[:, :], np.eye(3, dtype=bool))

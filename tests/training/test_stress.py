"""`evaluate --stress`: gray, dark, occluded, turned and mirrored queries beside the plain ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import labelled_set

from tatvpr_edge.models.evaluate import protocols, stress
from tatvpr_edge.models.evaluate.describers import Gray32
from tatvpr_edge.models.evaluate.run import evaluate

ROWS = {
    "gray-query", "gray-both", "white-balance", "low-light", "occluded", "roll", "mirrored",
}  # fmt: skip


def pixels(image: object) -> np.ndarray:
    return np.asarray(image, np.int64)


def test_each_row_changes_what_it_says(tmp_path: Path) -> None:
    (trial,) = protocols.rendered(labelled_set(tmp_path))
    rows = dict(stress.stressed(trial))
    assert set(rows) == ROWS
    plain = pixels(trial.queries[0])
    for row, changed in rows.items():
        assert (changed.gallery is trial.gallery) == (row != "gray-both")
        assert len(changed.queries) == len(trial.queries)
        assert changed.queries[0].size == trial.queries[0].size
        assert (pixels(changed.queries[0]) != plain).any(), row
    gray = pixels(rows["gray-both"].gallery[0])
    assert (gray[..., 0] == gray[..., 2]).all()
    balanced = pixels(rows["white-balance"].queries[0])
    assert np.abs(balanced - np.clip(plain * [1.2, 1.0, 0.75], 0, 255)).max() <= 0.5
    dark = pixels(rows["low-light"].queries[0])
    assert dark.mean() == pytest.approx(plain.mean() / 5, abs=2)
    hidden = (pixels(rows["occluded"].queries[0]) != plain).all(2).mean()
    assert 0.28 < hidden < 0.36
    np.testing.assert_array_equal(pixels(rows["mirrored"].queries[0]), plain[:, ::-1])


def test_the_same_frames_are_asked_twice(tmp_path: Path) -> None:
    (trial,) = protocols.rendered(labelled_set(tmp_path))
    for (_, a), (_, b) in zip(stress.stressed(trial), stress.stressed(trial), strict=True):
        assert all(x.tobytes() == y.tobytes() for x, y in zip(a.queries, b.queries, strict=True))


def test_the_command_has_a_row_of_each_in_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root = labelled_set(tmp_path)
    arguments = ["evaluate", "--data", str(root), "--protocol", "rendered", "--no-time"]
    arguments += ["--baseline", "gray32", "--stress"]
    assert main([*arguments, "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)["protocols"]["rendered"]["gray32"]
    assert set(ours["stress"]) == ROWS
    # This describer sees gray alone: gray queries and maps change nothing for it.
    for row in ("gray-query", "gray-both"):
        assert ours["stress"][row]["1.0"] == ours["recall@1"]["1.0"] == 100.0
    assert ours["stress"]["mirrored"]["1.0"] < 100.0
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(row in shown for row in ROWS)


def test_without_the_option_there_is_none(tmp_path: Path) -> None:
    results = evaluate([Gray32()], protocols.rendered(labelled_set(tmp_path)), timed=False)
    assert "stress" not in results["gray32"].to_json()

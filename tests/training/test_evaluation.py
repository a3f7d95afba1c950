"""Recall is what an independent computation says it is, and protocols mean what they say."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_sets import TINY_BACKBONE, labelled_set, picture, tower_set, utm_set

from tatvpr_edge.mapping.calibrate_answers import Answers
from tatvpr_edge.mapping.neighbours import lent
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import save_weights
from tatvpr_edge.models.data.formats import Positioned
from tatvpr_edge.models.data.frames import squash
from tatvpr_edge.models.evaluate import protocols
from tatvpr_edge.models.evaluate.calibrated import figures, on_a_line
from tatvpr_edge.models.evaluate.compute import count_macs
from tatvpr_edge.models.evaluate.confidence import confidence
from tatvpr_edge.models.evaluate.describers import (
    HOG,
    Gray32,
    ModelDescriber,
    deployed_bytes,
    frames_for,
    places_of,
)
from tatvpr_edge.models.evaluate.plot import plot_pareto
from tatvpr_edge.models.evaluate.recall import recall, rows_of, scores_of
from tatvpr_edge.models.evaluate.run import evaluate
from tatvpr_edge.spec.errors import DataError, TatvprError


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


def test_recall_that_no_query_can_have_is_an_error(tmp_path: Path) -> None:
    root = utm_set(tmp_path)
    with pytest.raises(DataError, match="none of 5 queries has a right answer"):
        evaluate([Gray32()], protocols.utm(root, within_m=3.0), timed=False)
    with pytest.raises(DataError, match="no query has a right answer"):
        recall(np.array([-1, -1]), 1)


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


def test_a_large_test_set_is_judged_in_little_memory() -> None:
    """The size of Pitts250k, whose table of queries and places has 695 million cells."""
    import tracemalloc

    places, queries, dim = 20_000, 2_000, 16
    rng = np.random.default_rng(0)
    where_p, where_q = rng.uniform(0, 5000, (places, 2)), rng.uniform(0, 5000, (queries, 2))
    database = Positioned((), where_p, "utm")
    asked = Positioned((), where_q, "utm")

    class Numbers:
        name, image_px, size_mb, ks, tokens = "numbers", 1, 0.0, (1.0, 0.2), 1.0
        lowest_k = 0.0

        def describe(
            self, frames: Any, k: float, tokens: float | None = None
        ) -> NDArray[np.float32]:
            rows = np.random.default_rng(len(frames)).normal(size=(len(frames), dim))
            return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

        def macs(self, k: float) -> int:
            return 0

    class Blank(Sequence[Any]):
        def __init__(self, count: int) -> None:
            self._count = count

        def __len__(self) -> int:
            return self._count

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, slice):
                return Blank(len(range(*index.indices(self._count))))
            if index >= self._count:
                raise IndexError(index)
            return Image.new("RGB", (1, 1))

    trial = protocols.Trial(
        gallery=Blank(places),
        queries=Blank(queries),
        right=protocols.Within(asked, database, 50.0),
    )
    tracemalloc.start()
    evaluate([Numbers()], iter([trial]), timed=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One table of scores alone would take 160 MB, and f67937b held several.
    assert peak < 150e6


def test_baselines_find_easy_places_and_hog_ignores_brightness(tmp_path: Path) -> None:
    root = labelled_set(tmp_path / "set")
    results = evaluate([Gray32(), HOG()], protocols.rendered(root), timed=False)
    assert results["gray32"].to_json()["recall@1"]["1.0"] == 100.0
    frames = np.random.default_rng(0).integers(0, 120, (2, 64, 64, 3)).astype(np.uint8)
    a, b = HOG().describe(frames, 1.0), HOG().describe(2 * frames, 1.0)
    np.testing.assert_allclose((a * b).sum(1), 1, atol=1e-3)


def test_fewer_tokens_are_asked_of_their_own_map_and_of_one_with_all(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    describer = ModelDescriber(model, (1.0, 0.4), "micro", tokens=0.25)
    (trial,) = protocols.rendered(labelled_set(tmp_path))
    values = evaluate([describer], iter([trial]), timed=False)["micro, tokens 0.25"].to_json()
    whole = ModelDescriber(model, (1.0, 0.4))
    queries = np.stack([squash(image, describer.image_px) for image in trial.queries])

    def found(k: float, of: np.ndarray) -> float:
        best = (describer.describe(queries, k) @ of.T).argmax(1)
        return 100 * float(np.asarray(trial.right)[np.arange(len(best)), best].mean())

    for k in (1.0, 0.4):
        (own_places,) = places_of(describer, trial.gallery, [(k, None)])
        own = found(k, own_places)
        assert values["recall@1"][str(k)] == pytest.approx(own, abs=1e-3)
        of_whole = found(k, places_of(whole, trial.gallery, [(1.0, None)])[0])
        assert values["one_map"]["recall@1"][str(k)] == pytest.approx(of_whole, abs=1e-3)
    assert values["macs"]["1.0"] < whole.macs(1.0)


def test_the_table_and_its_json(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    describers = [ModelDescriber(model, (1.0, 0.4), name="micro"), Gray32()]
    values = {
        name: result.to_json()
        for name, result in evaluate(
            describers, protocols.tower_shift(tower_set(tmp_path, frames=5)), timed=False
        ).items()
    }
    ours = json.loads(json.dumps(values))["micro"]
    assert set(ours["recall@1"]) == {"1.0", "0.4"}
    assert (
        0 <= ours["recall@1"]["1.0"] <= ours["recall@5"]["1.0"] <= ours["recall@10"]["1.0"] <= 100
    )
    assert ours["recall@1_wide"]["1.0"] >= ours["recall@1"]["1.0"]
    assert set(ours["against_dense"]) == {"0.4"}
    assert ours["one_map"]["recall@1"]["1.0"] == ours["recall@1"]["1.0"]
    assert ours["two_bands"] == {"recall@1": ours["recall@1"]}  # these bands are all k there are
    assert ours["macs"]["0.4"] < ours["macs"]["1.0"]
    assert set(ours["confidence"]) == {"float", "int8", "binary", "weighed"}
    assert set(ours["confidence"]["int8"]["0.4"]) == {"held", "with_unknown"}
    assert 0 <= ours["confidence"]["binary"]["1.0"]["with_unknown"]["auroc"] <= 1
    assert ours["recall_per_mb"]["1.0"] == pytest.approx(
        ours["recall@1"]["1.0"] / (deployed_bytes(model) / 1e6), abs=0.02
    )


def test_maps_of_another_k_against_numpy(tmp_path: Path) -> None:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=0)
    describer = ModelDescriber(model, (1.0, 0.6, 0.4, 0.2), name="micro")
    trials = list(protocols.tower_shift(tower_set(tmp_path, frames=5)))
    ours = evaluate([describer], iter(trials), timed=False)["micro"].to_json()

    def described(images: Sequence[Any], k: float) -> NDArray[np.float32]:
        return describer.describe(frames_for(describer, images), k)

    def kept(trial: protocols.Trial, k: float) -> NDArray[np.float32]:
        assert trial.linked is not None
        return lent(places_of(describer, trial.gallery, [(k, None)])[0], trial.linked)

    def found(query_k: float, map_k: float) -> float:
        rates = []
        for trial in trials:
            best = (described(trial.queries, query_k) @ kept(trial, map_k).T).argmax(1)
            rates.append(100 * trial.right[np.arange(len(best)), best].mean())
        return float(np.mean(rates))

    for k, band in ((1.0, 1.0), (0.6, 1.0), (0.4, 1.0), (0.2, 0.2)):
        assert ours["one_map"]["recall@1"][str(k)] == pytest.approx(found(k, 1.0), abs=1e-3)
        assert ours["two_bands"]["recall@1"][str(k)] == pytest.approx(found(k, band), abs=1e-3)


def test_confidence_agrees_with_scikit_learn_and_knows_places_that_the_map_lacks() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    ranks = [rng.integers(-1, 3, 400) for _ in range(2)]
    scores = [(0.3 * (r == 0) + rng.normal(0.5, 0.1, 400)).astype(np.float32) for r in ranks]
    unknown = [rng.normal(0.4, 0.1, 400).astype(np.float32) for _ in ranks]
    unknown[0][:7] = -np.inf  # nothing else was in the map
    made = confidence(ranks, scores, unknown)

    rank, score, other = (np.concatenate(part) for part in (ranks, scores, unknown))
    held = rank >= 0
    assert made["held"]["answers"] == held.sum()
    again = held & np.isfinite(other)
    assert made["with_unknown"]["answers"] == len(rank) + again.sum()
    every, right = np.r_[score, other[again]], np.r_[rank == 0, np.zeros(again.sum(), bool)]
    for name, values, truth in (
        ("held", score[held], rank[held] == 0),
        ("with_unknown", every, right),
    ):
        # Two halves have a curve each: the order across them may differ a little.
        assert made[name]["auroc"] == pytest.approx(roc_auc_score(truth, values), abs=0.01)
        wanted = average_precision_score(truth, values)
        assert made[name]["average_precision"] == pytest.approx(wanted, abs=0.02)
        assert 0 <= made[name]["ece"] < 0.06  # a logistic curve is right for normal scores
    blind = [np.full(400, 0.5, np.float32) for _ in ranks]
    assert confidence(ranks, blind, blind)["held"]["auroc"] == pytest.approx(0.5, abs=0.06)
    never = confidence([np.ones(4, np.int64)], [np.ones(4, np.float32)], [np.ones(4, np.float32)])
    assert never["held"] == {
        "answers": 0, "auroc": None, "average_precision": None,
        "recall_at_full_precision": None, "ece": None,
    }  # fmt: skip


def test_the_row_of_each_k_is_what_was_counted_by_hand() -> None:
    """Of what is accepted, and of places that the map lacks, as docs/calibration.md has them."""
    limit, judged = 1.0, [
        (1.0, 3.0, True, True),
        (1.0, 2.0, False, True),
        (1.0, 0.5, True, True),
        (1.0, 2.0, False, False),
        (1.0, 0.0, False, False),
        (0.2, 1.0, True, True),  # at the limit: accepted
        (0.2, 0.9, False, False),
    ]  # fmt: skip
    answers = Answers.of(
        [(0, (k, 1.0), (odds, 0.0), right, there, 0) for k, odds, right, there in judged], 2
    )
    odds = np.array([row[1] for row in judged])
    made = figures(answers, odds, np.full(len(odds), limit))
    assert list(made) == [1.0, 0.2]
    assert [made[1.0][name] for name in ("answers", "accepted")] == [5, 3]
    wanted = {
        "recall@1": 2 / 3, "precision": 1 / 3, "accepted_of_answerable": 2 / 3,
        "accepted_of_unknown": 1 / 2, "auroc": 4 / 6, "auroc_of_answerable": 1 / 2,
    }  # fmt: skip
    assert {name: made[1.0][name] for name in wanted} == pytest.approx(wanted)
    known = ("recall@1", "precision", "accepted_of_answerable", "auroc")
    assert [made[0.2][name] for name in known] == [1, 1, 1, 1]
    assert (made[0.2]["accepted"], made[0.2]["accepted_of_unknown"]) == (1, 0)


def test_frames_of_places_that_the_map_lacks_against_numpy(tmp_path: Path) -> None:
    trials = list(protocols.tower_shift(tower_set(tmp_path, frames=9)))
    describer = Gray32()
    (judged,) = evaluate([describer], iter(trials), timed=False)["gray32"].matched["int8"].values()
    for trial, best, unknown in zip(trials, judged.scores, judged.unknown, strict=True):
        queries = describer.describe(frames_for(describer, trial.queries), 1.0)
        assert trial.linked is not None
        places = lent(places_of(describer, trial.gallery, [(1.0, None)])[0], trial.linked)
        table = scores_of(rows_of(queries, "int8"), rows_of(places, "int8"), "int8")
        np.testing.assert_allclose(best, table.max(1), atol=1e-6)
        assert trial.right_wide is not None
        lacking = np.where(trial.right_wide[:], -np.inf, table).max(1)
        np.testing.assert_allclose(unknown, lacking, atol=1e-6)


def test_compute_is_counted_from_what_the_gate_keeps() -> None:
    config = registry.config("micro")
    dense, sparse = count_macs(config, 1.0), count_macs(config, 0.2)
    # 65 tokens x 6 blocks x (576 + 192 + 768 outputs of 192 inputs, 192 outputs of 768)
    assert dense.ternary == 65 * 6 * (192 * (576 + 192 + 768) + 768 * 192)
    assert sparse.ternary == 65 * 6 * (38 * (576 + 192 + 768) + 154 * 192)
    assert dense.patch == 64 * 768 * 192 == sparse.patch
    assert dense.attention == 6 * 2 * 65 * 65 * 192
    fewer = count_macs(config, 1.0, 0.5)
    assert fewer.ternary == (2 * 65 + 4 * 33) * (192 * (576 + 192 + 768) + 768 * 192)


def test_deployed_bytes_are_those_of_the_exported_weights() -> None:
    from onnx import numpy_helper

    from tatvpr_edge.models.export import build_proto

    model = registry.create("micro", seed=0)
    weights = sum(
        numpy_helper.to_array(w).nbytes
        for w in build_proto(model).graph.initializer
        if not w.name.startswith(("k.", "axes.", "index.", "shape.", "head.gem."))
    )
    assert deployed_bytes(model) == weights


def test_the_command_prints_the_table_and_the_same_json_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    weights = tmp_path / "tiny.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    arguments = [
        "evaluate",
        "--model",
        str(weights),
        "--data",
        str(root),
        "--protocol",
        "tower-floor",
    ]
    arguments += ["--baseline", "gray32", "--baseline", "hog", "--no-time", "--k", "1,.4"]
    assert main([*arguments, "--json"]) == 0
    first = capsys.readouterr().out
    twice = ["--baseline", "hog", "--model", str(weights), "--protocol", "tower-floor"]
    assert main([*arguments, *twice, "--json"]) == 0  # what is named twice is judged once
    assert capsys.readouterr().out == first
    values = json.loads(first)["protocols"]["tower-floor"]["tiny"]["recall@1"]
    assert set(values) == {"1.0", "0.4"}
    assert main([*arguments, "--json", "--tokens", "1,.5"]) == 0
    dropping = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {"tiny", "tiny, tokens 0.5"} <= set(dropping)
    assert dropping["tiny"]["recall@1"] == values
    other = tmp_path / "other" / "tiny.safetensors"
    other.parent.mkdir()
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=1), other)
    assert main([*arguments, "--model", str(other), "--json", "--tokens", ".5"]) == 0
    dropping = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {"tiny, tokens 0.5", f"{other}, tokens 0.5"} <= set(dropping)
    save_weights(
        registry.create(registry.config("micro", **{**TINY_BACKBONE, "keep_after": 0}), seed=0),
        other,
    )
    assert main([*arguments, "--model", str(other), "--tokens", ".5"]) != 0
    assert "has no KeepTokens" in capsys.readouterr().err
    plot = tmp_path / "plot.png"
    assert main([*arguments, "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "tower-floor: recall in percent" in printed
    assert "whether the best answer is right" in printed and "AUROC +" in printed
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_table_names_the_k_that_others_are_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said k=1 of whatever --k began with."""
    from tatvpr_edge.cli import main

    root, weights = tower_set(tmp_path / "tower", frames=3), tmp_path / "tiny.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    words = ["--protocol", "tower-floor", "--baseline", "gray32", "--no-time", "--k", ".4,.2"]
    assert main(["evaluate", "--data", str(root), "--model", str(weights), *words]) == 0
    printed = capsys.readouterr().out
    assert "map k=0.4" in printed and "against k=0.4 [95 %]" in printed and "k=1" not in printed


def test_weights_called_as_a_baseline_have_a_row_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both were judged as one: twice the queries, and neither's recall."""
    from tatvpr_edge.cli import main

    root, weights = tower_set(tmp_path / "tower", frames=3), tmp_path / "gray32.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    words = ["--protocol", "tower-floor", "--baseline", "gray32", "--no-time", "--k", "1", "--json"]
    assert main(["evaluate", "--data", str(root), "--model", str(weights), *words]) == 0
    judged = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {name: of["queries"] for name, of in judged.items()} == {str(weights): 12, "gray32": 12}


def test_artifacts_of_one_model_and_board_have_rows_of_their_own(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    folders = [tmp_path / "before", tmp_path / "after", tmp_path / "again" / "after"]
    for folder in folders:
        shutil.copytree(tiny_host, folder)
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--baseline", "none"]
    base += ["--no-time", "--k", "1", "--artifact", str(folders[0])]

    def rows(*artifacts: Path, tokens: str = "1") -> list[str]:
        given = [word for path in artifacts for word in ("--artifact", str(path))]
        assert main([*base, *given, "--tokens", tokens, "--json"]) == 0
        return list(json.loads(capsys.readouterr().out)["protocols"]["tower-floor"])

    (alone,) = rows()
    assert "(" not in alone
    assert rows(folders[0]) == [alone]  # given twice: one row
    assert rows(folders[1], tokens="1,.5") == [
        f"{alone} ({name}){tokens}"
        for name in ("before", "after")
        for tokens in ("", ", tokens 0.5")
    ]
    assert rows(*folders[1:]) == [
        f"{alone} ({name})" for name in ("before", folders[1], folders[2])
    ]
    assert main([*base, "--artifact", str(folders[1]), "--plot", str(tmp_path / "p.png")]) == 0
    table = capsys.readouterr().out
    assert f"{alone} (before)" in table and f"{alone} (after)" in table


def test_what_a_judgement_cannot_do_is_told_before_anything_is_described(
    tiny_host: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that had been computed until then was lost."""
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--no-time"]
    base += ["--baseline", "gray32", "--artifact", str(tiny_host)]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # installed, and does not load
    for words, why in (
        (["--k", "1,.01"], "k is 0.01"),
        (["--plot", str(tmp_path / "p.png")], "pip install 'tatvpr-edge[plot]'"),
    ):
        assert main([*base, *words]) == 1
        told = capsys.readouterr().err
        assert why in told and "trial" not in told


def test_what_was_found_is_not_lost_with_a_plot_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root, plot = tower_set(tmp_path / "tower", frames=5), tmp_path / "full.png"
    plot.symlink_to("/dev/full")
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--no-time"]
    assert main([*base, "--baseline", "gray32", "--json", "--plot", str(plot)]) == 1
    out, told = capsys.readouterr()
    assert "gray32" in json.loads(out)["protocols"]["tower-floor"]
    assert told.startswith("error:") and "full.png" in told


def test_a_plot_shows_what_no_manifest_counts_as_a_line(tmp_path: Path) -> None:
    values = {"macs": {"0.5": 0, "0.4": 0}, "recall@1": {"0.5": 40.0, "0.4": 39.0}}
    plot_pareto({"an artifact": values}, tmp_path / "p.svg", "tower-shift")
    assert "an artifact" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "tower"], "unknown protocol"),
        (["--protocol", "tower-shift", "--model", "giant"], "unknown model"),
        (["--protocol", "utm", "--baseline", "gray32"], "no folders database and queries"),
        (["--protocol", "utm", "--baseline", "none"], "nothing to evaluate"),
        (["--protocol", "utm", "--baseline", "hog", "--floors", "f1"], "no floors to choose"),
        (["--protocol", "rendered", "--baseline", "hog", "--within", "9m"], "belong to utm"),
        (["--protocol", "utm", "--within", "far"], "no distance in metres"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    from tatvpr_edge.cli import main

    assert main(["evaluate", "--data", str(tmp_path), *arguments]) != 0
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_errors_of_this_folder_are_ours() -> None:
    with pytest.raises(TatvprError):
        protocols.protocol("nothing")

"""Recall is what an independent computation says it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_sets import TINY_BACKBONE, labelled_set, tower_set, utm_set

from tatvpr_edge.mapping.calibrate_answers import Answers
from tatvpr_edge.mapping.neighbours import lent
from tatvpr_edge.models import registry
from tatvpr_edge.models.data.formats import Positioned
from tatvpr_edge.models.data.frames import squash
from tatvpr_edge.models.evaluate import protocols
from tatvpr_edge.models.evaluate.calibrated import figures
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
from tatvpr_edge.models.evaluate.recall import recall, rows_of, scores_of
from tatvpr_edge.models.evaluate.run import evaluate
from tatvpr_edge.spec.errors import DataError


def test_recall_that_no_query_can_have_is_an_error(tmp_path: Path) -> None:
    root = utm_set(tmp_path)
    with pytest.raises(DataError, match="none of 5 queries has a right answer"):
        evaluate([Gray32()], protocols.utm(root, within_m=3.0), timed=False)
    with pytest.raises(DataError, match="no query has a right answer"):
        recall(np.array([-1, -1]), 1)


def test_a_large_test_set_is_judged_in_little_memory() -> None:
    """Pitts250k's table of queries and places has 695 million cells, this one ten million."""
    import tracemalloc

    places, queries, dim = 5_000, 2_000, 16
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
    # One table of scores alone would take 40 MB, and f67937b held several.
    assert peak < 40e6


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

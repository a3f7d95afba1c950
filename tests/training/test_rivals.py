"""Hard negatives: batches hold places that look alike and are surely different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_sets import TINY_BACKBONE, labelled_set, tower_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.data.formats import labelled, tower
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.data.places import Places
from tatvpr_edge.models.train import rivals
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import KConfig, MetricConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Randomness
from tatvpr_edge.models.train.metric import MetricStage, Source
from tatvpr_edge.models.train.rivals import REMEMBERED, Rivals, draw_cliques


def test_rivals_are_the_nearest_frames_of_other_places(tmp_path: Path) -> None:
    places = labelled(labelled_set(tmp_path, places=6, views=3))
    rng = np.random.default_rng(0)
    # A place is an angle; the views of a place hardly differ, neighbours are nearest.
    angle = np.repeat(np.arange(6) * 0.2, 3) + rng.normal(0, 1e-3, 18)
    pixels = np.arange(18, dtype=np.uint8)[:, None, None, None]

    def describe(chosen: np.ndarray) -> torch.Tensor:
        a = torch.from_numpy(angle[chosen.ravel()])
        return torch.stack([a.cos(), a.sin()], dim=1)

    rivals = Rivals([places])
    assert (rivals.of(0) == -1).all()
    rivals.mine(0, places, pixels, describe, rng)
    table = rivals.of(0)
    mined = np.flatnonzero((table >= 0).any(1))
    assert sorted(mined // 3) == list(range(6))  # one frame of each place
    for frame in mined:
        found = table[frame][table[frame] >= 0] // 3
        assert frame // 3 not in found and len(found) == 5
        gaps = np.abs(found - frame // 3)
        assert (np.diff(gaps) >= 0).all()


def test_rivals_of_a_large_source_are_looked_for_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, those of GSV-Cities took 30 GB."""
    places = tower(tower_set(tmp_path, frames=9), "train")
    directions = torch.randn(36, 5, generator=torch.Generator().manual_seed(0))
    pixels = np.arange(36, dtype=np.uint8)[:, None, None, None]
    looked: list[int] = []

    def describe(chosen: np.ndarray) -> torch.Tensor:
        looked.append(len(chosen))
        return directions[torch.from_numpy(chosen.ravel().astype(np.int64))]

    compared: list[int] = []
    apart = type(places).apart

    def watched(self: Places, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
        compared.append(len(frames))
        return apart(self, frames, others)

    monkeypatch.setattr(type(places), "apart", watched)
    tables = []
    for rows, cells in ((1000, 1 << 25), (7, 1 << 25), (1000, 36 * 20)):
        monkeypatch.setattr(rivals, "_ROWS", rows)
        monkeypatch.setattr(rivals, "_CELLS", cells)
        found = Rivals([places])
        found.mine(0, places, pixels, describe, np.random.default_rng(0))
        tables.append(found.of(0))
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])
    assert looked == [36, 7, 7, 7, 7, 7, 1, 36]
    assert compared == [36, 7, 7, 7, 7, 7, 1, 20, 16]


def test_frames_that_may_show_the_same_place_are_no_rivals(tmp_path: Path) -> None:
    """Clips of one floor may cross; frames of other floors and far ones of a clip are apart."""
    places = tower(tower_set(tmp_path, frames=9), "train")
    frames = places.candidates(np.random.default_rng(0))
    assert len(frames) == 36
    apart = places.apart(frames)
    assert (apart == apart.T).all()
    floor = np.array([places.paths[i].parts[-3] for i in frames])
    clip = np.array([places.paths[i].parts[-2] for i in frames])
    number = np.array([int(places.paths[i].stem) for i in frames])
    for i, j in np.ndindex(apart.shape):
        other_floor = floor[i] != floor[j]
        far = floor[i] == floor[j] and clip[i] == clip[j] and abs(number[i] - number[j]) >= 7
        assert apart[i, j] == (other_floor or far)


@given(
    sizes=st.lists(st.integers(2, 4), min_size=4, max_size=12),
    rivals=st.integers(0, 4),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_a_batch_has_as_many_different_places_as_asked(
    sizes: list[int], rivals: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    drawn = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    table = rng.integers(-1, int(ends[-1]), (int(ends[-1]) + 3, REMEMBERED))
    count = data.draw(st.integers(1, len(sizes)))
    chosen = draw_cliques(drawn, table, count, rivals, rng)
    assert len(chosen) == len(set(chosen)) == count
    assert all(0 <= place < len(drawn) for place in chosen)


def test_a_place_brings_its_rivals() -> None:
    drawn = [np.array([2 * i, 2 * i + 1]) for i in range(10)]
    table = np.full((20, REMEMBERED), -1)
    for place in range(10):
        table[2 * place, :2] = 2 * ((place + 5) % 10)  # each has one rival, five places on
    for seed in range(20):
        chosen = draw_cliques(drawn, table, 4, 1, np.random.default_rng(seed))
        assert (chosen[1] - chosen[0]) % 10 == 5 and (chosen[3] - chosen[2]) % 10 == 5
    unmined = draw_cliques(drawn, np.full((20, REMEMBERED), -1), 10, 3, np.random.default_rng(0))
    assert sorted(unmined) == list(range(10))


def test_rivals_are_looked_for_again_after_so_many_steps(tmp_path: Path) -> None:
    """By what the model says then."""
    shape = registry.config("micro", **TINY_BACKBONE)
    places = labelled(labelled_set(tmp_path))
    source = Source(places, load_frames(places.paths, 32), rivals=1)
    config = MetricConfig(steps=3, places=4, images=2, rivals_every=2)
    stage = MetricStage(
        registry.create(shape, seed=1), [source], config, KConfig(), AugmentConfig.none(), Crew()
    )
    random, tables = Randomness.seeded(0), []
    for step in range(3):
        stage.loss(step, random)
        tables.append(stage.modules()["rivals"].get_buffer("source0").clone())
        stage.model.load_state_dict(registry.create(shape, seed=2).state_dict())
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[1], tables[2])

"""Both stages mirror as many images as they are told, and what teachers say of them with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sets import TINY_BACKBONE, ColourTeacher, labelled_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DistilConfig, KConfig, MetricConfig
from tatvpr_edge.models.train.distil import DistilStage
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Randomness
from tatvpr_edge.models.train.metric import MetricStage, Source
from tatvpr_edge.models.train.views import TeacherViews, read_views, write_views


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> TeacherViews:
    folder = tmp_path_factory.mktemp("mirrored")
    labelled_set(folder / "set")
    places = labelled(folder / "set")
    write_views(
        folder / "views", places.paths, [2] * len(places), ColourTeacher(),
        side_px=32, channels=4,
    )  # fmt: skip
    return read_views(folder / "views")


def loss(views: TeacherViews, mirror_share: float) -> dict[str, torch.Tensor]:
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=5)
    config = DistilConfig(steps=4, batch=6, mirror_share=mirror_share)
    stage = DistilStage(model, views, config, KConfig(), AugmentConfig.none(), Crew())
    return stage.loss(0, Randomness.seeded(2))


def test_a_share_of_one_mirrors_every_image_and_none_leaves_all_as_they_are(
    views: TeacherViews,
) -> None:
    turned = dataclasses.replace(
        views,
        pixels=np.ascontiguousarray(views.pixels[:, :, ::-1]),
        features=np.ascontiguousarray(views.features[:, :, ::-1]),
    )
    plain = loss(views, 0.0)
    assert plain["tokens"] != loss(views, 1.0)["tokens"]
    for share, mirrored in ((1.0, views), (0.0, turned)):
        other = loss(turned if mirrored is views else views, 1.0 - share)
        for name, value in loss(mirrored, share).items():
            torch.testing.assert_close(value, other[name])


def stage_2(root: Path, **changes: float) -> MetricStage:
    """Frames as they are, at k = 1, of six places in two sources; of the first is asked, and known,
    what the model says of them."""
    model = registry.create(registry.config("micro", **TINY_BACKBONE), seed=5)
    config = MetricConfig(steps=4, places=6, images=2, anchor="own", **changes)
    k, plain = KConfig(dense_share=1.0), AugmentConfig.none()
    sources = []
    for name in ("a", "b"):
        places = labelled(root / name)
        sources.append(Source(places, load_frames(places.paths, 32)))
    said = MetricStage(model, sources, config, k, plain, Crew())._plainly(sources[0].pixels)
    sources[0] = dataclasses.replace(sources[0], anchor=said.numpy(), taught=said.numpy())
    return MetricStage(model, sources, config, k, plain, Crew())


def test_a_mirrored_image_of_a_place_that_is_mirrored_as_a_whole_is_the_image(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        labelled_set(tmp_path / name)
    seen, parts = {}, {}
    for flip, mirror in ((0, 0), (0, 1), (1, 0), (1, 1)):
        stage = stage_2(tmp_path, flip_share=flip, mirror_share=mirror)
        shown: list[torch.Tensor] = []
        stage.model.backbone.register_forward_pre_hook(lambda _, a, to=shown: to.append(a[0]))
        parts[flip, mirror] = stage.loss(0, Randomness.seeded(2))
        seen[flip, mirror] = torch.cat(shown)
    assert torch.equal(seen[1, 1], seen[0, 0])
    assert torch.equal(seen[0, 1], seen[0, 0].flip(2)) and torch.equal(seen[0, 1], seen[1, 0])
    for both in (0, 1):
        # Asked of the frames of the first source as they are, which already say so, alone.
        for name in ("anchor", "teacher"):
            assert parts[both, both][name] < 1e-4
            assert parts[both, 1 - both][name] == 0
        assert "consistency" not in parts[both, both]  # nothing is at low k

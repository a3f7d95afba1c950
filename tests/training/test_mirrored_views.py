"""Stage 1 mirrors as many images as it is told, the teacher's features with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_sets import TINY_BACKBONE, ColourTeacher, labelled_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DistilConfig, KConfig
from tatvpr_edge.models.train.distil import DistilStage
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Randomness
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

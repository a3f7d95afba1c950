"""What a step draws: k, crops, augmentations and the rate of its schedule."""

from __future__ import annotations

import pytest
import torch

from tatvpr_edge.models.train import augment
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import KConfig, OptimConfig
from tatvpr_edge.models.train.draws import draw_k, draw_visible
from tatvpr_edge.models.train.loop import learning_rate
from tatvpr_edge.models.train.made_views import crops_of_each


def test_the_range_of_k_opens_and_some_images_stay_dense() -> None:
    config = KConfig(lowest=0.2, dense_share=0.25, opening=0.5)
    generator = torch.Generator().manual_seed(0)
    start = draw_k(4000, config, 0.0, generator)
    half = draw_k(4000, config, 0.25, generator)
    end = draw_k(4000, config, 1.0, generator)
    assert (start == 1).all()
    assert 0.6 <= float(half.min()) < 0.65
    assert 0.2 <= float(end.min()) < 0.23
    assert float((end == 1).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_crops_of_each_frame() -> None:
    assert crops_of_each(4, 3.0) == [3, 3, 3, 3]
    assert crops_of_each(5, 0.5) == [1, 0, 1, 0, 1]
    assert crops_of_each(3, 0.0) == [0, 0, 0]


def test_the_schedule_warms_up_and_falls_to_its_end() -> None:
    config = OptimConfig(lr=1.0, lr_end=0.1, warmup_steps=10)
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.05)
    assert rates[100] == pytest.approx(0.1)


def test_augmentation_of_a_part_is_the_part_of_the_whole() -> None:
    # Every change at once, so that each of them is seen to depend on its own frame alone.
    shares = ("gray", "dark", "blur", "motion", "jpeg", "vignette", "occluder", "roll")
    config = AugmentConfig(**{f"{name}_share": 0.5 for name in shares})
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (6, 40, 40, 3), dtype=torch.uint8, generator=generator)
    shapes = augment.draw_geometric(6, config, generator)
    colours = augment.draw_photometric(6, config, generator)

    def change(part: slice) -> torch.Tensor:
        x = augment.geometric(augment.to_float(frames[part]), shapes[part], 32)
        return augment.to_frames(augment.photometric(x, colours[part]))

    whole = change(slice(None))
    assert whole.dtype == torch.uint8 and whole.shape == (6, 32, 32, 3)
    torch.testing.assert_close(change(slice(2, 4)), whole[2:4], rtol=0, atol=1)


def test_no_augmentation_changes_nothing() -> None:
    config = AugmentConfig.none()
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(1, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    x = augment.geometric(
        augment.to_float(frames), augment.draw_geometric(2, config, generator), 32
    )
    x = augment.photometric(x, augment.draw_photometric(2, config, generator))
    torch.testing.assert_close(augment.to_frames(x), frames, rtol=0, atol=1)


def test_what_is_dark_is_not_over_exposed_too() -> None:
    both = AugmentConfig(dark_share=1.0, bright_share=1.0)
    drawn = augment.draw_photometric(32, both, torch.Generator().manual_seed(0))
    assert (drawn.tone[:, 0] < 1).all()


def test_a_power_above_one_draws_low_k_more_often() -> None:
    means = []
    for power in (1.0, 3.0):
        config = KConfig(dense_share=0.0, opening=0.0, power=power)
        means.append(float(draw_k(500, config, 1.0, torch.Generator().manual_seed(0)).mean()))
    assert means[1] < means[0] - 0.1


def test_the_last_fifth_of_a_stage_sees_every_patch() -> None:
    generator = torch.Generator().manual_seed(0)
    shown = draw_visible(3, 16, 0.5, 0.79, generator)
    assert shown is not None and shown.shape == (3, 8) and (shown.diff(dim=1) > 0).all()
    assert draw_visible(3, 16, 0.5, 0.8, generator) is None

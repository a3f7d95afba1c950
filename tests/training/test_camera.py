"""What cameras do to training frames, each change by itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from tatvpr_edge.models.train import augment, camera
from tatvpr_edge.models.train.augment import AugmentConfig


def frames(count: int = 4, side: int = 48) -> torch.Tensor:
    """Smooth pictures in 0..1, each of other colours, nowhere black or white."""
    generator = torch.Generator().manual_seed(7)
    small = 0.2 + 0.6 * torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(small, (side, side), mode="bilinear")


def only(**changes: float) -> AugmentConfig:
    return dataclasses.replace(AugmentConfig.none(), **changes)


def changed(config: AugmentConfig, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    drawn = augment.draw_photometric(len(x), config, torch.Generator().manual_seed(seed))
    return augment.photometric(x, drawn)


def test_gray_is_pillows_gray() -> None:
    levels = augment.to_frames(frames())
    gray = augment.to_frames(changed(only(gray_share=1.0), augment.to_float(levels)))
    for before, after in zip(levels.numpy(), gray.numpy(), strict=True):
        wanted = np.asarray(Image.fromarray(before).convert("L"), np.int64)
        assert (after[..., 0] == after[..., 1]).all() and (after[..., 1] == after[..., 2]).all()
        assert np.abs(after[..., 0] - wanted).max() <= 1


def test_white_balance_is_one_gain_a_channel_within_its_width() -> None:
    x = frames(200) * 0.5  # nothing clips
    ratio = changed(only(balance=0.3), x) / x
    gains = ratio.mean((2, 3))
    assert float(ratio.std((2, 3)).max()) < 1e-3
    assert float(gains.min()) > np.exp(-0.301) and float(gains.max()) < np.exp(0.301)
    assert float((gains[:, 0] / gains[:, 2]).max()) > 1.5


def test_hue_and_saturation_leave_gray_and_brightness_alone() -> None:
    gray = frames()[:, :1].expand(-1, 3, -1, -1)
    config = only(hue_deg=40.0, saturation=0.5)
    torch.testing.assert_close(changed(config, gray), gray, rtol=0, atol=1e-5)
    x = frames()
    luma = torch.tensor(camera.LUMA)[:, None, None]
    weaker = changed(only(saturation=0.5), x)
    torch.testing.assert_close((weaker * luma).sum(1), (x * luma).sum(1), rtol=0, atol=1e-5)
    assert float((weaker - x).abs().max()) > 0.01


def test_red_and_blue_are_swapped() -> None:
    x = frames()
    torch.testing.assert_close(changed(only(swap_share=1.0), x), x.flip(1), rtol=0, atol=1e-5)


def test_low_light_is_darker_and_noisier_and_over_exposure_clips() -> None:
    x = frames(32)
    dark = changed(only(dark_share=1.0, dark_gain=0.2, noise=0.02), x)
    assert float(dark.mean()) < 0.7 * float(x.mean())
    flat = torch.full((32, 3, 48, 48), 0.5)
    noise = changed(only(dark_share=1.0, dark_gain=0.2, noise=0.02), flat).std((2, 3))
    assert float(noise.max()) > 0.03
    bright = changed(only(bright_share=1.0, bright_gain=2.5), x)
    assert float((bright == 1).float().mean()) > 0.1


def test_motion_smears_along_its_direction() -> None:
    x = torch.zeros(2, 3, 41, 41)
    x[:, :, 20, 20] = 1
    along = camera.smear(x, torch.tensor([[0.2, 0.0], [0.0, 0.0]]))
    spread = (along[0, 0] > 0.01).nonzero()
    assert spread[:, 0].unique().tolist() == [20]
    assert 7 <= len(spread) <= 11  # a fifth of the side
    assert torch.equal(along[1], x[1])


def test_an_occluder_hides_no_more_than_its_part_and_nothing_else() -> None:
    x = frames(64)
    hidden = (changed(only(occluder_share=1.0, occluder_area=1 / 3), x) - x).abs().amax(1) > 1e-4
    parts = hidden.float().mean((1, 2))
    assert 0.2 < float(parts.max()) <= 1 / 3 + 0.02
    assert (parts > 0).float().mean() > 0.9


def test_vignetting_darkens_corners_not_the_centre() -> None:
    x = torch.full((1, 3, 33, 33), 0.8)
    dark = camera.darken_corners(x, torch.tensor([0.5]))
    assert float(dark[0, 0, 16, 16]) == pytest.approx(0.8)
    assert float(dark[0, 0, 0, 0]) == pytest.approx(0.4)


def test_jpeg_loses_what_jpeg_loses() -> None:
    x = frames(2) + 0.2 * torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    read = camera.through_jpeg(x, torch.tensor([10, 0]))
    assert torch.equal(read[1], x[1])
    assert 0.01 < float((read[0] - x[0]).abs().mean()) < 0.2


def test_roll_reaches_its_angle_for_its_share_only() -> None:
    config = only(roll_share=0.25, roll_deg=20.0, rotation_deg=2.0)
    matrices = augment.draw_geometric(2000, config, torch.Generator().manual_seed(0))
    angle = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]).abs() * 180 / torch.pi
    assert 19 < float(angle.max()) <= 20
    assert float((angle > 2).float().mean()) == pytest.approx(0.25 * 0.9, abs=0.03)

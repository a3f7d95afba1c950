"""A head in closed form, and what a teacher says of frames as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import tiny_run
from tiny_sets import TINY_BACKBONE, ColourTeacher, labelled_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights, save_weights
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.heads.pooling import GeMHead
from tatvpr_edge.models.nn.config import HeadConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.teachers import members_of
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import (
    DataConfig,
    DistilConfig,
    KConfig,
    MetricConfig,
    RefitConfig,
)
from tatvpr_edge.models.train.refit import (
    View,
    _wanted,
    refit_head,
    ridge_regression,
    spread,
    turned,
    write_projection,
)
from tatvpr_edge.models.train.run import train
from tatvpr_edge.models.train.taught import answers, ranking_apart
from tatvpr_edge.spec.errors import ModelError, UsageError


def tiny(**head: float) -> PlaceModel:
    config = registry.config("micro", **TINY_BACKBONE)
    return registry.create(dataclasses.replace(config, head=HeadConfig("gem", dict(head))), seed=0)


@pytest.mark.parametrize(("digits", "error"), [(2, 0.25), (3, 0.08), (4, 0.03)])
def test_digits_hold_a_projection(digits: int, error: float) -> None:
    model = tiny(project=16, digits=digits).eval()
    head = model.head
    assert isinstance(head, GeMHead)
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(16, 24, generator=generator) * torch.logspace(0, -2, 16)[:, None]
    bias = torch.randn(16, generator=generator)
    tokens = torch.rand(5, 9, 24, generator=generator) + 0.1
    with torch.no_grad():
        write_projection(head, wanted, bias)
        found = head(tokens, model.gate(5, 1.0))
        exact = head.pooled(tokens) @ wanted.T + bias
    exact = exact / exact.norm(dim=1, keepdim=True)
    assert float((found - exact).norm(dim=1).max()) < error


def test_digits_hold_what_tells_left_from_right() -> None:
    model = tiny(project=16, digits=3, sides=1.0).eval()
    head = model.head
    assert isinstance(head, GeMHead)
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(16, 48, generator=generator)
    wanted[:, 24:] *= 8  # the difference of two means is small
    bias = torch.randn(16, generator=generator)
    tokens = torch.rand(5, 17, 24, generator=generator) + 0.1
    with torch.no_grad():
        write_projection(head, wanted, bias)
        found = head(tokens, model.gate(5, 1.0))
        pooled = head.pooled(tokens)
        x = torch.cat([pooled, head.beside(tokens, pooled, None)], dim=1)
        exact = x @ wanted.T + bias
    exact = exact / exact.norm(dim=1, keepdim=True)
    assert float((found - exact).norm(dim=1).max()) < 0.08


@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_a_fitted_head_tells_left_from_right_as_much_as_it_is_asked_to(weight: float) -> None:
    model = tiny(project=48, digits=3, sides=1.0)
    drawn = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 3)).astype(np.uint8)
    frames = drawn.repeat(4, axis=1).repeat(4, axis=2)
    asked = RefitConfig(own=1.0, sides=weight, even=True, ridge=1e-3)
    refit_head(model, [frames], None, [View(AugmentConfig.none())], asked, seed=0)
    model.eval()
    gate = model.gate(40, 1.0)
    with torch.no_grad():
        seen = model.see(torch.from_numpy(frames[:40]), gate)
        rows = seen.tokens[:, 1:].unflatten(1, (4, 4)).flip(2).flatten(1, 2)
        over = seen._replace(tokens=torch.cat([seen.tokens[:, :1], rows], dim=1))
        alike = float((model.describe(seen, gate) * model.describe(over, gate)).sum(1).mean())
    assert alike > 0.97 if weight == 0 else alike < 0.8


@pytest.mark.parametrize(
    ("numbers", "sides", "own"), [(30, 0.0, 0.5), (40, 1.0, 0.5), (40, 1.0, 1.0)]
)
def test_a_head_says_what_counts_most_of_more_numbers_than_it_has(
    numbers: int, sides: float, own: float
) -> None:
    """Fitted to more numbers than it has, it said a random part of them: cosines were .1 off where
    it has as many as channels, and .05 where it has a few less."""
    drawn = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3)).astype(np.uint8)
    frames = drawn.repeat(4, axis=1).repeat(4, axis=2)
    mixing = np.random.default_rng(1).normal(size=(192, 80))
    taught = (drawn.reshape(120, 192) / 255 - 0.5) @ mixing
    taught /= np.linalg.norm(taught, axis=1, keepdims=True)
    asked = RefitConfig(own=own, even=True, whitened=False, ridge=1e-3)
    alike = []
    for size in (numbers, 200):
        model = tiny(project=size, digits=4, sides=sides)
        views = [View(AugmentConfig.none())]
        refit_head(model, [frames], [taught.astype(np.float32)], views, asked, seed=0)
        with torch.no_grad():
            said = model.eval()(torch.from_numpy(frames[:40]), 1.0)
        alike.append(said @ said.T)
    assert float((alike[0] - alike[1]).abs().mean()) < 0.03


def test_a_head_of_more_numbers_than_there_are_to_say_is_told_how() -> None:
    """Of `micro`, `refit.own = 1` by itself says 384 numbers: it ended in a traceback."""
    model = tiny(project=49, digits=3, sides=1.0)
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    with pytest.raises(ModelError, match=r"are 48 numbers.*and the head 49: refit\.even = true"):
        refit_head(model, [frames], None, [View(AugmentConfig.none())], RefitConfig(own=1.0), 0)


@pytest.mark.parametrize("change", [{}, {"ridge": 1e300}, {"sides": 1e300}, {"plain": 1e308}])
def test_a_fit_that_says_nothing_is_refused(change: dict[str, float]) -> None:
    """Weights of zeros or of NaN were written as those of a run that went well."""
    model = tiny(project=16, digits=3, sides=1.0)
    config = RefitConfig(**{"own": 1.0, **change})
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    if not change:
        frames[:] = frames[0]
    views = [View(AugmentConfig.none(), weight=config.plain)]
    with pytest.raises(ModelError, match=r"largest number would be .*frames that differ"):
        refit_head(model, [frames], None, views, config, 0)


def test_more_digits_than_one_need_a_projection() -> None:
    with pytest.raises(ModelError, match="digits"):
        tiny(digits=2)


def test_a_ridge_regression_finds_what_the_teacher_sees_and_not_what_views_differ_in() -> None:
    rng = np.random.default_rng(0)
    place = torch.from_numpy(rng.normal(size=(300, 3)))
    light = torch.from_numpy(rng.normal(size=(300, 2)))
    mixing = torch.from_numpy(rng.normal(size=(5, 5)))
    x = torch.cat([place, 3 * light], 1) @ mixing
    y = place @ torch.from_numpy(rng.normal(size=(3, 8)))
    x, y = x - x.mean(0), y - y.mean(0)
    projection = turned(ridge_regression(x, y, 1e-9), x, 3)
    assert projection.shape == (3, 5)
    described = x @ projection.T
    torch.testing.assert_close(described @ described.T, y @ y.T, rtol=1e-3, atol=1e-3)
    spread = described.var(0)
    assert spread[0] >= spread[1] >= spread[2]  # the first numbers say most


def test_numbers_that_say_equally_much_keep_angles_in_their_signs() -> None:
    rng = np.random.default_rng(4)
    answers = torch.from_numpy(rng.normal(size=(60, 12)) * np.geomspace(1, 0.02, 12))
    even = answers @ spread(torch.eye(12, dtype=torch.float64), 2048).T
    torch.testing.assert_close(even @ even.T, answers @ answers.T)  # no cosine changes
    unit = answers / answers.norm(dim=1, keepdim=True)
    angle = torch.arccos((unit @ unit.T).clamp(-1, 1))

    def signs_miss(x: torch.Tensor) -> float:
        agree = (torch.sign(x) @ torch.sign(x).T) / x.shape[1]
        return float((torch.pi * (1 - agree) / 2 - angle).abs().mean())

    assert signs_miss(even) < 0.03 < 0.3 < signs_miss(answers)


def test_a_teacher_and_a_frames_own_channels_share_the_cosine_as_told() -> None:
    random = torch.Generator().manual_seed(0)
    seen = [torch.rand(6, 4, generator=random).double()]
    said = torch.nn.functional.normalize(torch.rand(6, 3, generator=random), dim=1)
    both = _wanted(seen, [said.numpy()], RefitConfig(teacher="any", own=0.25))
    own = _wanted(seen, None, RefitConfig(own=1.0))
    expected = 0.75 * (said @ said.T).double() + 0.25 * own @ own.T
    torch.testing.assert_close(both @ both.T, expected, rtol=1e-5, atol=1e-6)


def test_joined_teachers_weigh_alike(tmp_path: Path) -> None:
    places = labelled(labelled_set(tmp_path / "set"))
    asked: list[tuple[int, int]] = []
    one = answers([ColourTeacher()], places.paths, tmp_path / "cache")
    both = answers(
        [ColourTeacher(), ColourTeacher()], places.paths, tmp_path / "cache",
        lambda done, total: asked.append((done, total)),
    )  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(both @ both.T, one @ one.T, atol=1e-5)
    assert not asked  # both answers were kept from before


def test_an_unknown_teacher_is_named_also_among_several() -> None:
    with pytest.raises(UsageError, match="unknown teacher 'nobody'"):
        members_of("joint:nobody+efficientnet-lite0-gem")


def test_ranking_apart_asks_and_finds_only_frames_that_count() -> None:
    rng = np.random.default_rng(2)
    taught, student = (torch.from_numpy(rng.normal(size=(6, 4))) for _ in range(2))
    use = torch.tensor([True, True, False, True, True, True])
    assert float(ranking_apart(taught, taught, use, 0.1)) == pytest.approx(0, abs=1e-6)
    kept = np.flatnonzero(use.numpy())
    p, q = (
        x.numpy()[kept] / np.linalg.norm(x.numpy()[kept], axis=1, keepdims=True)
        for x in (taught, student)
    )
    each = []
    for i in range(5):
        others = np.arange(5) != i
        a, b = (np.exp(x[others] @ x[i] / 0.3) for x in (p, q))
        a, b = a / a.sum(), b / b.sum()
        each.append((a * np.log(a / b)).sum())
    assert float(ranking_apart(student, taught, use, 0.3)) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_run_refits_its_head_learns_mirrored_views_and_continues(tmp_path: Path) -> None:
    """From weights with another head: fitted once, not again when the run continues, which asks for
    the teacher of the fit no more."""
    start, asked_once = tmp_path / "start.safetensors", tmp_path / "once.safetensors"
    for file in (start, asked_once):
        save_weights(tiny(project=40), file)
    teacher = f"joint:model:{start}+model:{start}"
    whole = tiny_run(tmp_path)
    config = dataclasses.replace(
        whole,
        model=dataclasses.replace(
            whole.model, init=str(start), head={"project": 16, "digits": 3}
        ),
        refit=RefitConfig(teacher=f"joint:model:{start}+model:{asked_once}", changed=1),
        distil=DistilConfig(),
        metric=MetricConfig(
            steps=4, places=4, images=3, loss="supcon", mirror_share=0.3, tokens_share=0.5,
            flip_share=0.0, teacher=teacher, consistency_weight=0.0,
        ),
        data=(DataConfig(format="labelled", root=str(tmp_path / "set")),),
    )  # fmt: skip
    parts: set[str] = set()
    weights = train(config, lambda done: parts.update(done.parts))
    assert weights is not None
    assert {"similarity", "teacher"} <= parts
    trained = load_weights(weights)
    assert trained.descriptor_size == 16
    run = dataclasses.replace(config.run, output=str(tmp_path / "b"))
    broken = dataclasses.replace(config, run=run)
    assert train(broken, stop_after=2) is None
    refit = (tmp_path / "b" / "refit.safetensors").stat().st_mtime_ns
    asked_once.unlink()
    again = train(broken)
    assert (tmp_path / "b" / "refit.safetensors").stat().st_mtime_ns == refit
    assert again is not None
    for name, value in load_weights(again).state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_a_head_leaves_out_what_lower_dials_shift(tmp_path: Path) -> None:
    """A map made at k = 1 with all tokens is asked at lower dials."""
    labelled_set(tmp_path / "set", places=12)
    start = tmp_path / "start.safetensors"
    save_weights(tiny(project=40), start)
    whole = tiny_run(tmp_path)
    places = labelled(tmp_path / "set")
    frames = torch.from_numpy(load_frames(places.paths, 32, None))

    def kept(dials: float) -> float:
        """Mean cosine of a frame's descriptors, low dials against k = 1 with all tokens."""
        config = dataclasses.replace(
            whole,
            run=dataclasses.replace(whole.run, output=str(tmp_path / f"run{dials}")),
            model=dataclasses.replace(
                whole.model, init=str(start), head={"project": 32, "digits": 3}
            ),
            k=KConfig(lowest=0.2, opening=0.0, dense_share=0.0, tokens_lowest=0.3),
            refit=RefitConfig(own=1.0, even=True, ridge=1e-3, gray=0, changed=0, dials=dials),
            distil=DistilConfig(),
            metric=MetricConfig(),
            data=(DataConfig(format="labelled", root=str(tmp_path / "set")),),
        )
        weights = train(config)
        assert weights is not None
        model = load_weights(weights).eval()
        with torch.no_grad():
            return float((model(frames, 0.2, 0.4) * model(frames, 1.0)).sum(1).mean())

    assert kept(2.0) > kept(0.0) + 0.05


def test_a_head_fitted_to_its_own_channels_takes_gray_frames_for_the_frames(tmp_path: Path) -> None:
    labelled_set(tmp_path / "set")
    start = tmp_path / "start.safetensors"
    save_weights(tiny(project=40), start)
    whole = tiny_run(tmp_path)
    config = dataclasses.replace(
        whole,
        model=dataclasses.replace(
            whole.model, init=str(start), head={"project": 32, "digits": 3}
        ),
        refit=RefitConfig(own=1.0, even=True, ridge=0.01, gray=2, changed=0),
        distil=DistilConfig(),
        metric=MetricConfig(),
        data=(DataConfig(format="labelled", root=str(tmp_path / "set")),),
    )  # fmt: skip
    weights = train(config)
    assert weights is not None
    before, after = load_weights(start).eval(), load_weights(weights).eval()
    assert after.descriptor_size == 32
    for name, value in after.backbone.state_dict().items():
        assert torch.equal(value, before.backbone.state_dict()[name]), name
    side = before.config.backbone.image_px
    frames = load_frames(labelled(tmp_path / "set").paths, side)
    gray = np.repeat(frames.mean(-1, keepdims=True).round().astype(np.uint8), 3, -1)
    seen = [torch.from_numpy(np.array(x)) for x in (frames, gray)]
    with torch.no_grad():
        apart = [
            float((model(seen[0]) * model(seen[1])).sum(1).mean())
            - float((model(seen[0]) @ model(seen[0]).T).mean())
            for model in (before, after)
        ]
    assert apart[1] > apart[0] + 0.05

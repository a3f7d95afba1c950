"""Stage 1: what a batch is, and what a student learns from a frozen teacher's answers."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train import augment
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DistilConfig, KConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.draws import draw_k, draw_tokens, draw_visible
from tatvpr_edge.models.train.loop import Mixed, Randomness
from tatvpr_edge.models.train.views import TeacherViews
from tatvpr_edge.spec.errors import DataError

#: Views from which the variance of the teacher's features is taken.
_VARIANCE_VIEWS = 1000


class DistilStage:
    """Stage 1: tokens learn the teacher's map, the descriptor learns the teacher's descriptor.

    Unless ``config.whitened`` is false, the teacher's descriptors are centred, reduced to the
    student's size by their principal components and partly whitened (each component divided by the
    square root of its standard deviation): they differ more that way, and recall rises.
    """

    name = "distil"

    def __init__(
        self,
        model: PlaceModel,
        views: TeacherViews,
        config: DistilConfig,
        k: KConfig,
        change: AugmentConfig,
        crew: Crew,
        seed: int = 0,
        mixed: Mixed = nullcontext,
    ) -> None:
        self.model, self.views, self.config, self._mixed = model, views, config, mixed
        self.k, self.change, self.crew, self.device = k, change, crew, crew.device
        self.steps, self.optim, self.images = config.steps, config.optim, config.batch
        channels = views.features.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.proj = nn.Linear(model.config.backbone.dim, channels).to(crew.device)
        if config.batch > len(views.pixels):
            raise DataError(
                f"{len(views.pixels)} views of the teacher, and distil.batch = {config.batch}: "
                "smaller batches, or more data.views"
            )
        side = model.config.backbone.image_px // model.config.backbone.patch
        self._side = side
        self._targets: Tensor | None = None
        if config.descriptor_weight > 0 or config.ranking_weight > 0:
            self._targets = _targets(views, config.whitened, model.descriptor_size)
        # Of the whole set, so that every process of a run divides by the same number.
        sample = np.asarray(views.features[:_VARIANCE_VIEWS], dtype=np.float32)
        self._variance = max(float(sample.var()), 1e-6)
        if views.pixels.shape[1] != model.config.backbone.image_px:
            raise DataError(
                f"the teacher's views are {views.pixels.shape[1]} px, "
                f"{model.config.name} takes {model.config.backbone.image_px}: make them again"
            )

    def parameters(self) -> list[nn.Parameter]:
        """Everything trains."""
        return [*self.model.parameters(), *self.proj.parameters()]

    def modules(self) -> nn.ModuleDict:
        """Model and the projection that only training needs."""
        return nn.ModuleDict({"model": self.model, "proj": self.proj})

    def q_factor(self, step: int) -> float:
        """How much of the quantised values this step uses."""
        start = self.config.quantise_from * self.steps
        end = self.config.quantise_until * self.steps
        return 1.0 if step >= end else max(0.0, (step - start) / max(1.0, end - start))

    def loss(self, step: int, random: Randomness) -> dict[str, Tensor]:
        """One batch."""
        batch = self.config.batch
        chosen = np.sort(random.numpy.choice(len(self.views.pixels), batch, replace=False))
        drawn = augment.draw_photometric(batch, self.change, random.torch)
        mirrored = torch.rand(batch, generator=random.torch) < self.config.mirror_share
        ks = draw_k(batch, self.k, step / self.steps, random.torch)
        tokens = draw_tokens(self.k, random.torch)
        if self._targets is None:
            tokens = 1.0  # only tokens are supervised: none may be missing
        seen_patches = draw_visible(
            batch, self._side**2, self.config.visible_share, step / self.steps, random.torch
        )
        others = self._others(chosen, random)
        part = self.crew.part(batch)

        own = chosen[part]
        x = augment.to_float(torch.from_numpy(self.views.pixels[own]))
        maps = torch.from_numpy(self.views.features[own]).float().permute(0, 3, 1, 2)
        flip = mirrored[part, None, None, None]
        x, maps = torch.where(flip, x.flip(3), x), torch.where(flip, maps.flip(3), maps)
        frames = augment.to_frames(augment.photometric(x, drawn[part])).to(self.device)
        maps = F.interpolate(maps, (self._side, self._side), mode="bilinear", align_corners=False)
        wanted = maps.flatten(2).transpose(1, 2).to(self.device)

        self.model.train()
        gate = self.model.gate(len(own), ks[part].to(self.device), tokens, self.q_factor(step))
        visible = None
        if seen_patches is not None:
            visible = seen_patches[part].to(self.device)
            wanted = wanted.gather(1, visible[..., None].expand(-1, -1, wanted.shape[-1]))
        with self._mixed():
            seen = self.model.see(frames, gate, visible)
            said = self.proj(seen.tokens[:, 1:]).float()
            descriptors = None if self._targets is None else self.model.describe(seen, gate).float()
        parts: dict[str, Tensor] = {}
        if self.config.tokens_weight > 0 and said.shape == wanted.shape:
            missed = F.mse_loss(said, wanted) / self._variance
            parts["tokens"] = self.config.tokens_weight * missed
        if self._targets is not None and descriptors is not None:
            target = self._targets[torch.from_numpy(own)].to(self.device)
            apart = 1 - (descriptors * target).sum(1)
            parts["descriptor"] = self.config.descriptor_weight * apart.mean()
            if others is not None:
                missed = ranking_loss(
                    descriptors, target, others.to(self.device), self.config.ranking_temperature
                )
                parts["ranking"] = self.config.ranking_weight * missed
        return parts

    def _others(self, chosen: NDArray[np.int64], random: Randomness) -> Tensor | None:
        """The teacher's descriptors of this batch and of views drawn beside it, ``[M, D]``."""
        if self._targets is None or self.config.ranking_weight == 0:
            return None
        count = min(self.config.ranking_views, len(self._targets))
        drawn = random.numpy.choice(len(self._targets), count, replace=False)
        return self._targets[torch.from_numpy(np.union1d(chosen, drawn))]


def ranking_loss(descriptors: Tensor, target: Tensor, others: Tensor, temperature: float) -> Tensor:
    """How differently ``descriptors [B, D]`` and the teacher's ``target [B, D]`` rank ``others``.

    The Kullback-Leibler divergence, averaged over the batch, from the student's to the teacher's
    softmax of cosines with ``others [M, D]``, all at unit length: the loss of SEED (Fang et al.,
    2021), with the teacher's descriptors of known views for its queue.
    """
    wanted = F.log_softmax(target @ others.T / temperature, dim=1)
    found = F.log_softmax(descriptors @ others.T / temperature, dim=1)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def _targets(views: TeacherViews, whitened: bool, size: int) -> Tensor:
    """What descriptors learn, ``[N, size]`` at unit length."""
    descriptors = np.asarray(views.descriptors, dtype=np.float32)
    if whitened:
        return partly_whitened(descriptors, size)
    if descriptors.shape[1] != size:
        raise DataError(
            f"the teacher's descriptors have {descriptors.shape[1]} numbers and the model's {size}:"
            " only distil.whitened = true reduces them"
        )
    return F.normalize(torch.from_numpy(descriptors), dim=1)


def partly_whitened(descriptors: NDArray[np.float32], size: int) -> Tensor:
    """Principal components of ``descriptors [N, D]``, ``[N, size]`` at unit length."""
    x = torch.from_numpy(descriptors)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    kept = min(size, x.shape[1])
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    scores = (x @ vectors) * values.clamp_min(1e-8) ** -0.25
    if kept < size:
        scores = F.pad(scores, (0, size - kept))
    return F.normalize(scores, dim=1)

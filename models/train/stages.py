"""The two stages: what a batch is and what its loss is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.data.places import Places
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.models.train import augment
from tatvpr_edge.models.train.augment import AugmentConfig
from tatvpr_edge.models.train.config import DistilConfig, KConfig, MetricConfig
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.loop import Randomness, draw_k
from tatvpr_edge.models.train.rivals import Rivals, draw_cliques
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
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.model, self.views, self.config = model, views, config
        self.k, self.change, self.crew, self.device = k, change, crew, device
        self.steps, self.optim, self.images = config.steps, config.optim, config.batch
        channels = views.features.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.proj = nn.Linear(model.config.backbone.dim, channels).to(device)
        side = model.config.backbone.image_px // model.config.backbone.patch
        self._side = side
        self._targets: Tensor | None = None
        if config.descriptor_weight > 0:
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
        mirrored = torch.rand(batch, generator=random.torch) < 0.5
        ks = draw_k(batch, self.k, step / self.steps, random.torch)
        tokens = draw_tokens(self.k, random.torch)
        if self._targets is None:
            tokens = 1.0  # only tokens are supervised: none may be missing
        seen_patches = draw_visible(
            batch, self._side**2, self.config.visible_share, step / self.steps, random.torch
        )
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
        if seen_patches is not None:
            visible = seen_patches[part].to(self.device)
            seen = self.model.tokens(frames, gate, visible)
            wanted = wanted.gather(1, visible[..., None].expand(-1, -1, wanted.shape[-1]))
        else:
            seen = self.model.tokens(frames, gate)
        parts: dict[str, Tensor] = {}
        if seen.shape[1] == wanted.shape[1] + 1:
            guess = self.proj(seen[:, 1:])
            parts["tokens"] = F.mse_loss(guess, wanted) / self._variance
        if self._targets is not None:
            descriptors = self.model.head(seen, gate)
            target = self._targets[torch.from_numpy(own)].to(self.device)
            apart = 1 - (descriptors * target).sum(1)
            parts["descriptor"] = self.config.descriptor_weight * apart.mean()
        return parts


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


def draw_visible(
    count: int, patches: int, share: float, done: float, generator: torch.Generator
) -> Tensor | None:
    """Patches that each image shows, ``[count, n]`` in rising order: patch dropout (Liu et al.,
    2022) makes a step cheaper. The last fifth of a stage sees everything.
    """
    if share >= 1 or done >= 0.8:
        return None
    order = torch.rand(count, patches, generator=generator).argsort(1)
    return order[:, : max(1, round(share * patches))].sort(1).values


def draw_tokens(config: KConfig, generator: torch.Generator) -> float:
    """The fraction of tokens of one batch; half the batches keep all."""
    u = torch.rand(2, generator=generator)
    if config.tokens_lowest >= 1 or float(u[1]) < 0.5:
        return 1.0
    return config.tokens_lowest + (1 - config.tokens_lowest) * float(u[0])


@dataclass(frozen=True)
class Source:
    """Where stage 2 takes places from.

    Attributes:
        pixels: ``uint8 [N, side, side, 3]``, the frames of ``places``.
        share: of the places in a batch, relative to the other sources.
        rivals: places that look alike, drawn beside each.
    """

    places: Places
    pixels: NDArray[np.uint8]
    share: float = 1.0
    rivals: int = 0


class MetricStage:
    """Stage 2: descriptors of one place meet, those of different places part, at every k.

    ``beside``, stage 1 with its own batches, keeps what the teacher taught from being forgotten:
    its loss is added, times ``config.distil_weight``.
    """

    name = "metric"

    def __init__(
        self,
        model: PlaceModel,
        sources: Sequence[Source],
        config: MetricConfig,
        k: KConfig,
        change: AugmentConfig,
        crew: Crew,
        device: str = "cpu",
        beside: DistilStage | None = None,
    ) -> None:
        from pytorch_metric_learning.losses import MultiSimilarityLoss
        from pytorch_metric_learning.miners import MultiSimilarityMiner

        self.model, self.sources, self.config = model, sources, config
        self.k, self.change, self.crew, self.device = k, change, crew, device
        self.steps, self.optim = config.steps, config.optim
        self.images = config.places * config.images
        self._criterion: Any = MultiSimilarityLoss(config.alpha, config.beta, config.base)
        self._miner: Any = MultiSimilarityMiner(config.miner_epsilon)
        self._counts = _shares([source.share for source in sources], config.places)
        self._rivals = Rivals([source.places for source in sources])
        self.beside = beside

    def parameters(self) -> list[nn.Parameter]:
        """The last blocks, last norm and head; everything for ``last_blocks = -1``."""
        backbone = self.model.backbone
        extra = [] if self.beside is None else list(self.beside.proj.parameters())
        if self.config.last_blocks < 0:
            return [*self.model.parameters(), *extra]
        first = len(backbone.blocks) - self.config.last_blocks
        chosen = [backbone.norm, self.model.head, *list(backbone.blocks)[max(0, first) :]]
        trained = [p for module in chosen for p in module.parameters()]
        kept = {id(p) for p in trained}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in kept)
        return [*trained, *extra]

    def modules(self) -> nn.ModuleDict:
        """The model, which places it takes for each other, and what stage 1 beside it needs."""
        kept: dict[str, nn.Module] = {"model": self.model, "rivals": self._rivals}
        if self.beside is not None:
            kept["proj"] = self.beside.proj
        return nn.ModuleDict(kept)

    def _batch(self, random: Randomness) -> tuple[Tensor, Tensor]:
        """Frames ``uint8 [N, S, S, 3]`` and place labels ``[N]``."""
        frames: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        rng, images = random.numpy, self.config.images
        for number, source in enumerate(self.sources):
            places, pixels = source.places, source.pixels
            drawn, count = places.draw(rng), self._counts[number]
            if len(drawn) < count:
                raise DataError(f"{places.name}: {len(drawn)} places, a batch needs {count}")
            table = self._rivals.of(number)
            for index in draw_cliques(drawn, table, count, source.rivals, rng):
                members = drawn[index]
                chosen = rng.choice(members, images, replace=len(members) < images)
                frames += [pixels[i] for i in chosen]
                labels += [len(labels) // images] * images
        return torch.from_numpy(np.stack(frames)), torch.tensor(labels)

    @torch.no_grad()
    def _plainly(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Descriptors ``[n, D]`` of frames as they are, at k = 1."""
        side = self.model.config.backbone.image_px
        found = []
        for start in range(0, len(pixels), self.images):
            x = augment.to_float(torch.from_numpy(pixels[start : start + self.images]))
            x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
            frames = augment.to_frames(x).to(self.device)
            found.append(self._describe(frames, torch.ones(len(frames)), 1.0, None))
        return torch.cat(found)

    def _describe(
        self, frames: Tensor, ks: Tensor, tokens: float, visible: Tensor | None
    ) -> Tensor:
        gate = self.model.gate(len(frames), ks.to(self.device), tokens)
        described: Tensor = self.model.head(self.model.tokens(frames, gate, visible), gate)
        return described

    def loss(self, step: int, random: Randomness) -> dict[str, Tensor]:
        """One batch."""
        config, count = self.config, self.images
        if step % config.rivals_every == 0:
            for number, source in enumerate(self.sources):
                if source.rivals:
                    self._rivals.mine(
                        number, source.places, source.pixels, self._plainly, random.numpy
                    )
        pixels, labels = self._batch(random)
        shapes = augment.draw_geometric(count, self.change, random.torch)
        colours = augment.draw_photometric(count, self.change, random.torch)
        mirrored = torch.rand(config.places, generator=random.torch) < config.flip_share
        ks = draw_k(count, self.k, step / self.steps, random.torch)
        tokens = draw_tokens(self.k, random.torch)
        anchors = torch.randperm(count, generator=random.torch)
        backbone = self.model.config.backbone
        patches = draw_visible(
            count, backbone.patches, config.visible_share, step / self.steps, random.torch
        )
        part = self.crew.part(count)

        side = backbone.image_px
        x = augment.geometric(augment.to_float(pixels[part]), shapes[part], side)
        x = augment.photometric(x, colours[part])
        flip = mirrored.repeat_interleave(config.images)[part, None, None, None]
        frames = augment.to_frames(torch.where(flip, x.flip(3), x)).to(self.device)

        self.model.train()
        visible = None if patches is None else patches[part].to(self.device)
        mine = self._describe(frames, ks[part], tokens, visible)
        descriptors = self.crew.gather(mine)
        labels = labels.to(self.device)
        pairs = self._miner(descriptors, labels)
        parts = {"similarity": self._criterion(descriptors, labels, pairs)}
        if config.consistency_weight > 0:
            # Of the images at low k, some are computed again at k = 1, which they shall resemble.
            low = anchors[ks[anchors] < 1][: int(config.consistency_share * count)]
            own = low[(low >= part.start) & (low < part.stop)] - part.start
            if len(low):
                with torch.no_grad():
                    dense = mine[:0]
                    if len(own):
                        shown = None if visible is None else visible[own]
                        dense = self._describe(frames[own], torch.ones(len(own)), 1.0, shown)
                apart = 1 - (mine[own] * dense).sum(1)
                share = apart.sum() * self.crew.size / len(low)
                parts["consistency"] = config.consistency_weight * share
        if self.beside is not None:
            for name, taught in self.beside.loss(step, random).items():
                parts[name] = config.distil_weight * taught
        return parts


def _shares(shares: Sequence[float], places: int) -> list[int]:
    """``places`` divided in proportion; the last source takes what rounding leaves."""
    total = sum(shares)
    counts = [round(places * share / total) for share in shares[:-1]]
    counts.append(places - sum(counts))
    if min(counts) < 1:
        raise DataError(f"a batch of {places} places leaves a data source without any")
    return counts

"""Stage 2: what a batch of places is, and how far its descriptors shall lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from tatvpr_edge.models.train.config import KConfig, MetricConfig
from tatvpr_edge.models.train.distil import DistilStage
from tatvpr_edge.models.train.distributed import Crew
from tatvpr_edge.models.train.draws import draw_k, draw_tokens, draw_visible
from tatvpr_edge.models.train.loop import Mixed, Randomness
from tatvpr_edge.models.train.rivals import Rivals, draw_cliques
from tatvpr_edge.models.train.taught import ranking_apart
from tatvpr_edge.spec.errors import DataError, UsageError

#: Frames that a CPU takes through the network at a time: what one layer leaves lies in a core's
#: cache when the next one reads it.
_CPU_FRAMES = 16


@dataclass(frozen=True)
class Source:
    """Where stage 2 takes places from.

    Attributes:
        pixels: ``uint8 [N, side, side, 3]``, the frames of ``places``.
        share: of the places in a batch, relative to the other sources.
        rivals: places that look alike, drawn beside each.
        taught: a teacher's descriptors of the frames as they are, ``[N, E]``, whose ranking is
            learned; None for none.
        anchor: descriptors of the frames as they are that are learned themselves, ``[N, D]``.
    """

    places: Places
    pixels: NDArray[np.uint8]
    share: float = 1.0
    rivals: int = 0
    taught: NDArray[np.float32] | None = None
    anchor: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Relations:
    """What the images of a batch are to each other.

    Attributes:
        labels: the place of each, ``[N]``.
        same, apart: bool ``[N, N]``: surely one place, surely two; pairs that are neither teach
            nothing.
    """

    labels: Tensor
    same: Tensor
    apart: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> Relations:
        """Equal labels are one place, all others are two."""
        same = labels[:, None] == labels
        return cls(labels, same, ~same)

    def with_mirrored(self, mirrored: Tensor) -> Relations:
        """A mirrored image (``bool [N]``) shows another place than those that are not."""
        alike = mirrored[:, None] == mirrored
        labels = 2 * self.labels + mirrored
        return Relations(labels, self.same & alike, self.apart | ~alike)

    def to(self, device: str) -> Relations:
        """The same there."""
        return Relations(self.labels.to(device), self.same.to(device), self.apart.to(device))


@dataclass(frozen=True)
class Batch:
    """Frames ``uint8 [N, S, S, 3]``, what they are to each other, and what teachers said of each
    ``[N, E]``: zeros where they were not asked, None where they were asked of no frame."""

    frames: Tensor
    relations: Relations
    taught: Tensor | None
    anchor: Tensor | None


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
        beside: DistilStage | None = None,
        mixed: Mixed = nullcontext,
    ) -> None:
        self.model, self.sources, self.config, self._mixed = model, sources, config, mixed
        self.k, self.change, self.crew, self.device = k, change, crew, crew.device
        self.steps, self.optim = config.steps, config.optim
        self.images = config.places * config.images
        self._similarity = similarity_loss(config)
        self._counts = _shares([source.share for source in sources], config.places)
        for source, count in zip(sources, self._counts, strict=True):
            if source.places.fewest < count:
                raise DataError(
                    f"{source.places.name}: {source.places.fewest} places, a batch needs {count}: "
                    "lower metric.places, or give more frames"
                )
        self._rivals = Rivals([source.places for source in sources])
        self.beside = beside
        if config.heed_weight > 0 and not hasattr(model.head, "shares"):
            raise UsageError(
                f"metric.heed_weight: a head {model.config.head.kind!r} pools no patches that the "
                "CLS token could look at"
            )

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

    def _batch(self, random: Randomness) -> Batch:
        """``places`` x ``images`` frames, those of one place in a row."""
        frames: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        rows: list[NDArray[np.int64]] = []
        same, apart = [], []
        rng, images = random.numpy, self.config.images
        for number, source in enumerate(self.sources):
            places, pixels = source.places, source.pixels
            drawn, count = places.draw(rng), self._counts[number]
            table = self._rivals.of(number)
            members: list[NDArray[np.int64]] = []
            for index in draw_cliques(drawn, table, count, source.rivals, rng):
                place = drawn[index]
                members.append(rng.choice(place, images, replace=len(place) < images))
                labels += [len(labels) // images] * images
            chosen = np.concatenate(members)
            frames += [pixels[i] for i in chosen]
            same.append(torch.from_numpy(places.same(chosen)))
            apart.append(torch.from_numpy(~places.apart(chosen)))
            rows.append(chosen)
        relations = Relations(
            torch.tensor(labels), torch.block_diag(*same), ~torch.block_diag(*apart)
        )
        return Batch(
            torch.from_numpy(np.stack(frames)),
            relations,
            _said([source.taught for source in self.sources], rows),
            _said([source.anchor for source in self.sources], rows),
        )

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
        self,
        frames: Tensor,
        ks: Tensor,
        tokens: float,
        visible: Tensor | None,
        heed: list[Tensor] | None = None,
    ) -> Tensor:
        """Descriptors ``[n, D]``; what :func:`heeded` says of each frame is appended to ``heed``,
        ``[n]`` for each KeepTokens."""
        described: list[Tensor] = []
        step = _CPU_FRAMES if self.device == "cpu" else max(1, len(frames))
        for start in range(0, len(frames), step):
            part = slice(start, start + step)
            gate = self.model.gate(len(frames[part]), ks[part].to(self.device), tokens)
            looks: list[Tensor] = []
            shown = None if visible is None else visible[part]
            with self._mixed():
                seen = self.model.see(frames[part], gate, shown, looks)
                described.append(self.model.describe(seen, gate).float())
            if heed is not None:
                head: Any = self.model.head
                heed += [heeded(look, head.shares(seen.tokens)) for look in looks]
        return torch.cat(described)

    def _describe_mixed(
        self,
        frames: Tensor,
        ks: Tensor,
        tokens: float,
        fewer: Tensor,
        visible: Tensor | None,
        heed: list[Tensor] | None = None,
    ) -> Tensor:
        """As :meth:`_describe`, but only the images ``fewer`` keep fewer tokens."""
        if tokens >= 1 or bool(fewer.all()):
            return self._describe(frames, ks, tokens, visible, heed)
        described: list[Tensor] = []
        order = torch.cat([fewer.nonzero()[:, 0], (~fewer).nonzero()[:, 0]])
        few = int(fewer.sum())
        for rows, kept in ((order[:few], tokens), (order[few:], 1.0)):
            if len(rows):
                shown = None if visible is None else visible[rows]
                described.append(self._describe(frames[rows], ks[rows], kept, shown, heed))
        return torch.cat(described)[order.argsort()]

    def loss(self, step: int, random: Randomness) -> dict[str, Tensor]:
        """One batch."""
        config, count = self.config, self.images
        self.model.train()
        if step % config.rivals_every == 0:
            for number, source in enumerate(self.sources):
                if source.rivals:
                    self._rivals.mine(
                        number, source.places, source.pixels, self._plainly, random.numpy
                    )
        batch = self._batch(random)
        shapes = augment.draw_geometric(count, self.change, random.torch)
        colours = augment.draw_photometric(count, self.change, random.torch)
        flipped = torch.rand(config.places, generator=random.torch) < config.flip_share
        mirrored = torch.rand(count, generator=random.torch) < config.mirror_share
        ks = draw_k(count, self.k, step / self.steps, random.torch)
        tokens = draw_tokens(self.k, random.torch)
        fewer = torch.rand(count, generator=random.torch) < config.tokens_share
        anchors = torch.randperm(count, generator=random.torch)
        backbone = self.model.config.backbone
        patches = draw_visible(
            count, backbone.patches, config.visible_share, step / self.steps, random.torch
        )
        part = self.crew.part(count)

        side = backbone.image_px
        x = augment.geometric(augment.to_float(batch.frames[part]), shapes[part], side)
        flip = (flipped.repeat_interleave(config.images) ^ mirrored)[part, None, None, None]
        x = augment.photometric(torch.where(flip, x.flip(3), x), colours[part])
        frames = augment.to_frames(x).to(self.device)

        visible = None if patches is None else patches[part].to(self.device)
        heed: list[Tensor] | None = [] if config.heed_weight > 0 else None
        mine = self._describe_mixed(frames, ks[part], tokens, fewer[part], visible, heed)
        descriptors = self.crew.gather(mine)
        relations = batch.relations.with_mirrored(mirrored).to(self.device)
        parts = {"similarity": self._similarity(descriptors, relations)}
        if config.binary_weight > 0:
            signs = self._similarity(binarized(descriptors), relations)
            parts["binary"] = config.binary_weight * signs
        whole = count if tokens >= 1 else int((~fewer).sum())  # of all processes' frames
        if heed is not None and whole and backbone.keep_after:
            missed = torch.cat([*heed, mine.new_zeros(0)]).sum() * self.crew.size
            parts["heed"] = config.heed_weight * (missed / (whole * len(backbone.keep_after)))
        # Teachers take a mirrored frame for the frame itself: they are not asked.
        plain = ~(flipped.repeat_interleave(config.images) ^ mirrored)
        if batch.taught is not None and config.teacher_weight > 0:
            asked, taught = plain & batch.taught.any(1), batch.taught.to(self.device)
            missed = ranking_apart(
                descriptors, taught, asked.to(self.device), config.teacher_temperature
            )
            parts["teacher"] = config.teacher_weight * missed
        if batch.anchor is not None and config.anchor_weight > 0:
            asked, anchor = (plain & batch.anchor.any(1)), batch.anchor.to(self.device)
            missed = 1 - (descriptors * anchor).sum(1)[asked.to(self.device)]
            parts["anchor"] = config.anchor_weight * missed.sum() / asked.sum().clamp_min(1)
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


def similarity_loss(config: MetricConfig) -> Callable[[Tensor, Relations], Tensor]:
    """The loss ``config.loss`` of descriptors ``[N, D]`` and what they are to each other.

    "multi-similarity": Wang et al., 2019; it goes by labels. "supcon": Khosla et al., Supervised
    Contrastive Learning, 2020, the loss with the sum over positives outside of the logarithm.
    """
    from pytorch_metric_learning import losses, miners

    if config.loss == "supcon":
        contrastive: Any = losses.SupConLoss(config.temperature)

        def ordered(descriptors: Tensor, relations: Relations) -> Tensor:
            others = ~torch.eye(len(descriptors), dtype=torch.bool, device=descriptors.device)
            pairs = (*torch.where(relations.same & others), *torch.where(relations.apart))
            loss: Tensor = contrastive(descriptors.float(), relations.labels, pairs)
            return loss

        return ordered
    criterion: Any = losses.MultiSimilarityLoss(config.alpha, config.beta, config.base)
    miner: Any = miners.MultiSimilarityMiner(config.miner_epsilon)

    def mined(descriptors: Tensor, relations: Relations) -> Tensor:
        labels = relations.labels
        loss: Tensor = criterion(descriptors, labels, miner(descriptors, labels))
        return loss

    return mined


def heeded(looked: Tensor, shares: Tensor) -> Tensor:
    """How far what the CLS token looks at, ``[B, P]``, is from what each patch brings to the
    descriptor, ``[B, P]``: the divergence of Kullback and Leibler, ``[B]``.

    Which tokens KeepTokens keeps has no gradient, and a head that pools patches gives the CLS
    token no reason to look at those that it pools: this does.
    """
    looked = looked.float() + 1e-3  # attention is rounded to 8 bits: it may be 0
    log = (looked / looked.sum(1, keepdim=True)).log()
    return F.kl_div(log, shares.float(), reduction="none").sum(1)


def binarized(descriptors: Tensor) -> Tensor:
    """Signs of descriptors ``[N, D]`` at length 1, as a binary map compares them: 0 counts as -1.

    Gradients pass as if the descriptors themselves were compared (straight-through estimator,
    Bengio et al., 2013).
    """
    signs = torch.where(descriptors > 0, 1.0, -1.0) / descriptors.shape[1] ** 0.5
    return descriptors + (signs - descriptors).detach()


def _said(
    answers: Sequence[NDArray[np.float32] | None], rows: Sequence[NDArray[np.int64]]
) -> Tensor | None:
    """The rows of every source's answers, zeros for sources without; None where none has any."""
    sizes = [said.shape[1] for said in answers if said is not None]
    if not sizes:
        return None
    parts = [
        np.zeros((len(chosen), sizes[0]), np.float32) if said is None else said[chosen]
        for said, chosen in zip(answers, rows, strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _shares(shares: Sequence[float], places: int) -> list[int]:
    """``places`` divided in proportion; the last source takes what rounding leaves."""
    total = sum(shares)
    counts = [round(places * share / total) for share in shares[:-1]]
    counts.append(places - sum(counts))
    if min(counts) < 1:
        raise DataError(f"a batch of {places} places leaves a data source without any")
    return counts

"""The tables of a training file as records: every key with its default and what it means.

``docs/training.md`` walks through a file; ``models/train/recipes`` holds those of shipped models;
``models/train/training_file.py`` reads and checks one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tatvpr_edge.models.train.augment import AugmentConfig


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run happens.

    Attributes:
        output: folder of checkpoints, curves and weights.
        seed: of weights, batches, augmentation and k.
        threads: of the processor, for each process; 0 leaves torch's choice. With another number
            of them sums are added in another order: weights differ in their last bits.
        checkpoint_every_s: seconds between checkpoints.
        precision: "fp32", or "bf16" for mixed precision in the network.
        device: "cpu" or "cuda", of several processes a GPU for each.
        cache: folder for decoded frames; empty for none.
    """

    output: str = "runs/train"
    seed: int = 0
    threads: int = 0
    checkpoint_every_s: float = 180.0
    precision: str = "fp32"
    device: str = "cpu"
    cache: str = "runs/cache"


@dataclass(frozen=True)
class ModelSection:
    """Which network.

    Attributes:
        name: registered name.
        backbone: fields of its backbone to change (group, scope, mlp_norm, ternary ...).
        head: options of its head to change (project, digits, sides).
        init: weights to start from: a file (safetensors), or "micro" for the shipped ones; empty
            for random ones. Where their head has other options, it is fitted anew (``refit``).
        enlarge: the weights of ``init`` are those of smaller frames, and the positions of patches
            are interpolated (``models/enlarge.py``).
    """

    name: str = "micro"
    backbone: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    enlarge: bool = False


@dataclass(frozen=True)
class RefitConfig:
    """The head of starting weights in closed form (``models/train/refit.py``).

    Attributes:
        teacher: what descriptors are fitted to, named as ``metric.teacher``; empty: none.
        own: share of the pooled channels of the frames as they are, partly whitened, in what
            descriptors are fitted to; 1 needs no teacher. 0 and no teacher: no refit.
        sides: weight of what tells left from right beside them, of a head with ``sides``: how far
            a descriptor depends on where in the frame things are.
        whitened: the teacher's descriptors are partly whitened first, and the head's turned so
            that the first numbers say most; false keeps them as the teacher says them, which needs
            as many of them.
        even: descriptors are turned so that all numbers say equally much, as binary maps need,
            instead of the first ones most.
        ridge: penalty, as a fraction of the channels' mean variance.
        plain: weight of the pass over the frames as they are.
        gray: passes over the frames in gray.
        changed: passes over the frames changed as ``augment`` says, at a k as ``k`` says.
        dials: weight of a pass over the frames as they are at a k, and with a share of the tokens,
            as ``k`` says: what lowers a dial shifts the pooled channels, of all frames alike, and
            the head leaves that out; 0 for none.
    """

    teacher: str = ""
    own: float = 0.0
    sides: float = 0.45
    whitened: bool = True
    even: bool = False
    ridge: float = 0.1
    plain: float = 2.0
    gray: int = 1
    changed: int = 1
    dials: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether the head of the starting weights is fitted anew."""
        return bool(self.teacher) or self.own > 0


@dataclass(frozen=True)
class OrderConfig:
    """Channels of starting weights become neighbours where they fire together, so that gates of
    groups (``model.backbone = { groups = 4 }``) keep more (``models/order.py``).

    Attributes:
        k: for which k the order is made; 0 leaves channels where they are.
        frames: taken evenly from the sources, as they are.
    """

    k: float = 0.0
    frames: int = 256


@dataclass(frozen=True)
class KConfig:
    """How k is drawn, for each image by itself.

    Attributes:
        lowest: smallest k.
        dense_share: share of images at k = 1.
        opening: share of a stage over which the range opens from [1, 1] down to ``lowest``.
        power: 1 draws evenly between ``lowest`` and 1; above 1, low k come more often (the
            uniform number is raised to it).
        tokens_lowest: smallest fraction of tokens kept, drawn for each batch; 1 keeps all.
    """

    lowest: float = 0.2
    dense_share: float = 0.25
    opening: float = 0.3
    power: float = 1.0
    tokens_lowest: float = 1.0


@dataclass(frozen=True)
class OptimConfig:
    """Warm-up and a cosine.

    Attributes:
        kind: "adamw"; or "muon" for the ternary matrices and AdamW for everything else.
        lr: at the top of the schedule.
        lr_end: as a fraction of ``lr``.
        weight_decay: of every matrix; vectors are not decayed.
        warmup_steps: linear.
        clip: largest norm of the whole gradient.
        momentum: of Muon (``torch.optim.Muon``).
    """

    lr: float = 1e-3
    lr_end: float = 0.02
    weight_decay: float = 0.01
    warmup_steps: int = 40
    clip: float = 1.0
    kind: str = "adamw"
    momentum: float = 0.95


@dataclass(frozen=True)
class DistilConfig:
    """Stage 1.

    Attributes:
        views: folder of the teacher's answers; made from ``data`` if it does not exist, shared by
            runs that name it.
        teacher: "efficientnet-lite0-gem"; "dinov2-boq:FILE" with a user's checkpoint; "model:FILE"
            with weights of ours (or "model:micro"), which teach what they say at k = 1; several of
            them as one, "joint:A+B".
        channels: principal components of the teacher's map.
        steps, batch: length and size.
        tokens_weight: of the tokens' part of the loss; 0 for none.
        descriptor_weight: of the descriptor's part.
        ranking_weight: of the loss that has a student's descriptor find, among the teacher's
            descriptors of other views, what the teacher's own finds; 0 for none.
        ranking_temperature: of the softmax over cosines in that loss; lower looks at nearer views.
        ranking_views: views drawn as those others in every step.
        whitened: learn the teacher's descriptors partly whitened (another space, in which they
            differ more); false for a teacher whose space is the student's.
        visible_share: share of its patches that an image shows (patch dropout: cheaper steps);
            the last fifth of the stage sees all. 1 for none.
        mirror_share: share of the images that are mirrored, with the teacher's features mirrored
            too and its descriptor as it was: more to learn from, and a descriptor that takes a
            mirrored place for the place itself; 0 where it shall not.
        quantise_from, quantise_until: steps between which full precision blends into quantised
            values, as fractions of the stage; both 0 quantises from the start.
    """

    views: str = ""
    teacher: str = "efficientnet-lite0-gem"
    channels: int = 192
    steps: int = 0
    batch: int = 64
    tokens_weight: float = 1.0
    descriptor_weight: float = 1.0
    ranking_weight: float = 0.0
    ranking_temperature: float = 0.05
    ranking_views: int = 16384
    whitened: bool = True
    visible_share: float = 1.0
    mirror_share: float = 0.5
    quantise_from: float = 0.0
    quantise_until: float = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class MetricConfig:
    """Stage 2.

    Attributes:
        steps: length.
        places, images: places in a batch, images of each.
        last_blocks: blocks that train, with the last norm and the head; -1 for everything.
        loss: "multi-similarity", with its miner, asks for cosines above and below ``base``;
            "supcon", a softmax over cosines, only for their order: for ``rivals`` that see nearly
            the same.
        alpha, beta, base, miner_epsilon: of the multi-similarity loss and its miner.
        temperature: of the softmax of "supcon"; lower looks at nearer places.
        binary_weight: of the same loss on the signs of descriptors, which a binary map compares;
            0 for none.
        consistency_weight: of the loss that pulls low-k descriptors to those at k = 1.
        consistency_share: share of a batch for which that loss is computed.
        rivals_every: steps after which the rivals of places are looked for again.
        flip_share: share of places mirrored as a whole.
        mirror_share: share of images that are mirrored by themselves, which makes them images of
            another place: the hardest negatives there are.
        tokens_share: share of the images of a batch that keep fewer tokens (``k.tokens_lowest``);
            the others keep all, so that both find each other.
        heed_weight: of the loss that has the CLS token look, before each KeepTokens, at the patches
            that the descriptor is made of, so that those are kept; 0 for none.
        visible_share: as in stage 1.
        teacher: whose ranking of the batch's frames, as they are, is learned from changed ones;
            named as ``distil.teacher``; empty for none.
        teacher_weight, teacher_temperature: of that loss and its softmax over cosines.
        anchor: a teacher with as many numbers, named so, whose descriptor of a frame as it is is
            learned from the changed one; empty for none.
        anchor_weight: of that loss.
        distil_weight: of stage 1's loss, computed on batches of its own (``distil.views``,
            ``batch``, ``visible_share``) beside each step; 0 for none.
    """

    steps: int = 0
    places: int = 24
    images: int = 4
    last_blocks: int = -1
    loss: str = "multi-similarity"
    alpha: float = 1.0
    beta: float = 50.0
    base: float = 0.0
    miner_epsilon: float = 0.1
    temperature: float = 0.07
    binary_weight: float = 0.0
    consistency_weight: float = 1.0
    consistency_share: float = 0.33
    rivals_every: int = 150
    flip_share: float = 0.5
    mirror_share: float = 0.0
    tokens_share: float = 1.0
    heed_weight: float = 0.0
    visible_share: float = 1.0
    distil_weight: float = 0.0
    teacher: str = ""
    teacher_weight: float = 1.0
    teacher_temperature: float = 0.07
    anchor: str = ""
    anchor_weight: float = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, weight_decay=1e-4))


@dataclass(frozen=True)
class DataConfig:
    """One source of places.

    Attributes:
        format: "tower", "labelled", "gsv", "utm" or "poses" (see docs/training.md).
        root: folder.
        split: of the format "tower".
        leave_out: floors (tower), cities (gsv) or nothing that this run does not see.
        share: of the places in a batch, relative to the other sources; 0 for frames of which only
            the teacher's views are made.
        rivals: places that look most alike, drawn beside each place of a batch (hard negatives);
            0 draws all places at random.
        views: the teacher's crops of each frame in stage 1; 0.5 takes every second frame.
        window, gap: of the format "tower": neighbouring frames that are one place, and frames left
            out between two places.
        near: of the format "tower", with ``metric.loss`` "supcon": frames no further apart than
            this show one place, the others of a window are left open; 0: all of a window do.
        taught: whether ``metric.teacher`` and ``refit.teacher`` are asked about these frames.
    """

    format: str = "labelled"
    root: str = ""
    split: str = "train"
    leave_out: tuple[str, ...] = ()
    share: float = 1.0
    rivals: int = 0
    views: float = 1.0
    window: int = 4
    gap: int = 3
    near: int = 0
    taught: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """A whole training file."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelSection = field(default_factory=ModelSection)
    order: OrderConfig = field(default_factory=OrderConfig)
    refit: RefitConfig = field(default_factory=RefitConfig)
    k: KConfig = field(default_factory=KConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    metric: MetricConfig = field(default_factory=MetricConfig)
    data: tuple[DataConfig, ...] = ()

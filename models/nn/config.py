"""What a network is made of: one frozen record for the backbone, one for the head, one for both.

A configuration fixes every shape. It is stored with checkpoints and inside exported ONNX files, so
that a file can be refused when it was made for another architecture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.limits import kept
from tatvpr_edge.spec.values import nameable, shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SCOPES = ("token", "image")
#: ``KeepTokens`` may stand so often in a network.
MOST_KEEPS = 2


@dataclass(frozen=True)
class Groups:
    """How many neighbouring channels a gate keeps or drops together, for each kind of layer.

    Attributes:
        qkv: before the attention's Q, K and V; divides ``dim``, as ``out`` and ``up`` do.
        out: before the attention's output.
        up: before the MLP's first matrix.
        down: before the MLP's second matrix; divides ``dim * mlp_ratio``.
    """

    qkv: int = 1
    out: int = 1
    up: int = 1
    down: int = 1

    @classmethod
    def of(cls, value: Groups | int | Mapping[str, int]) -> Groups:
        """One number for all layers, or a mapping such as ``{"down": 4}``.

        Raises:
            ModelError: an unknown layer, or no positive integer.
        """
        if isinstance(value, Groups):
            return value
        each = dict.fromkeys(LAYERS, value) if isinstance(value, int) else value
        if not isinstance(each, Mapping) or set(each) - set(LAYERS):
            raise ModelError(f"groups {value!r}: one number, or numbers for {', '.join(LAYERS)}")
        for name, group in each.items():
            if isinstance(group, bool) or not isinstance(group, int) or group < 1:
                raise ModelError(f"groups.{name} is {group!r}: it must be a positive integer")
        return cls(**each)


#: Gated layers of a block, in order.
LAYERS = tuple(field.name for field in dataclasses.fields(Groups))


@dataclass(frozen=True)
class ViTConfig:
    """A ternary, top-k gated Vision Transformer.

    Attributes:
        image_px: side of the square frame, in pixels; a multiple of ``patch``.
        patch: side of a patch, in pixels.
        dim: channels of a token; a multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP, as a multiple of ``dim``.
        mlp_norm: a LayerNorm before the second MLP matrix (as in the paper).
        keep_after: ``KeepTokens`` stands after these numbers of blocks, at most two, rising; a
            second one drops of the tokens that still stand. One number, or 0 for none, is taken.
        groups: neighbouring channels that a gate keeps or drops together, for each kind of layer;
            one number for all, or a mapping, is taken.
        scope: "token" ranks the channels of each token, "image" ranks them once for a frame.
        row_scales: one ternary scale for each output row instead of one for a matrix.
        ternary: False is the float twin: the same network in full precision, without gates.
        mean, std: colour statistics in 0..1, folded into the patch embedding.
    """

    image_px: int = 224
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    mlp_norm: bool = True
    keep_after: tuple[int, ...] = (3,)
    groups: Groups = Groups()
    scope: str = "token"
    row_scales: bool = False
    ternary: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _colours(name, getattr(self, name)))
        object.__setattr__(self, "keep_after", _keeps(self.keep_after))
        object.__setattr__(self, "groups", Groups.of(self.groups))
        positive = ("image_px", "patch", "dim", "depth", "heads", "mlp_ratio")
        for name in positive:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ModelError(f"{name} is {value!r}: it must be a positive integer")
        for name in ("mlp_norm", "row_scales", "ternary"):
            if not isinstance(getattr(self, name), bool):
                raise ModelError(f"{name} is {getattr(self, name)!r}: it is true or false")
        if self.image_px % self.patch:
            raise ModelError(f"image_px {self.image_px} is not a multiple of patch {self.patch}")
        if self.dim % self.heads:
            raise ModelError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        for name in LAYERS:
            width, group = self.inputs(name), getattr(self.groups, name)
            if width % group:
                raise ModelError(f"groups.{name}: {width} channels are not a multiple of {group}")
        if self.scope not in SCOPES:
            raise ModelError(f"scope {self.scope!r} is not one of {', '.join(SCOPES)}")
        rising = list(self.keep_after) == sorted(set(self.keep_after))
        inside = all(1 <= number < self.depth for number in self.keep_after)
        if len(self.keep_after) > MOST_KEEPS or not rising or not inside:
            raise ModelError(
                f"keep_after {list(self.keep_after)}: at most {MOST_KEEPS} rising numbers below "
                f"depth {self.depth} (0: no KeepTokens)"
            )
        if self.patch_values * 127 * 128 >= 2**31:
            raise ModelError(f"patch {self.patch} overflows the 32-bit sums of PatchEmbed")

    @property
    def patches(self) -> int:
        """Patch tokens of a frame, before ``KeepTokens``."""
        return (self.image_px // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of a frame, CLS included, before ``KeepTokens``."""
        return self.patches + 1

    @property
    def patch_values(self) -> int:
        """Colour values in one patch."""
        return self.patch * self.patch * 3

    @property
    def mlp_dim(self) -> int:
        """Hidden channels of the MLP."""
        return self.dim * self.mlp_ratio

    def inputs(self, layer: str) -> int:
        """Input channels of a gated layer, one of ``LAYERS``."""
        return self.mlp_dim if layer == "down" else self.dim

    def standing(self, tokens: float) -> list[int]:
        """Tokens that each block sees, CLS included, and last how many the head sees."""
        counts = [self.tokens]
        for number in range(1, self.depth + 1):
            count = counts[-1]
            counts.append(1 + kept(tokens, count - 1) if number in self.keep_after else count)
        return counts


def _colours(name: str, value: Any) -> tuple[float, float, float]:
    """``mean`` or ``std`` as a tuple of three numbers in 0..1."""
    three = tuple(value) if isinstance(value, list | tuple) else ()
    numbers = len(three) == 3 and all(type(v) in (int, float) and 0 <= v <= 1 for v in three)
    if not numbers or (name == "std" and min(three) == 0):
        above = "above 0, up to 1" if name == "std" else "from 0 to 1"
        raise ModelError(
            f"{name} is {value!r}: it is three numbers {above}, for red, green and blue (divide "
            "statistics of 0 to 255 by 255)"
        )
    return three


def _keeps(value: Any) -> tuple[int, ...]:
    """``keep_after`` as a tuple; a number stands for itself, 0 for none."""
    if isinstance(value, int):
        return (value,) if value else ()
    try:
        keeps = tuple(value)
    except TypeError:
        keeps = (value,)
    if not all(isinstance(number, int) for number in keeps):
        raise ModelError(f"keep_after {value!r}: it takes whole numbers")
    return keeps


@dataclass(frozen=True)
class HeadConfig:
    """Which head, and its options by name (see the module of each head in ``models/heads``)."""

    kind: str = "cls"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not isinstance(self.options, dict):
            raise ModelError(f"head {self.kind!r}: it takes a name, and options by name")


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: name, backbone and head."""

    name: str
    backbone: ViTConfig
    head: HeadConfig

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and nameable(self.name)):
            raise ModelError(f"a model cannot be called {shown(self.name)}")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ModelError: a key is missing or unknown, or a value is out of range.
        """
        try:
            return cls(
                name=str(values["name"]),
                backbone=ViTConfig(**_current(values["backbone"])),
                head=HeadConfig(**values["head"]),
            )
        except (KeyError, TypeError) as error:
            raise ModelError(f"not a model configuration: {error}") from error


def _current(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a stored backbone under the names of today: one ``group`` was for all layers."""
    values = dict(backbone)
    if "group" in values:
        values["groups"] = values.pop("group")
    return values

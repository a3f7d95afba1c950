"""Multiply-accumulates of a model, counted from its configuration at a given k."""

from __future__ import annotations

from dataclasses import dataclass

from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.spec.limits import kept


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one frame.

    Attributes:
        patch: patch embedding.
        ternary: gated ternary products, only kept activations counted.
        attention: products of queries with keys and of weights with values.
        head: the head.
    """

    patch: int
    ternary: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.patch + self.ternary + self.attention + self.head


def count_macs(config: ModelConfig, k: float, tokens: float = 1.0) -> Macs:
    """What one frame costs: a gated product reads only the channels that its gate keeps.

    Norms, activations and elementwise steps are not counted, as usual in this field.
    """
    b = config.backbone
    all_tokens = b.tokens
    fewer = 1 + kept(tokens, b.patches)

    def gated(width: int, outputs: int) -> int:
        channels = kept(k, width // b.group) * b.group if b.ternary else width
        return channels * outputs

    each = (
        gated(b.dim, 3 * b.dim)
        + gated(b.dim, b.dim)
        + gated(b.dim, b.mlp_dim)
        + gated(b.mlp_dim, b.dim)
    )
    counts = [
        fewer if b.keep_after and number >= b.keep_after else all_tokens
        for number in range(b.depth)
    ]
    return Macs(
        patch=b.patches * b.patch_values * b.dim,
        ternary=sum(count * each for count in counts),
        attention=sum(2 * count * count * b.dim for count in counts),
        head=_head(config, fewer),
    )


def _head(config: ModelConfig, tokens: int) -> int:
    from tatvpr_edge.models.heads import HEADS

    return int(HEADS[config.head.kind].macs(config.backbone, tokens, **config.head.options))

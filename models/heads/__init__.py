"""Heads: tokens ``[B, T, D]`` in, unit descriptors ``[B, size]`` out.

A head is one file: the network, its cost and how it is written into ONNX. ``HEADS`` is the one list
of them; ``build_head`` makes one from its configuration.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from tatvpr_edge.models.heads.boq import BoQHead
from tatvpr_edge.models.heads.mixvpr import MixVPRHead
from tatvpr_edge.models.heads.pooling import CLSHead, GeMHead
from tatvpr_edge.models.heads.salad import SALADHead
from tatvpr_edge.models.nn.config import HeadConfig, ViTConfig
from tatvpr_edge.spec.errors import ModelError

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph


class Head(Protocol):
    """What every head offers beside being a module.

    A head whose descriptor follows from the patches alone, whatever the CLS token is, is
    ``patches_only``: its models can teach, and be fine-tuned.
    A head that ``needs_every_token`` stands on a backbone without KeepTokens, and its ONNX graph
    has static shapes; one that does not say so takes however many tokens are left.
    """

    size: int

    @staticmethod
    def macs(backbone: ViTConfig, tokens: int, **options: Any) -> int:
        """Multiply-accumulates of one frame with so many tokens; ``options``: all of the head's."""

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens."""

    def write(self, graph: Graph, tokens: str) -> str:
        """The head on ``tokens [T, D]`` in ONNX; returns "descriptor", ``[size]``."""


HEADS: dict[str, Any] = {
    "cls": CLSHead,
    "gem": GeMHead,
    "boq": BoQHead,
    "salad": SALADHead,
    "mixvpr": MixVPRHead,
}

#: Heads that need every token.
LEARNED_HEADS = tuple(
    kind for kind, head in HEADS.items() if getattr(head, "needs_every_token", False)
)

__all__ = ["HEADS", "LEARNED_HEADS", "Head", "build_head", "patch_heads", "whole_options"]


def patch_heads() -> list[str]:
    """Heads whose descriptor follows from the last tokens of patches alone."""
    return [kind for kind, head in HEADS.items() if getattr(head, "patches_only", False)]


def whole_options(config: HeadConfig) -> dict[str, Any]:
    """The options of a head with those that ``config`` leaves to their defaults.

    Weights that were stored before a head had an option say nothing of it and mean its default.

    Raises:
        ModelError: unknown head or option, or a value that the option cannot have.
    """
    _check_options(config)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(_head_class(config.kind)).parameters.items()
        if parameter.default is not parameter.empty
    }
    return {**defaults, **config.options}


def build_head(config: HeadConfig, backbone: ViTConfig) -> nn.Module:
    """The head that ``config`` describes, for the tokens of ``backbone``.

    Raises:
        ModelError: unknown head or option, or a value that the option cannot have.
    """
    _check_options(config)
    return cast(nn.Module, _head_class(config.kind)(backbone, **config.options))


def _check_options(config: HeadConfig) -> None:
    known = dict(inspect.signature(_head_class(config.kind)).parameters)
    del known["backbone"]
    for name, value in config.options.items():
        if name not in known:
            raise ModelError(
                f"head {config.kind}: it has no option {name!r}; it has {', '.join(known)}"
            )
        _check_option(f"head {config.kind}: {name} is {value!r}", value, known[name].annotation)


def _check_option(said: str, value: object, annotation: Any) -> None:
    """By what the head's parameter is annotated with, or its text: counts are from 1 up. What is no
    number is the head's own to check."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    kinds = text.split(" | ")
    if value is None and "None" in kinds:
        return
    if "float" in kinds:
        if type(value) not in (int, float):
            raise ModelError(f"{said}: it is a number")
    elif "int" in kinds and (type(value) is not int or value < 1):
        raise ModelError(f"{said}: it is a whole number from 1 up")


def _head_class(kind: str) -> Any:
    if kind not in HEADS:
        raise ModelError(f"unknown head {kind!r}: known are {', '.join(HEADS)}")
    return HEADS[kind]

"""What a step of the C core is to the compilers: one class a kind, one file a class.

A step is matched in a checked graph, becomes one node of the domain ``FUSED``, one external call in
Relax, one descriptor and one call in ``model.c``. All of it stands in the step's own file; the
importer, the code generator, the cost model and the manifest loop over steps and know no kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tatvpr_edge.compilers.steps.c_text import Descriptors
    from tatvpr_edge.compilers.steps.gated_linear import GatedLinear
    from tatvpr_edge.compilers.steps.pattern import Pattern

#: Domain of the nodes that stand for steps in a rewritten graph; its attribute ``STEP`` names one.
FUSED = "ai.tatvpr.fused"
STEP = "step"

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one step, by what dial they follow."""

    linear: int = 0  # of ternary layers: what k shrinks
    attention: int = 0
    other: int = 0


@dataclass(frozen=True)
class Arguments:
    """A step's values in ``model.c``: C expressions of float pointers, and shapes.

    Dimensions are numbers, or C expressions of the token count.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shapes: tuple[tuple[int | str, ...], ...]
    output_shapes: tuple[tuple[int | str, ...], ...]

    @property
    def rows(self) -> str:
        """Rows of the first input."""
        return str(self.input_shapes[0][0])

    @property
    def width(self) -> int | str:
        """Last dimension of the first input."""
        return self.input_shapes[0][-1]


@dataclass(frozen=True, eq=False)
class Found:
    """A step in a graph: the nodes that it replaces, the values that it reads and makes."""

    step: Step
    parts: tuple[onnx.NodeProto, ...]  # the last one to run comes last
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the core. Subclasses override what differs for them."""

    name: str

    #: Operators at which :meth:`match` looks, as ``op_type``.
    anchors: ClassVar[tuple[str, ...]] = ()
    #: Whether it is looked for only where no other step took the node along.
    alone: ClassVar[bool] = False
    #: Whether every CPU gives the same bytes for it.
    exact: ClassVar[bool] = True
    #: Whether its C function traces its own begin and end (its descriptor has the name).
    traces_itself: ClassVar[bool] = False
    #: Trailing inputs in Relax that carry a token count in their shape and are not passed on.
    carriers: ClassVar[int] = 0
    #: What a head that has such a step is called where the exporter says nothing.
    head: ClassVar[str | None] = None

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """The step that ends in, or is made of, ``node``, one of :attr:`anchors`."""
        return None

    @classmethod
    def join(cls, nodes: list[onnx.NodeProto], steps: dict[str, Step]) -> list[onnx.NodeProto]:
        """Patterns of several steps, when all single ones are found; ``steps`` is changed."""
        return nodes

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """Shapes of so many outputs; dimensions are numbers or TVM's expressions."""
        return [list(inputs[0])]

    def declare(self, key: str, out: Descriptors) -> None:
        """Write the descriptor called ``key`` and put weights into the blob."""

    def call(self, key: str, args: Arguments) -> str:
        """The C expression, of type ``tatvpr_status``, that carries the step out."""
        raise NotImplementedError

    def macs(self, rows: int, k: float) -> Macs:
        """Multiply-accumulates of one frame where the result has ``rows`` rows."""
        return Macs()

    # ---- what single kinds answer ------------------------------------------------------------

    def gated_linears(self) -> Iterator[GatedLinear]:
        """The gated linears inside, in order."""
        return iter(())

    @property
    def ends_block(self) -> bool:
        """Whether its result may be the last block's tokens."""
        return False

    @property
    def kept_count(self) -> str | None:
        """Symbol of the token count that stands after it, if it drops some."""
        return None

    @property
    def token_dim(self) -> int | None:
        """Channels of the tokens that it mixes, if it mixes any."""
        return None


def advance(pointer: str, rows: int, width: int | str) -> str:
    """A C pointer moved on by so many rows."""
    if isinstance(width, int):
        return f"{pointer} + {rows * width}" if rows else pointer
    return f"{pointer} + {rows} * {width}" if rows else pointer

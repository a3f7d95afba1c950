"""Questions that steps ask of a graph when they look for themselves in it."""

from __future__ import annotations

import re

import onnx

from tatvpr_edge.compilers.graph import STANDARD_DOMAINS, Graph, Type, attribute


class Pattern:
    """A checked graph with its producers, consumers and the order of its nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self._order = {id(node): index for index, node in enumerate(graph.nodes)}

    def type(self, name: str) -> Type:
        """Type of a value."""
        return self.graph.types[name]

    def name(self, node: onnx.NodeProto) -> str:
        """The node's own name, or that of its result, as it may stand in a C string."""
        return re.sub(r"[^0-9A-Za-z._:/+-]", "_", node.name or node.output[0])

    def rank(self, name: str) -> int:
        """How many dimensions a value has."""
        return len(self.type(name).shape)

    def runs_before(self, node: onnx.NodeProto, other: onnx.NodeProto) -> bool:
        """Whether ``node`` stands before ``other`` in the graph."""
        return self._order[id(node)] < self._order[id(other)]

    def sole_consumer(self, node: onnx.NodeProto | None, op_type: str) -> onnx.NodeProto | None:
        """The node of this operator that alone reads the first result of ``node``."""
        if node is None or node.output[0] in self.graph.outputs:
            return None
        readers = self.consumers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None

    def sole_producer(self, name: str) -> onnx.NodeProto | None:
        """The standard node that makes ``name``, if nobody else reads it."""
        node = self.producers.get(name)
        alone = len(self.consumers.get(name, [])) == 1 and name not in self.graph.outputs
        return node if node is not None and alone and node.domain in STANDARD_DOMAINS else None

    def scalar(self, name: str) -> float | None:
        """A constant of one element."""
        value = self.graph.constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def reduced_axes(self, node: onnx.NodeProto) -> list[int] | None:
        """Axes of a reduction, as input or as attribute."""
        if len(node.input) > 1 and node.input[1] in self.graph.constants:
            return [int(a) for a in self.graph.constants[node.input[1]].reshape(-1)]
        axes = attribute(node, "axes")
        return None if axes is None else list(axes)

    def picked_row(self, node: onnx.NodeProto) -> tuple[int, int] | None:
        """(row, 1) of a Gather that takes one row of a matrix: CLS or the first patch, which are
        always there."""
        if node.op_type != "Gather" or self.rank(node.input[0]) != 2:
            return None
        row, of_rows = self.scalar(node.input[1]), attribute(node, "axis", 0) in (0, -2)
        return (int(row), 1) if of_rows and row in (0, 1) and self.rank(node.input[1]) < 2 else None

    def row_slice(self, node: onnx.NodeProto | None) -> tuple[int, int | None] | None:
        """(first row, how many or None for the rest) of a contiguous slice of rows."""
        if node is None or node.op_type != "Slice":
            return None
        if not all(name in self.graph.constants for name in node.input[1:] if name):
            return None
        values = [self.graph.constants[n].reshape(-1) if n else None for n in node.input[1:]]
        starts, ends, axes, steps = [*values, None, None][:4]
        if starts is None or ends is None or len(starts) != 1:
            return None
        axis = 0 if axes is None else int(axes[0])
        step = 1 if steps is None else int(steps[0])
        start, end = int(starts[0]), int(ends[0])
        source = self.type(node.input[0]).shape
        total = source[0]
        if axis not in (0, -2) or step != 1 or start < 0 or len(source) != 2:
            return None
        if isinstance(total, int) and start >= total:
            return None  # no rows at all
        if end >= (total if isinstance(total, int) else 2**31 - 1):
            return start, None
        # CLS is always there; more rows of a shrinking set are left to the compiler.
        return (start, end - start) if (start, end) == (0, 1) else None

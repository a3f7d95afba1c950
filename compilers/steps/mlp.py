"""A block's second half: two gated linears around a GELU, which run in tiles of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx

from tatvpr_edge.compilers.names import unique
from tatvpr_edge.compilers.steps.base import FUSED, STEP, Arguments, Macs, Step
from tatvpr_edge.compilers.steps.c_text import Descriptors
from tatvpr_edge.compilers.steps.gated_linear import GatedLinear


@dataclass(frozen=True, eq=False)
class Mlp(Step):
    """x + fc2(fc1(x)): [T, D] -> [T, D]."""

    fc1: GatedLinear
    fc2: GatedLinear

    traces_itself: ClassVar = True

    @classmethod
    def join(cls, nodes: list[onnx.NodeProto], steps: dict[str, Step]) -> list[onnx.NodeProto]:
        """x -> fc1 -> fc2 (+ x) where nothing else reads what lies between."""
        readers: dict[str, int] = {}
        for node in nodes:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        made_by = {node.output[0]: node for node in nodes}
        dropped: set[str] = set()
        joined: dict[str, onnx.NodeProto] = {}
        for node in nodes:
            fc2 = steps.get(node.name) if node.domain == FUSED else None
            if not isinstance(fc2, GatedLinear) or not (fc2.gelu and fc2.residual):
                continue
            first = made_by.get(node.input[0])
            fc1 = steps.get(first.name) if first is not None and first.domain == FUSED else None
            if first is None or not isinstance(fc1, GatedLinear):
                continue
            whole = not (fc1.first_row or fc2.first_row or fc1.rows or fc2.rows)
            own = readers[node.input[0]] == 1 and first.input[0] == node.input[1]
            if fc1.residual or fc1.gelu or not whole or not own:
                continue
            prefix, _, _ = fc1.name.rpartition(".")
            key = unique(f"{prefix}.mlp" if prefix else f"{fc1.name}.mlp", steps)
            name = f"{prefix}.mlp" if prefix else key
            steps[key] = cls(name, fc1, replace(fc2, residual=False))
            joined[node.name] = onnx.helper.make_node(
                cls.__name__,
                [first.input[0]],
                list(node.output),
                name=key,
                domain=FUSED,
                **{STEP: key},
            )
            dropped.add(first.name)
        for name in (*dropped, *joined):
            del steps[name]
        return [
            joined.get(n.name, n) if n.domain == FUSED else n
            for n in nodes
            if n.domain != FUSED or n.name not in dropped
        ]

    def declare(self, key: str, out: Descriptors) -> None:
        """``tatvpr_mlp``."""
        halves = []
        for label, half in (("fc1", self.fc1), ("fc2", self.fc2)):
            fields = ",\n        ".join(half.fields(f"{key}_{label}", out))
            halves.append(f".{label} = {{\n        {fields},\n    }}")
            out.tables["ternaries"].append(f"&{key}.{label}.linear")
        out.struct("mlp", key, [f'.name = "{self.name}"', *halves])
        out.tables["mlps"].append(f"&{key}")

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_mlp``."""
        return f"tatvpr_op_mlp(c, &{key}, {args.inputs[0]}, {args.rows}, {args.outputs[0]})"

    def macs(self, rows: int, k: float) -> Macs:
        """Both halves."""
        return Macs(linear=sum(half.macs(rows, k).linear for half in self.gated_linears()))

    def gated_linears(self) -> Iterator[GatedLinear]:
        """Both halves."""
        yield self.fc1
        yield self.fc2

    @property
    def ends_block(self) -> bool:
        """Always."""
        return True

"""Relax to a flat plan: kernels, calls in order, and every buffer's place in one arena.

The arena is Relax's static memory plan with the kernels' own workspaces counted in: a workspace is
lifted out of its kernel into a parameter, and all kernels share one region after the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import IRModule, relax, tirx
from tvm.ir.transform import Sequential
from tvm.relax import transform as rt

from tatvpr_edge.compilers.graph import KEPT
from tatvpr_edge.compilers.tvm.kernels import Kernel, is_size, prepare_kernel
from tatvpr_edge.compilers.tvm.relax_import import CALL_PREFIX
from tatvpr_edge.compilers.tvm.sizes import c_expression, dimension
from tatvpr_edge.spec.errors import ModelError

ALIGN = 64


@dataclass(frozen=True)
class Place:
    """Where a value lies; ``shape`` is in numbers, or C expressions of the token count."""

    kind: str  # "arena" (at offset) | "constant" (its index) | "input" | "output"
    shape: tuple[int | str, ...]
    offset: int = 0
    index: int = 0


@dataclass(frozen=True)
class CoreCall:
    """A step of ours: ``step`` names it; inputs and outputs in the step's order."""

    step: str
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]


@dataclass(frozen=True)
class KernelCall:
    """A kernel that TVM compiled: its buffers, inputs first, and its sizes as C text."""

    kernel: str
    args: tuple[Place, ...]
    sizes: tuple[str, ...]


@dataclass
class Plan:
    """Everything that a code generator needs besides the steps' weights."""

    calls: list[CoreCall | KernelCall] = field(default_factory=list)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    constants: list[NDArray[Any]] = field(default_factory=list)
    buffer_bytes: int = 0
    workspace_bytes: int = 0

    @property
    def arena_bytes(self) -> int:
        """Planned buffers and the kernels' shared workspace."""
        return self.buffer_bytes + self.workspace_bytes


def plan_module(module: IRModule, outputs: dict[str, int], max_tokens: int) -> Plan:
    """Run the passes on ``module`` and walk its ``main``.

    ``outputs`` is how many results each step has; ``max_tokens`` bounds the symbolic counts.

    Raises:
        ModelError: something that needs TVM's run-time library.
    """
    main = module["main"].with_attr("tir_var_upper_bound", dict.fromkeys(KEPT, max_tokens))
    module["main"] = main
    passes = [
        rt.DecomposeOpsForInference(),
        rt.CanonicalizeBindings(),
        rt.LegalizeOps(),
        rt.AnnotateTIROpPattern(),
        rt.FoldConstant(),
        rt.FuseOps(),
        rt.FuseTIR(),
        rt.DeadCodeElimination(),
        rt.RewriteDataflowReshape(),
        rt.ToNonDataflow(),
        rt.RemovePurityChecking(),
        rt.CallTIRRewrite(),
        rt.StaticPlanBlockMemory(),
    ]
    # The generic target only steers legalisation; kernels are compiled for the board afterwards.
    with tvm.target.Target("c"):
        module = Sequential(passes)(module)
    return _Walk(module, outputs, max_tokens).plan


class _Walk:
    """One pass over the bindings of ``main``."""

    def __init__(self, module: IRModule, outputs: dict[str, int], max_tokens: int) -> None:
        self.plan = Plan()
        self.module = module
        self.outputs = outputs
        self.max_tokens = max_tokens
        self.places: dict[Any, Any] = {}
        self.storages: dict[Any, int] = {}
        self.constants: dict[Any, int] = {}
        main = module["main"]
        self.frame = main.params[0]
        for block in main.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        workspaces = [k.workspace_bytes for k in self.plan.kernels.values()]
        self.plan.workspace_bytes = max(workspaces, default=0)

    def _bind(self, var: Any, value: Any) -> None:
        if isinstance(value, relax.Call):
            self._call(var, value)
        elif isinstance(value, relax.Tuple):
            self.places[var] = tuple(self._place(item) for item in value.fields)
        elif isinstance(value, relax.TupleGetItem):
            self.places[var] = self.places[value.tuple_value][value.index]
        else:
            self.places[var] = self._place(value)

    def _call(self, var: Any, call: Any) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar):
            self._kernel(call.op, call.args)
            return
        if isinstance(call.op, relax.ExternFunc):
            self._step(str(call.op.global_symbol), call.args)
            return
        name = call.op.name
        if name == "relax.memory.alloc_storage":
            size = int(call.args[0].values[0])
            self.storages[var] = self.plan.buffer_bytes
            self.plan.buffer_bytes += -(-size // ALIGN) * ALIGN
        elif name == "relax.memory.alloc_tensor":
            offset = self.storages[call.args[0]] + int(call.args[1].value)
            self.places[var] = Place("arena", self._shape(call.args[2]), offset)
        elif name == "relax.builtin.alloc_tensor":
            self.places[var] = Place("output", self._shape(call.args[0]))
        elif name == "relax.reshape":
            source = self._place(call.args[0])
            shape = self._shape(call.args[1])
            self.places[var] = Place(source.kind, shape, source.offset, source.index)
        elif name not in ("relax.memory.kill_tensor", "relax.memory.kill_storage"):
            raise ModelError(f"TVM lowers a part of the model to {name}, which needs its runtime")

    def _step(self, symbol: str, args: Any) -> None:
        if not symbol.startswith(CALL_PREFIX):
            raise ModelError(f"TVM lowers a part of the model to {symbol}, which needs its runtime")
        step = symbol[len(CALL_PREFIX) :]
        places = [self._place(arg) for arg in args]
        split = len(places) - self.outputs[step]
        self.plan.calls.append(CoreCall(step, tuple(places[:split]), tuple(places[split:])))

    def _kernel(self, target: Any, args: Any) -> None:
        name = f"kernel_{target.name_hint}"
        if name not in self.plan.kernels:
            bounds = dict.fromkeys(KEPT, self.max_tokens)
            self.plan.kernels[name] = prepare_kernel(name, self.module[target], bounds)
        kernel, parameters = self.plan.kernels[name], self.module[target].params
        places = [self._place(arg) for arg in args if not is_size(arg)]
        if len(places) != len(kernel.dtypes) or len(args) != len(parameters):
            raise ModelError(f"TVM calls {name} with {len(places)} buffers, which is not lowered")
        # One kernel serves every token count, called as that of its first call.
        sizes = {
            p.name: c_expression(a) for p, a in zip(parameters, args, strict=True) if is_size(p)
        }
        buffers = (p for p in parameters if not is_size(p))
        for buffer, place in zip(buffers, places, strict=True):
            for size, given in zip(buffer.ty.shape, place.shape, strict=False):  # 0-d lies as 1-d
                if isinstance(size, tirx.Var):
                    sizes[size.name] = str(given)
        if not set(kernel.symbols) <= set(sizes):
            raise ModelError(f"TVM calls {name} without the sizes of it, which is not lowered")
        given_sizes = tuple(sizes[symbol] for symbol in kernel.symbols)
        self.plan.calls.append(KernelCall(name, tuple(places), given_sizes))

    def _place(self, value: Any) -> Place:
        if isinstance(value, relax.Var):
            if value.same_as(self.frame):
                return Place("input", tuple(int(d) for d in value.ty.shape))
            place = self.places[value]
            if not isinstance(place, Place):
                raise ModelError("a part of the model passes a tuple on, which is not lowered")
            return place
        if hasattr(value, "value") and hasattr(value.value, "numpy"):  # a constant tensor
            if value not in self.constants:
                self.constants[value] = len(self.plan.constants)
                self.plan.constants.append(np.ascontiguousarray(value.value.numpy()))
            index = self.constants[value]
            return Place("constant", self.plan.constants[index].shape, index=index)
        raise ModelError(f"a part of the model passes a {type(value).__name__}, not lowered")

    def _shape(self, shape: Any) -> tuple[int | str, ...]:
        return tuple(dimension(d) for d in shape.values)

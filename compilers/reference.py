"""ONNX Runtime on the very file that is built: what every build has to compute.

The bodies of our operators are functions inside the file, so that ONNX Runtime needs nothing of
ours to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tatvpr_edge.compilers.checks import DESCRIPTOR, FRAME, TOKENS, K
from tatvpr_edge.compilers.graph import Graph, type_proto
from tatvpr_edge.spec.errors import ModelError, ToolError
from tatvpr_edge.spec.shortage import memory_for, ran_out, shortage

if TYPE_CHECKING:
    import onnxruntime


class Reference:
    """ONNX Runtime on a model, or on the part of it that lies behind one value.

    Args:
        model: the file; only its functions and versions are read where ``behind`` is given.
        graph: its checked graph.
        every: give every value between, not the descriptor alone.
        behind: the value that is fed instead of a frame.

    Raises:
        ToolError: ONNX Runtime is not installed, or refuses the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        graph: Graph,
        every: bool = False,
        behind: str | None = None,
    ) -> None:
        self.graph = graph
        nodes = graph.nodes if behind is None else nodes_behind(graph, behind)
        assert nodes is not None, "what lies behind the value reads the frame as well"
        self.nodes = nodes
        made = [name for node in nodes for name in node.output if name]
        self.outputs = made if every else [DESCRIPTOR]
        self._session = session(_cut(model, graph, nodes, self.outputs, behind))
        self._inputs = {i.name for i in self._session.get_inputs()}

    def run(self, frame: NDArray[np.uint8], k: float, tokens: float) -> dict[str, NDArray[Any]]:
        """Values by name, for a frame of the model's square.

        Raises:
            ModelError: some operator cannot be computed there, as where KeepTokens changes how many
                rows one input has and not how many the other.
        """
        return self._run({FRAME: frame, **_dials(k, tokens)})

    def run_behind(
        self, value: str, fed: NDArray[np.float32], k: float, tokens: float
    ) -> dict[str, NDArray[Any]]:
        """Values by name where ``value`` is ``fed``."""
        return self._run({value: fed, **_dials(k, tokens)})

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = {name: value for name, value in feed.items() if name in self._inputs}
        with memory_for("the model's values in ONNX Runtime"):
            try:
                values = self._session.run(self.outputs, given)
            except Exception as error:  # ONNX Runtime raises kinds of its own
                if ran_out(error):
                    raise
                raise ModelError(self._fails(error, feed)) from error
        return {**feed, **self.graph.constants, **dict(zip(self.outputs, values, strict=True))}

    def _fails(self, error: Exception, feed: Mapping[str, NDArray[Any]]) -> str:
        line = " ".join(str(error).split())
        fewer = (
            "; what reads tokens behind KeepTokens has to take any number of them, down to CLS and "
            "one patch: write the head so, or export the model without KeepTokens"
        )
        return (
            f"model {self.graph.name}: at k = {feed[K]:g}, tokens = {feed[TOKENS]:g} ONNX Runtime "
            f"cannot compute it: {line[:300]}{fewer if feed[TOKENS] < 1 else ''}"
        )


def nodes_behind(graph: Graph, value: str) -> list[onnx.NodeProto] | None:
    """The nodes between ``value`` and the descriptor; None where they read the frame as well."""
    producers = graph.producers()
    wanted, seen = [DESCRIPTOR], {value}
    while wanted:
        name = wanted.pop()
        if name in seen or name in graph.constants or name in (K, TOKENS):
            continue
        seen.add(name)
        if name == FRAME:
            return None
        wanted += [read for read in producers[name].input if read]
    seen.discard(value)
    return [node for node in graph.nodes if any(name in seen for name in node.output)]


def _dials(k: float, tokens: float) -> dict[str, NDArray[Any]]:
    return {K: np.array(k, np.float32), TOKENS: np.array(tokens, np.float32)}


def _cut(
    model: onnx.ModelProto,
    graph: Graph,
    nodes: Iterable[onnx.NodeProto],
    outputs: Iterable[str],
    behind: str | None,
) -> onnx.ModelProto:
    """A model of those nodes alone, with the file's own functions."""
    inputs = dict(graph.inputs)
    if behind is not None:
        inputs = {name: inputs[name] for name in (K, TOKENS)}
        inputs[behind] = graph.types[behind]
    read = {name for node in nodes for name in node.input}
    weights = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in graph.constants.items()
        if name in read
    ]

    def described(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_value_info(name, type_proto(graph.types[name]))

    made = onnx.helper.make_graph(
        list(nodes),
        graph.name or "model",
        [described(name) for name in inputs],
        [described(name) for name in outputs],
        weights,
    )
    return onnx.helper.make_model(
        made,
        functions=model.functions,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime on ``model`` as it is, without optimisations, on one thread.

    Raises:
        ToolError: it is not installed, or refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what its C++ makes of Ctrl-C
            raise error.__cause__ from None
        if ran_out(error):
            raise ToolError(shortage("ONNX Runtime")) from error
        raise ToolError(
            f"ONNX Runtime is not usable here ({error}), and every build is held to it: "
            "pip install 'tatvpr-edge[build]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it raises says the same in one line
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime raises kinds of its own
        if ran_out(error):
            raise ToolError(shortage("the model in ONNX Runtime")) from error
        line = " ".join(str(error).split())
        raise ToolError(f"ONNX Runtime refuses the model: {line[:300]}") from error

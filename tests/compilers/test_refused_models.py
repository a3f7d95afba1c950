"""A user hands in an ONNX file that cannot be built: one clear error, before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tatvpr_edge.compilers.checks import check_bodies, checked_graph
from tatvpr_edge.compilers.match import match
from tatvpr_edge.models.export import bodies
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN, OPERATORS

Make = Callable[..., onnx.ModelProto]


def weight(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any]:
    return next(numpy_helper.to_array(t).copy() for t in model.graph.initializer if t.name == name)


def replace_weight(model: onnx.ModelProto, name: str, values: np.ndarray[Any, Any]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    raise KeyError(name)


def node(model: onnx.ModelProto, op_type: str, index: int = 0) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == op_type][index]


def refused(model: onnx.ModelProto, tmp_path: Path, *words: str) -> str:
    """The error text, which names every one of ``words`` and is one line."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        checked_graph(path)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


class TestWeights:
    @pytest.mark.parametrize("position", [0, 5])
    def test_illegal_ternary_code_three(self, tiny: Make, tmp_path: Path, position: int) -> None:
        model = tiny()
        packed = weight(model, "blocks.0.qkv.weight")
        packed.view(np.uint8)[3, position] |= 0b11
        replace_weight(model, "blocks.0.qkv.weight", packed)
        refused(model, tmp_path, "blocks.0.qkv", "code 3", "row 3")

    def test_padding_that_is_not_zero(self, tiny: Make, tmp_path: Path) -> None:
        """A row of 48 weights has no padding; one of 46 has two weights of it."""
        model = tiny()
        packed = weight(model, "head.proj.weight")
        wider = np.concatenate([packed, packed[:, :1]], axis=1)
        replace_weight(model, "head.proj.weight", wider)
        refused(model, tmp_path, "head.proj", "cannot hold 48")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["blocks.1.up.scale", "norm.weight", "pos_embed"])
    def test_not_finite(self, tiny: Make, tmp_path: Path, name: str, value: float) -> None:
        model = tiny()
        values = weight(model, name)
        values.reshape(-1)[0] = value
        replace_weight(model, name, values)
        refused(model, tmp_path, name, "NaN or infinite")

    @pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
    def test_not_finite_in_a_kind_of_float_that_is_cast(
        self, tiny: Make, tmp_path: Path, kind: int
    ) -> None:
        model = tiny()
        values = weight(model, "pos_embed")
        values[0, 0] = np.nan
        cast = helper.make_node("Cast", ["pos_small"], ["pos_embed"], "cast", to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        for tensor in model.graph.initializer:
            if tensor.name == "pos_embed":
                small = helper.make_tensor("pos_small", kind, values.shape, values.ravel().tolist())
                tensor.CopyFrom(small)
        refused(model, tmp_path, "pos_small", "NaN or infinite")

    @pytest.mark.parametrize("value", [0.0, -1.0])
    @pytest.mark.parametrize("name", ["blocks.1.up.scale", "patch_embed.scale"])
    def test_scale_not_above_zero(
        self, tiny: Make, tmp_path: Path, name: str, value: float
    ) -> None:
        model = tiny()
        values = weight(model, name)
        values.reshape(-1)[0] = value
        replace_weight(model, name, values)
        refused(model, tmp_path, name, "above zero")

    def test_a_patch_whose_sums_pass_32_bits(self, tiny: Make, tmp_path: Path) -> None:
        """Dark frames were answered with what a sum is after it passed the largest number."""
        model = tiny()
        model.graph.input[0].CopyFrom(
            helper.make_tensor_value_info("frame", TensorProto.UINT8, [4 * 210, 4 * 210, 3])
        )
        replace_weight(model, "patch_embed.weight", np.full((48, 210 * 210 * 3), 127, np.int8))
        refused(model, tmp_path, "patch_embed", "patches of 210 pixels pass 32 bits")

    def test_bias_of_another_length(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        replace_weight(model, "blocks.0.out.bias", np.zeros(7, np.float32))
        refused(model, tmp_path, "blocks.0.out.bias", "[48]")

    @pytest.mark.parametrize("length", [1, 47])
    def test_a_norm_of_another_length(self, tiny: Make, tmp_path: Path, length: int) -> None:
        """TVM said "gamma and beta shapes do not match", and not of which node."""
        model = tiny()
        norm = node(model, "LayerNormalization")
        replace_weight(model, norm.input[2], np.zeros(length, np.float32))
        refused(model, tmp_path, norm.name, norm.input[2], f"[{length}], not [48]")

    def test_weights_that_are_computed(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        model.graph.node.insert(0, helper.make_node("Neg", ["blocks.0.qkv.bias"], ["negated"]))
        node(model, "TernaryMatMul").input[4] = "negated"
        refused(model, tmp_path, "blocks.0.qkv", "bias is not a constant")


class TestOperators:
    def test_a_gate_of_two_products(self, tiny: Make, tmp_path: Path) -> None:
        """With a gate each the same model is built: its gates keep the same channels."""
        model = tiny()
        one = next(n for n in model.graph.node if n.name == "blocks.0.out")
        gate = next(n for n in model.graph.node if n.output[0] == one.input[0])
        two, second_gate = onnx.NodeProto(), onnx.NodeProto()
        two.CopyFrom(one)
        second_gate.CopyFrom(gate)
        both = helper.make_node("Add", ["one", "two"], list(one.output), name="both")
        one.output[0], two.output[0], two.name = "one", "two", "blocks.0.again"
        place = list(model.graph.node).index(one)
        for added in (both, two):
            model.graph.node.insert(place + 1, added)
        said = refused(model, tmp_path, "blocks.0.out", "blocks.0.again")
        assert "a TopKGate of its own" in said
        two = model.graph.node[place + 1]
        second_gate.name, second_gate.output[:], two.input[:2] = "g", ["g.q", "g.s"], ["g.q", "g.s"]
        model.graph.node.insert(place, second_gate)
        path = tmp_path / "good.onnx"
        path.write_bytes(model.SerializeToString())
        match(checked_graph(path))

    def test_a_gate_whose_scale_is_read_elsewhere(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "Add", 1).input[0] = "blocks.0.out.s"
        refused(model, tmp_path, "blocks.0.out", "blocks.0.residual1", "a TopKGate of its own")

    @pytest.mark.parametrize("start", [17, 30])
    def test_a_gate_of_no_rows(self, tiny: Make, tmp_path: Path, start: int) -> None:
        """The build ended in "an argument is out of range"."""
        model = tiny(keep_after=())
        replace_weight(model, "rows.start", np.array([start], np.int64))
        replace_weight(model, "rows.end", np.array([2**63 - 1], np.int64))
        refused(model, tmp_path, "head.proj", "'head.rows' is empty: [0, 48]")

    @pytest.mark.parametrize("name", ["PatchEmbed", "TopKGate", "TernaryMatMul", "QuantAttention"])
    def test_a_missing_body(self, tiny: Make, tmp_path: Path, name: str) -> None:
        model = tiny()
        bodies = [f for f in model.functions if f.name != name]
        del model.functions[:]
        model.functions.extend(bodies)
        refused(model, tmp_path, name, "function body", "export")

    @pytest.mark.parametrize(
        ("op", "name", "value"),
        [
            ("QuantAttention", "heads", [3]),
            ("QuantAttention", "heads", "3"),
            ("TopKGate", "group", 2.0),
        ],
    )
    def test_an_attribute_of_another_type(
        self, tiny: Make, tmp_path: Path, op: str, name: str, value: Any
    ) -> None:
        """ONNX's checker does not know our operators; Python raised of its own."""
        model = tiny()
        odd = node(model, op)
        kept = [entry for entry in odd.attribute if entry.name != name]
        del odd.attribute[:]
        odd.attribute.extend([*kept, helper.make_attribute(name, value)])
        refused(model, tmp_path, f"{op} ", f"its {name} is not one whole number")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_number_of_a_node_that_is_not_finite(
        self, tiny: Make, tmp_path: Path, value: float
    ) -> None:
        model = tiny()
        norm = node(model, "LayerNormalization")
        del norm.attribute[:]
        norm.attribute.append(helper.make_attribute("epsilon", value))
        refused(model, tmp_path, norm.name, "its epsilon is NaN or infinite")

    def test_an_unknown_operator_of_ours(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "KeepTokens").op_type = "DropTokens"
        refused(model, tmp_path, "DropTokens", "PatchEmbed, TopKGate")

    def test_an_unknown_standard_operator(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "Gelu").op_type = "Gelooo"
        refused(model, tmp_path, "Gelooo")

    @pytest.mark.parametrize("equation", ["[i->", "..i->", "....i->", "\x1b[2J...->", "ij->i;"])
    def test_an_equation_that_is_none(self, tiny: Make, tmp_path: Path, equation: str) -> None:
        """ONNX's own shape inference never ends on most of these."""
        model = tiny()
        last = model.graph.node[-1]
        made = helper.make_node("Einsum", [last.input[0]], ["odd"], "odd", equation=equation)
        last.input[0] = "odd"
        model.graph.node.insert(len(model.graph.node) - 1, made)
        refused(model, tmp_path, "Einsum 'odd'", "which is none")

    def test_an_unknown_domain(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "Gelu").domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))
        refused(model, tmp_path, "com.example", "domain")

    @pytest.mark.parametrize(
        ("version", "remedy"), [(1, "tatvpr-edge export"), (3, "update tatvpr-edge")]
    )
    def test_our_operators_of_another_version(
        self, tiny: Make, tmp_path: Path, version: int, remedy: str
    ) -> None:
        model = tiny()
        for entry in model.opset_import:
            if entry.domain == DOMAIN:
                entry.version = version
        refused(model, tmp_path, f"version {version}", DOMAIN, remedy)

    @pytest.mark.parametrize("version", [9, 19, 21, 99])
    def test_another_standard_opset_than_that_of_the_bodies(
        self, tiny: Make, tmp_path: Path, version: int
    ) -> None:
        model = tiny()
        for entry in model.opset_import:
            if entry.domain == "":
                entry.version = version
        refused(model, tmp_path, f"opset {version}", "with opset 20")

    def test_a_newer_file_format(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        model.ir_version = onnx.IR_VERSION + 1
        refused(model, tmp_path, f"of format {onnx.IR_VERSION + 1}", "newer")

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("group", 5, ("group 5", "48")),
            ("group", 0, ("group 0",)),
            ("scope", 2, ("scope is 2",)),
            ("flavour", 1, ("unknown attribute", "flavour")),
        ],
    )
    def test_attributes_of_the_gate(
        self, tiny: Make, tmp_path: Path, name: str, value: int, words: tuple[str, ...]
    ) -> None:
        model = tiny()
        gate = node(model, "TopKGate")
        kept = [a for a in gate.attribute if a.name != name]
        del gate.attribute[:]
        gate.attribute.extend([*kept, helper.make_attribute(name, value)])
        refused(model, tmp_path, "TopKGate", *words)

    @pytest.mark.parametrize("heads", [0, 5])
    def test_heads_that_do_not_divide(self, tiny: Make, tmp_path: Path, heads: int) -> None:
        model = tiny()
        node(model, "QuantAttention").attribute[0].i = heads
        refused(model, tmp_path, "QuantAttention", f"{heads} heads")

    def test_attention_without_heads(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        del node(model, "QuantAttention").attribute[:]
        refused(model, tmp_path, "QuantAttention", "heads")

    def test_a_matmul_whose_activations_no_gate_made(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        product = node(model, "TernaryMatMul", 1)
        product.input[1] = "blocks.0.qkv.s"
        refused(model, tmp_path, "blocks.0.out", "one TopKGate")

    def test_a_second_keep_tokens_that_reads_what_the_first_read(
        self, tiny: Make, tmp_path: Path
    ) -> None:
        model = tiny()
        keep = node(model, "KeepTokens")
        twin = onnx.NodeProto()
        twin.CopyFrom(keep)
        twin.name, twin.output[0] = "again", "again"
        nodes = list(model.graph.node)
        nodes.insert(nodes.index(keep) + 1, twin)
        after = next(n for n in nodes[nodes.index(twin) + 1 :] if keep.output[0] in n.input)
        del model.graph.node[:]
        after.input[list(after.input).index(keep.output[0])] = "again"
        model.graph.node.extend(nodes)
        refused(model, tmp_path, "'again'", "twice, one after the other")

    def test_a_table_that_leaves_with_other_tokens(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny("sides")
        keep = next(n for n in model.graph.node if n.name == "blocks.0.keep.table")
        keep.input[1] = "blocks.0.mine"
        turned = onnx.helper.make_node("Neg", ["blocks.0.looked"], ["blocks.0.mine"])
        nodes = list(model.graph.node)
        nodes.insert(nodes.index(keep), turned)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        refused(model, tmp_path, "blocks.0.keep.table", "with its A")

    @pytest.mark.parametrize("of", ["tokens.table", "blocks.0.keep.table"])
    def test_a_table_that_does_not_go_through_every_keep_tokens(
        self, tiny: Make, tmp_path: Path, of: str
    ) -> None:
        model = tiny("sides", keep_after=(1, 2))
        next(n for n in model.graph.node if n.name == "head.left.weights").input[0] = of
        rows = "16" if of == "tokens.table" else "kept_tokens - 1"
        refused(model, tmp_path, "head.left.weighted", rows, "the same KeepTokens")

    def test_a_third_keep_tokens(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny(keep_after=(1, 2))
        second = node(model, "KeepTokens", 1)
        third = onnx.NodeProto()
        third.CopyFrom(second)
        third.name, third.input[0], third.output[0] = "again", second.output[0], "again"
        nodes = list(model.graph.node)
        at = nodes.index(second) + 1
        nodes[at].input[0] = "again"
        del model.graph.node[:]
        model.graph.node.extend([*nodes[:at], third, *nodes[at:]])
        refused(model, tmp_path, "'again'", "same, known number of tokens")

    def test_k_used_for_something_else(self, tiny: Make, tmp_path: Path) -> None:
        from tatvpr_edge.compilers.match import match

        model = tiny()
        last = node(model, "LpNormalization")
        last.output[0] = "unit"
        model.graph.node.append(helper.make_node("Mul", ["unit", "k"], ["descriptor"]))
        path = tmp_path / "odd.onnx"
        onnx.save(model, path)
        with pytest.raises(ModelError, match="'k' is used outside"):
            match(checked_graph(path))


class TestInterface:
    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            (TensorProto.FLOAT, [32, 32, 3]),
            (TensorProto.UINT8, [32, 48, 3]),
            (TensorProto.UINT8, [3, 32, 32]),
            (TensorProto.UINT8, [1, 32, 32, 3]),
            (TensorProto.UINT8, ["h", "w", 3]),
        ],
    )
    def test_a_frame_of_another_kind(
        self, tiny: Make, tmp_path: Path, dtype: int, shape: list[Any]
    ) -> None:
        model = tiny()
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("frame", dtype, shape))
        refused(model, tmp_path, "frame", "uint8 [S, S, 3]")

    @pytest.mark.parametrize("op", ["Cast", "PatchEmbed"])
    def test_a_second_reader_of_the_frame(self, tiny: Make, tmp_path: Path, op: str) -> None:
        """Its pixels were gone by then; the build blamed ONNX Runtime's answer, or took it."""
        model = tiny()
        if op == "Cast":
            second = helper.make_node("Cast", ["frame"], ["seen"], name="seen", to=1)
        else:
            second = onnx.NodeProto()
            second.CopyFrom(node(model, "PatchEmbed"))
            second.name, second.output[0] = "seen", "seen"
        seen = [
            helper.make_node("ReduceMean", ["seen"], ["mean"], keepdims=0),
            helper.make_node("Add", ["head.flat", "mean"], ["both"]),
        ]
        node(model, "LpNormalization").input[0] = "both"
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes[:-1], second, *seen, nodes[-1]])
        refused(model, tmp_path, f"{op} 'seen' reads the frame, too", "'patch_embed' alone may")

    def test_a_copy_of_the_frame(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "PatchEmbed").input[0] = "copy"
        copy, nodes = helper.make_node("Identity", ["frame"], ["copy"]), list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([copy, *nodes])
        refused(model, tmp_path, "Identity -> 'copy' reads the frame", "'patch_embed' alone may")

    def test_k_that_is_a_vector(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        model.graph.input[1].CopyFrom(helper.make_tensor_value_info("k", TensorProto.FLOAT, [1]))
        refused(model, tmp_path, "'k'", "float32 []")

    def test_an_input_that_is_missing(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny(keep_after=())
        del model.graph.input[2]
        refused(model, tmp_path, "frame, k", "tokens")

    def test_an_output_of_another_name(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        node(model, "LpNormalization").output[0] = "embedding"
        model.graph.output[0].name = "embedding"
        refused(model, tmp_path, "embedding", "descriptor")

    def test_a_descriptor_that_is_a_matrix(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        norm = node(model, "LpNormalization")
        norm.input[0] = "head.proj"
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [1, 40])
        )
        refused(model, tmp_path, "descriptor", "float32 [D]")

    def test_a_patch_that_does_not_tile_the_frame(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        replace_weight(model, "patch_embed.weight", np.ones((48, 7 * 7 * 3), np.int8))
        refused(model, tmp_path, "patch_embed", "32-pixel")


class TestBodies:
    """ONNX Runtime runs the bodies in the file, so they are what we compute, or are refused."""

    @pytest.mark.parametrize("name", OPERATORS)
    def test_one_altered_number_or_operator(self, tiny: Make, tmp_path: Path, name: str) -> None:
        model = tiny()
        body = next(f for f in model.functions if f.name == name)
        last = next(n for n in reversed(body.node) if n.op_type in ("Add", "Mul", "Sub", "Cast"))
        last.op_type = "Identity"
        refused(model, tmp_path, f"function body of {DOMAIN} {name}", "tatvpr-edge export")

    def test_a_function_that_replaces_a_standard_operator(self, tiny: Make, tmp_path: Path) -> None:
        model = tiny()
        relu = helper.make_function(
            "", "Relu", ["X"], ["Y"], [helper.make_node("Neg", ["X"], ["Y"])], model.opset_import
        )
        model.functions.append(relu)
        refused(model, tmp_path, "'Relu'", "tatvpr-edge export")

    @pytest.mark.parametrize("tokens", [17, 1040, 1041, 4000])
    def test_what_the_exporter_writes_passes(self, tokens: int) -> None:
        check_bodies(onnx.ModelProto(functions=bodies.bodies(tokens)))

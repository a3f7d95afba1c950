"""The model hash says which network it is, whatever its file looks like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tatvpr_edge.compilers.canonical import model_hash
from tatvpr_edge.compilers.checks import check_model

Make = Callable[..., onnx.ModelProto]


def hashed(model: onnx.ModelProto) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return model_hash(check_model(copy))


class TestWhatDoesNotCount:
    def test_it_is_a_sha256_and_the_same_every_time(self, tiny: Make) -> None:
        assert len(hashed(tiny())) == 32
        assert hashed(tiny()) == hashed(tiny())

    def test_names_of_values_nodes_and_weights(self, tiny: Make) -> None:
        model, plain = tiny(), hashed(tiny())
        fixed = {"frame", "k", "tokens", "descriptor"}

        def renamed(name: str) -> str:
            return name if name in fixed or not name else f"v.{name}.x"

        for node in model.graph.node:
            node.name = "n" + node.name
            for names in (node.input, node.output):
                names[:] = [renamed(name) for name in names]
        for tensor in model.graph.initializer:
            tensor.name = renamed(tensor.name)
        assert hashed(model) == plain

    def test_metadata_bodies_and_file_version(self, tiny: Make) -> None:
        model = tiny()
        plain = hashed(model)
        onnx.helper.set_model_props(model, {"author": "someone"})
        model.producer_name, model.doc_string, model.ir_version = "else", "words", 9
        del model.functions[:]
        assert hashed(model) == plain

    def test_unused_weights_and_nodes(self, tiny: Make) -> None:
        model = tiny()
        plain = hashed(model)
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "idle"))
        model.graph.node.append(onnx.helper.make_node("Neg", ["idle"], ["nowhere"]))
        assert hashed(model) == plain

    def test_order_of_weights_and_of_independent_nodes(self, tiny: Make) -> None:
        model = tiny()
        shifted = onnx.helper.make_node("Neg", ["pos_embed"], ["minus"])
        again = onnx.helper.make_node("Neg", ["minus"], ["pos_embed.same"])
        for node in model.graph.node:
            node.input[:] = ["pos_embed.same" if n == "pos_embed" else n for n in node.input]
        nodes, weights = list(model.graph.node), list(model.graph.initializer)

        def arranged(first: int, order: int) -> bytes:
            del model.graph.node[:], model.graph.initializer[:]
            model.graph.node.extend([*nodes[:first], shifted, again, *nodes[first:]])
            model.graph.initializer.extend(weights[::order])
            return hashed(model)

        assert arranged(0, 1) == arranged(1, -1) == arranged(2, 1)

    def test_a_constant_node_instead_of_a_weight(self, tiny: Make) -> None:
        model = tiny()
        plain = hashed(model)
        tensor = next(t for t in model.graph.initializer if t.name == "pos_embed")
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(
            0, onnx.helper.make_node("Constant", [], ["pos_embed"], value=tensor)
        )
        assert hashed(model) == plain

    def test_external_weights(self, tiny: Make, tmp_path: object) -> None:
        from pathlib import Path

        from tatvpr_edge.compilers.checks import checked_graph

        path = Path(str(tmp_path)) / "m.onnx"
        onnx.save(tiny(), path, save_as_external_data=True, location="w", size_threshold=16)
        assert model_hash(checked_graph(path)) == hashed(tiny())


class TestWhatCounts:
    @pytest.mark.parametrize("name", ["pos_embed", "blocks.0.qkv.weight", "head.proj.scale"])
    def test_one_bit_of_a_weight(self, tiny: Make, name: str) -> None:
        model = tiny()
        plain = hashed(model)
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        if values.dtype == np.int8:
            values[0, 0] = 0b01010110 if values[0, 0] != 0b01010110 else 0b01010101
        else:
            values.reshape(-1)[0] = np.nextafter(values.reshape(-1)[0], np.float32(1e9))
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        assert hashed(model) != plain

    @pytest.mark.parametrize(
        "options", [{"group": 4}, {"scope": 1}, {"keep_after": ()}, {"mlp_norm": True}, {"seed": 1}]
    )
    def test_structure_and_attributes(self, tiny: Make, options: dict[str, int]) -> None:
        assert hashed(tiny(**options)) != hashed(tiny())

    def test_the_head(self, tiny: Make) -> None:
        assert len({hashed(tiny(head)) for head in ("cls", "gem", "learned")}) == 3

    def test_swapped_operands(self, tiny: Make) -> None:
        model = tiny()
        plain = hashed(model)
        node = next(n for n in model.graph.node if n.op_type == "Concat")
        node.input[:] = list(node.input)[::-1]
        assert hashed(model) != plain

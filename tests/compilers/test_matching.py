"""Which parts of a graph the C core takes, and what is left for TVM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from support.tiny_model import Writer, mapped
from support.tools import require_tool
from tatvpr_edge import zoo
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers import steps as ir
from tatvpr_edge.compilers.checks import check_model, checked_graph
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, core_include
from tatvpr_edge.compilers.cost import frame_cost
from tatvpr_edge.compilers.match import Matched, match
from tatvpr_edge.compilers.names import unique
from tatvpr_edge.compilers.objects import compile_object
from tatvpr_edge.compilers.toolchains import find_compiler
from tatvpr_edge.compilers.tvm.lower import lower

Make = Callable[..., onnx.ModelProto]


def matched(model: onnx.ModelProto) -> Matched:
    return match(check_model(model))


def left_over(found: Matched) -> list[str]:
    return [n.op_type for n in found.graph.nodes if found.step_of(n) is None]


class TestPatterns:
    def test_a_block_is_three_linears_and_attention(self, tiny: Make) -> None:
        found = matched(tiny())
        assert [type(s).__name__ for s in found.steps.values()] == [
            "PatchEmbed",
            *("GatedLinear", "Attention", "GatedLinear", "Mlp", "KeepTokens"),
            *("GatedLinear", "Attention", "GatedLinear", "Mlp"),
            *("LayerNorm", "GatedLinear", "L2Normalize"),
        ]
        assert left_over(found) == ["Concat", "Add", "Reshape"]

    def test_norm_gelu_and_residual_go_along(self, tiny: Make) -> None:
        steps = matched(tiny(mlp_norm=True)).steps
        qkv, out, mlp = (steps[f"blocks_0_{n}"] for n in ("qkv", "out", "mlp"))
        assert isinstance(qkv, ir.GatedLinear) and qkv.norm is not None and not qkv.residual
        assert isinstance(out, ir.GatedLinear) and out.norm is None and out.residual
        assert isinstance(mlp, ir.Mlp)
        assert mlp.fc1.norm is not None and not mlp.fc1.gelu
        assert mlp.fc2.norm is not None and mlp.fc2.gelu
        assert mlp.name == "blocks.0.mlp"

    def test_the_gates_settings(self, tiny: Make) -> None:
        for group, scope in ((1, 0), (4, 0), (1, 1)):
            steps = matched(tiny(group=group, scope=scope)).steps
            linears = list(ir.gated_linears(list(steps.values())))
            assert {(g.gate.group, g.gate.scope) for g in linears[:-1]} == {(group, scope)}
            assert [g.gate.fixed_k for g in linears] == [0.0] * 8 + [1.0]

    def test_rows_of_the_heads(self, tiny: Make) -> None:
        projection = matched(tiny("cls")).steps["head_proj"]
        assert isinstance(projection, ir.GatedLinear)
        assert (projection.first_row, projection.rows) == (0, 1)
        gem = matched(tiny("gem")).steps["head_gem"]
        assert isinstance(gem, ir.Gem) and gem.first_row == 1 and not gem.weighted

    @pytest.mark.parametrize("keep_after", [(), (1,), (1, 2)])
    def test_what_tells_left_from_right_is_the_cores(
        self, tiny: Make, keep_after: tuple[int, ...]
    ) -> None:
        found = matched(tiny("sides", keep_after=keep_after))
        assert [s.weighted for s in found.steps.values() if isinstance(s, ir.Gem)] == [False, True]
        assert left_over(found) == ["Concat", "Add", "Sub", "Reshape"]
        assert found.kept_counts == ["kept_tokens", "kept_again"][: len(keep_after)]

    @pytest.mark.parametrize("wrong", ["one weight for all rows", "all weights for one row"])
    def test_weights_of_another_number_of_rows_are_left_to_tvm(
        self, tiny: Make, wrong: str
    ) -> None:
        """The core reads a weight for each row: of one weight it would read beyond the end."""
        model = tiny("sides", keep_after=())
        by_name = {n.name: n for n in model.graph.node}
        tokens = by_name["head.left.rows"].input[0]
        by_name["head.left.weighted"].input[1] = "tokens.table"
        if wrong == "one weight for all rows":
            by_name["head.left.clip"].input[0] = tokens
            table = next(t for t in model.graph.initializer if t.name == "tokens.table")
            one = onnx.numpy_helper.to_array(table)[:1]
            table.CopyFrom(onnx.numpy_helper.from_array(one, "tokens.table"))
        else:
            by_name["head.left.rows"].input[1] = "index.axis"  # rows 0 to 1
            by_name["head.left.rows"].input[2] = "index.start"
        assert "Mul" in left_over(matched(model))

    @pytest.mark.parametrize("wrong", ["a weight of 0", "two columns", "other rows"])
    def test_other_weights_are_left_to_tvm(self, tiny: Make, wrong: str) -> None:
        model = tiny("sides", keep_after=())
        table = next(t for t in model.graph.initializer if t.name == "tokens.table")
        values = onnx.numpy_helper.to_array(table).copy()
        if wrong == "a weight of 0":
            values[3] = 0
        elif wrong == "two columns":
            values = np.repeat(values, 48, axis=1)
        else:
            rows = next(n for n in model.graph.node if n.name == "head.left.weights")
            rows.input[1], rows.input[2] = "index.axis", "rows.end"
            last = np.array([16], np.int64)
            model.graph.initializer.append(onnx.numpy_helper.from_array(last, "rows.end"))
        table.CopyFrom(onnx.numpy_helper.from_array(values, "tokens.table"))
        assert "Mul" in left_over(matched(model))

    def test_a_mean_whose_floor_adds_a_dimension_is_left_to_tvm(self, tiny: Make) -> None:
        model = tiny("gem", keep_after=())
        next(n for n in model.graph.node if n.name == "head.clip").op_type = "Max"
        floor = next(t for t in model.graph.initializer if t.name == "floor")
        values = np.full((1, 1, 1), 1e-6, np.float32)
        floor.CopyFrom(onnx.numpy_helper.from_array(values, "floor"))
        assert "ReduceMean" in left_over(matched(model))

    def test_a_mean_of_a_constant_is_left_to_tvm(self, tiny: Make) -> None:
        """Another tool would have folded it; the match ended in a traceback."""

        def head(w: Writer, x: str) -> int:
            for name, value in (("floor", 1e-6), ("three", 3.0), ("third", 1 / 3)):
                w.weight(name, np.array(value, np.float32))
            axes = w.weight("rows", np.array([0], np.int64))
            y = w.add("Max", ["pos_embed", "floor"], "clip")
            y = w.add("ReduceMean", [w.add("Pow", [y, "three"], "cube"), axes], "mean")
            y = w.add("Mul", [w.add("Pow", [y, "third"], "root"), x], "scaled")
            w.add("ReduceSum", [y, axes], "descriptor", keepdims=0)
            return 48

        assert "ReduceMean" in left_over(matched(tiny(head)))

    def test_nodes_may_stand_in_any_order_that_runs(self, tiny: Make) -> None:
        """Pixels lie where later steps work, and other tools sort nodes otherwise than we do."""
        model = tiny("sides")
        names = [n.name for n in model.graph.node]
        keep, table = names.index("blocks.0.keep"), names.index("blocks.0.keep.table")
        w = Writer(1)
        first = w.linear("cls_token", "first", 48, 48)
        nodes = [*w.nodes, *model.graph.node]
        nodes[keep + 2], nodes[table + 2] = nodes[table + 2], nodes[keep + 2]
        concat = next(n for n in nodes if n.name == "embed.concat")
        concat.input[0] = first
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for name, values in w.weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        kinds = [type(s).__name__ for s in matched(model).steps.values()]
        assert kinds[:2] == ["PatchEmbed", "GatedLinear"] and kinds.count("KeepTokens") == 2

    def test_a_learned_head_is_left_to_tvm(self, tiny: Make) -> None:
        assert left_over(matched(tiny("learned")))[2:] == [
            *("MatMul", "Softmax", "Transpose", "MatMul", "MatMul", "Add", "Relu", "Reshape")
        ]

    def test_a_norm_with_two_readers_stays_a_step_of_its_own(self, tiny: Make) -> None:
        model = tiny()
        # The residual now reads the norm as well.
        add = next(n for n in model.graph.node if n.name == "blocks.0.residual1")
        add.input[0] = "blocks.0.norm1"
        steps = matched(model).steps
        qkv = steps["blocks_0_qkv"]
        assert isinstance(qkv, ir.GatedLinear) and qkv.norm is None
        assert isinstance(steps["blocks_0_norm1"], ir.LayerNorm)

    def test_an_mlp_whose_inside_is_read_elsewhere_is_not_joined(self, tiny: Make) -> None:
        model = tiny()
        add = next(n for n in model.graph.node if n.name == "blocks.1.residual2")
        position = list(model.graph.node).index(add)
        model.graph.node.insert(
            position, helper.make_node("ReduceSum", ["blocks.1.up"], ["extra"], name="extra")
        )
        model.graph.node.insert(
            position + 2, helper.make_node("Add", [add.output[0], "extra"], ["mixed"], name="mixed")
        )
        norm = next(n for n in model.graph.node if n.name == "norm")
        norm.input[0] = "mixed"
        steps = matched(model).steps
        assert isinstance(steps["blocks_0_mlp"], ir.Mlp)
        assert isinstance(steps["blocks_1_up"], ir.GatedLinear)
        assert isinstance(steps["blocks_1_down"], ir.GatedLinear)

    def test_approximate_gelu_is_not_the_cores(self, tiny: Make) -> None:
        model = tiny()
        for node in model.graph.node:
            if node.op_type == "Gelu":
                node.attribute.append(helper.make_attribute("approximate", "tanh"))
        found = matched(model)
        assert left_over(found).count("Gelu") == 2
        assert not any(isinstance(s, ir.Mlp) for s in found.steps.values())


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            *("run", "int", "program", 'a"b', "0", "", "é", "F32", "int32_t", "INT8_MAX"),
            *("TATVPR_ABI", "tatvpr_status", "tatvpr_op_gated_linear", "kernel_concatenate"),
            "kernel_fused_concatenate_add",
        ],
    )
    def test_any_name_of_a_node_gives_valid_c(self, tiny: Make, tmp_path: Path, name: str) -> None:
        require_tool("gcc", "gcc")
        model = tiny()
        for node in model.graph.node:
            if node.op_type in ("TernaryMatMul", "LayerNormalization"):
                node.name = name
        source = tmp_path / "model.c"
        source.write_text(lower(check_model(model), "tiny").model_c)
        flags = [*NUMERIC_FLAGS, "-Wall", "-Wextra", "-Wconversion", "-Werror"]
        compiler = find_compiler(load("host"))
        compile_object(compiler, source, [*flags, f"-I{core_include()}"], tmp_path / "model.o")

    def test_identifiers_never_meet(self) -> None:
        taken: list[str] = []
        for name in ("a", "a", "a_norm", "a.norm", "a_fc1_norm", "x_norm", "x", "run"):
            taken.append(unique(name, taken))
        derived = [t + s for t in taken for s in ("", "_norm", "_fc1_norm", "_fc2_norm")]
        assert len(set(derived)) == len(derived)


class TestCost:
    def test_tokens_and_k_compose(self, tiny: Make) -> None:
        found = matched(tiny())
        dense, fewer = frame_cost(found, 1.0), frame_cost(found, 1.0, tokens=0.5)
        assert fewer.linear_macs < dense.linear_macs
        assert fewer.attention_macs < dense.attention_macs
        assert frame_cost(found, 0.2, 0.5).macs < min(fewer.macs, frame_cost(found, 0.2).macs)

    def test_rows_count_as_many_as_there_are(self, tiny: Make) -> None:
        """CLS stays beside the patches that are kept; a slice without it has one row fewer."""

        def scores(w: Writer, x: str) -> int:
            bounds = [w.weight(f"head.{at}", np.array([at], np.int64)) for at in (1, 1 << 40, 0)]
            patches = w.add("Slice", [x, *bounds], "head.patches")
            product = w.add("MatMul", [patches, w.random("head.weight", 48, 6)], "head.scores")
            most = w.add("ReduceMax", [product, bounds[2]], "head.most", keepdims=0)
            w.add("LpNormalization", [most], "descriptor", axis=-1, p=2)
            return 6

        found = matched(tiny(scores))
        embedding = frame_cost(matched(tiny(keep_after=())), 1.0).other_macs
        kept_rows = {1.0: 16, 0.5: 8, 1e-6: 1}
        costs = {tokens: frame_cost(found, 1.0, tokens) for tokens in kept_rows}
        for tokens, rows in kept_rows.items():
            assert costs[tokens].other_macs == embedding + rows * 48 * 6
        dense, half, least = (cost.linear_macs for cost in costs.values())
        assert (dense - half) * 15 == (dense - least) * 8 > 0

    def test_what_tvm_multiplies_counts_however_it_is_written(self, tiny: Make) -> None:
        def operators(op: str) -> Callable[[Writer, str], tuple[str, int]]:
            def write(w: Writer, x: str) -> tuple[str, int]:  # [1, 48, 4, 4] to 20 channels
                weight = w.random("head.weight", 20, 48, *((1, 1) if op == "Conv" else ()))
                if op == "Conv":
                    return w.add(op, [x, weight], "head.map.out"), 320
                shape = w.weight("head.flat.48", np.array([48, 16], np.int64))
                flat = w.add("Reshape", [x, shape], "head.flat48")
                if op == "Einsum":
                    return w.add(op, [weight, flat], "head.out", equation="nc, ct -> nt"), 320
                return w.add(op, [weight, flat], "head.out"), 320

            return write

        counted = {
            op: frame_cost(matched(tiny(mapped(operators(op)), keep_after=())), 1.0).other_macs
            for op in ("MatMul", "Gemm", "Conv", "Einsum")
        }
        embedding = frame_cost(matched(tiny(keep_after=())), 1.0).other_macs
        assert set(counted.values()) == {embedding + 20 * 48 * 16}

    @pytest.mark.parametrize("name", zoo.names())
    def test_it_agrees_with_the_cards_of_shipped_models(self, name: str) -> None:
        found = match(checked_graph(zoo.path(name)))
        for k, macs in zoo.card(name)["macs"].items():
            assert frame_cost(found, float(k)).macs == macs

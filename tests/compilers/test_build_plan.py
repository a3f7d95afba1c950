"""What `build --dry-run` prints and tells: every figure in its unit, beside its own name."""

from __future__ import annotations

import dataclasses

from tatvpr_edge.compilers.build import plan_artifact
from tatvpr_edge.compilers.cost import Cost
from tatvpr_edge.compilers.report import BuildPlan, Tool

PLAN = BuildPlan(
    board="b",
    title="a board",
    processor="a core",
    verified="compiled: never run",
    notes=("of note",),
    model="m",
    model_hash="0123456789abcdef",
    backend="tvm",
    core_steps={"Norm": 2},
    compiled_operators=(),
    weight_bytes=1 << 20,
    arena_bytes=(1 << 20) - 1,
    planned_bytes=1536,
    costs=(Cost(0.6, 1.0, 100_000_000, 20_000_000, 3_250_000),),
    tools=(Tool("C compiler", None, "install one"), Tool("TVM", "0.27", "")),
    regions=(("arena", "axi", 2048, 3 << 19),),
    board_steps=("left for the board",),
)


def test_every_figure_is_printed_in_its_unit() -> None:
    assert PLAN.lines() == [
        "m (0123456789ab) for b, backend tvm",
        "  a board: a core",
        "  the board itself: compiled: never run",
        "  C core: 2 Norm",
        "  TVM: nothing",
        "  weights 1.00 MiB, arena 1024.0 KiB (of it planned by TVM: 1.5 KiB)",
        "  arena: 2.0 KiB of 1.50 MiB in axi",
        "  k 0.6, tokens 1: 123.2 million MACs",
        "  C compiler: missing, install one",
        "  TVM: 0.27",
        "  left for the board",
        "  note: of note",
    ]
    unknown = dataclasses.replace(PLAN, arena_bytes=None).lines()
    assert "arena unknown (no C compiler here)" in unknown[5]


def test_json_has_the_same_figures_under_their_names() -> None:
    told = PLAN.to_dict()
    assert (told["weight_bytes"], told["arena_bytes"], told["planned_bytes"]) == (
        PLAN.weight_bytes,
        PLAN.arena_bytes,
        PLAN.planned_bytes,
    )
    assert told["compute"] == [{"k": 0.6, "tokens": 1.0, "macs": 123_250_000}]
    assert told["regions"] == [
        {"what": "arena", "region": "axi", "bytes": 2048, "region_bytes": 3 << 19}
    ]


def test_the_figures_of_a_plan_are_those_of_the_model() -> None:
    plan = plan_artifact("host")
    assert [cost.k for cost in plan.costs] == [1.0, 0.6, 0.4, 0.2]
    assert plan.arena_bytes is not None
    assert 0 < plan.planned_bytes < plan.arena_bytes < plan.weight_bytes

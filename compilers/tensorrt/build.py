"""The portable half of ``build --backend tensorrt``: all that needs no board.

In: a checked graph, a board with a GPU, and the CPU artifact's manifest and members. Out: the
same with the stages' ONNX files, plugin sources and names, CUDA sources, cubins and the recipe by
which the board finishes the engine (``python -m tatvpr_edge.runtime finish``). The CPU library
stays: it is what answers when the engine cannot be had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tatvpr_edge.boards.board import Board, Gpu
from tatvpr_edge.compilers.graph import Graph, attribute, label
from tatvpr_edge.compilers.report import Tool
from tatvpr_edge.compilers.tensorrt.cubins import compile_all, nvrtc_version, source_folder
from tatvpr_edge.compilers.tensorrt.graph import Pipeline, build_pipeline
from tatvpr_edge.compilers.tensorrt.names import names_header
from tatvpr_edge.runtime.backends.tensorrt.recipe import (
    BACKEND,
    RECIPE,
    PatchRecipe,
    Recipe,
    StageRecipe,
)
from tatvpr_edge.spec.errors import ModelError, ToolError
from tatvpr_edge.spec.manifest import Manifest
from tatvpr_edge.spec.operators import DOMAIN

Members = dict[str, bytes | str | Path]
CUDA_MAJORS = (12, 13)
PLUGIN_SOURCES = ("plugins.cpp", "launch.cpp", "launch.h", "cubins.S")
WORKSPACE_BYTES = 256 << 20
#: Free memory asked for before the builder is started: libraries and context, and the stages
#: several times over (network, tactics, plan). A reserve chosen by us; no board was measured.
BUILDER_BASE_BYTES = 1 << 30
BUILDER_COPIES = 6
#: One block's shared memory without opting in, and what each query row takes of it.
_SHARED_BYTES, _ATTENTION_BYTES_A_TOKEN = 48 << 10, 20
_GATE_BINS = 2048


def check_before(board: Board, graph: Graph) -> None:
    """Before minutes of compiling for the processor: this route lowers the model, and its compilers
    are here.

    Raises:
        ModelError, ToolError: as :func:`add_tensorrt`.
    """
    check_limits(graph)
    build_pipeline(graph)
    for major in cuda_majors(_gpu(board)):
        nvrtc_version(major)


def add_tensorrt(
    board: Board, graph: Graph, manifest: Manifest, members: Mapping[str, bytes | str | Path]
) -> tuple[Manifest, Members]:
    """Add the TensorRT half to a CPU artifact of the same checked graph.

    Raises:
        ModelError: the graph is not of the form that this route lowers; use ``--backend tvm``.
        ToolError: a CUDA run-time compiler is missing, or refuses a kernel.
    """
    gpu = _gpu(board)
    check_limits(graph)
    pipeline = build_pipeline(graph)
    architecture = f"sm_{gpu.sm}"
    added: Members = {}
    cubins: dict[str, dict[str, str]] = {}
    for major in cuda_majors(gpu):
        table = {}
        for cubin in compile_all(architecture, major):
            table[cubin.source] = f"tensorrt/cubin/{architecture}-cuda{major}/{cubin.source}.cubin"
            added[table[cubin.source]] = cubin.code
        cubins[str(major)] = table
    stages = []
    for stage in pipeline.stages:
        path = f"tensorrt/{stage.name}.onnx"
        added[path] = stage.model.SerializeToString(deterministic=True)
        stages.append(
            StageRecipe(stage.name, path, stage.inputs, stage.outputs, stage.dynamic, stage.table)
        )
    sources = []
    for name in PLUGIN_SOURCES:
        sources.append(f"tensorrt/plugin/{name}")
        added[sources[-1]] = source_folder() / "plugin" / name
    sources.append("tensorrt/plugin/names.h")
    added[sources[-1]] = names_header().encode()
    for source in sorted(source_folder().glob("*.cu")):
        added[f"tensorrt/kernels/{source.name}"] = source
    embed, constants = _patch_embed(pipeline)
    added[embed.path] = constants
    beside = None
    if pipeline.table is not None:
        beside = "tensorrt/table.bin"
        added[beside] = pipeline.table.astype("<f4").tobytes()
    recipe = Recipe(
        architecture=architecture,
        stages=tuple(stages),
        patch_embed=embed,
        max_tokens=pipeline.max_tokens,
        plugin_sources=tuple(sources),
        cubins=cubins,
        workspace_bytes=WORKSPACE_BYTES,
        build_memory_bytes=build_memory_bytes(pipeline),
        table=beside,
    )
    added[RECIPE] = recipe.to_json()
    backends = {**manifest.backends, BACKEND: {"recipe": RECIPE}}
    return dataclasses.replace(manifest, backends=backends), {**members, **added}


def board_steps(board: Board, graph: Graph) -> tuple[str, ...]:
    """What the board will do, for ``--dry-run``; the same checks as a real build, nothing made.

    Raises:
        ModelError: as :func:`add_tensorrt`.
    """
    gpu = _gpu(board)
    check_limits(graph)
    pipeline = build_pipeline(graph)
    needed = build_memory_bytes(pipeline) >> 20
    names = " and ".join(f"'{stage.name}'" for stage in pipeline.stages)
    return (
        f"on the board (sm_{gpu.sm}, JetPack {gpu.jetpack}, TensorRT {gpu.tensorrt}, "
        f"CUDA {gpu.cuda}), python -m tatvpr_edge.runtime finish:",
        "  compile the plugin from source with g++ and TensorRT's headers, else use the Python one",
        f"  build {names} in a child process: about {needed} MB of free RAM (estimated, measured "
        "on no board), and minutes",
        "  check the kernels bit for bit and the golden vectors' cosines in a second child",
        "  keep the engine in the user's cache; if any of this fails: the CPU library answers",
    )


def tools(board: Board) -> list[Tool]:
    """The CUDA run-time compilers that the build needs."""
    found = []
    for major in cuda_majors(_gpu(board)):
        what = f"CUDA {major} run-time compiler"
        try:
            found.append(Tool(what, f"NVRTC {nvrtc_version(major)}", ""))
        except ToolError as error:
            found.append(Tool(what, None, str(error).partition(": ")[2]))
    return found


def cuda_majors(gpu: Gpu) -> tuple[int, ...]:
    """CUDA versions to compile for: the board's own and those that it may be updated to."""
    own = int(gpu.cuda.split(".")[0])
    return tuple(major for major in CUDA_MAJORS if major >= own)


def build_memory_bytes(pipeline: Pipeline) -> int:
    """Free memory that the board's builder is given, in bytes: an estimate."""
    largest = max(stage.model.ByteSize() for stage in pipeline.stages)
    return BUILDER_BASE_BYTES + BUILDER_COPIES * largest + WORKSPACE_BYTES


def check_limits(graph: Graph) -> None:
    """Refuse sizes that our kernels do not take.

    Raises:
        ModelError: the node and the limit are named.
    """
    for node in graph.nodes:
        if node.domain != DOMAIN:
            continue
        width = graph.types[node.input[0]].shape[-1]
        tokens = graph.types[node.input[0]].shape[0]
        if node.op_type == "PatchEmbed":
            patch_bytes = graph.constants[node.input[1]].shape[1]
            if patch_bytes > _SHARED_BYTES:
                _refuse(
                    f"{label(node)}: {patch_bytes} bytes a patch, a block holds {_SHARED_BYTES}"
                )
        elif node.op_type == "TopKGate":
            group = int(attribute(node, "group", 1))
            if isinstance(width, int) and width % 4:
                _refuse(f"{label(node)}: {width} channels are not a multiple of 4")
            if 127 * group >= _GATE_BINS:
                _refuse(f"{label(node)}: group {group} is above {(_GATE_BINS - 1) // 127}")
            if isinstance(width, int) and width + 4 * _GATE_BINS + 1024 > _SHARED_BYTES:
                _refuse(f"{label(node)}: {width} channels exceed a block's shared memory")
        elif node.op_type == "QuantAttention":
            heads = int(attribute(node, "heads", 0))
            if isinstance(width, int) and width // 3 // heads % 4:
                _refuse(f"{label(node)}: {width // 3 // heads} channels a head, not 4 n")
            most = _SHARED_BYTES // _ATTENTION_BYTES_A_TOKEN - 4
            if isinstance(tokens, int) and tokens > most:
                _refuse(f"{label(node)}: {tokens} tokens, our kernel takes at most {most}")


def _refuse(text: str) -> None:
    raise ModelError(f"{text}: not lowered to TensorRT; build with --backend tvm")


def _gpu(board: Board) -> Gpu:
    if board.gpu is None:
        raise ModelError(f"board {board.name} has no GPU for TensorRT")
    return board.gpu


def _patch_embed(pipeline: Pipeline) -> tuple[PatchRecipe, bytes]:
    dim = pipeline.patch_weight.shape[0]
    recipe = PatchRecipe("tensorrt/patch_embed.bin", pipeline.image_size, pipeline.patch, dim)
    parts = (
        np.ascontiguousarray(pipeline.patch_weight, np.int8).tobytes(),
        np.broadcast_to(pipeline.patch_scale, (dim,)).astype("<f4").tobytes(),
        pipeline.patch_bias.astype("<f4").tobytes(),
    )
    return recipe, b"".join(parts)

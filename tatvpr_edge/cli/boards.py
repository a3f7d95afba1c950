"""`tatvpr-edge boards [NAME]`: which boards there are, and one board's limits and verification."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.table import Table

from tatvpr_edge.boards.board import Board, MemoryRegion
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import json_option, print_grid, print_json
from tatvpr_edge.spec.operators import DOMAIN, OPERATORS, PLUGINS, VERSION


@click.command("boards")
@click.argument("name", required=False, shell_complete=words.boards)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the boards, or show one board's limits, operators and verification."""
    boards = [load(name)] if name is not None else [load(each) for each in names()]
    if as_json:
        documents = [describe(board) for board in boards]
        print_json(documents[0] if name is not None else documents)
        return
    print_grid(_details(boards[0]) if name is not None else _list(boards))


def describe(board: Board) -> dict[str, Any]:
    """Return what `--json` prints of a board: every field of its file, and its operators."""
    return {**dataclasses.asdict(board), "operators": _operators(board)}


def _operators(board: Board) -> dict[str, list[str]]:
    ways = {"core": list(OPERATORS)}
    if board.gpu is not None:
        ways["tensorrt"] = list(PLUGINS)
    return ways


def _list(boards: list[Board]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("board", "processor", "memory", "GPU", "verified"):
        table.add_column(column)
    for board in boards:
        gpu = f"sm_{board.gpu.sm}, TensorRT {board.gpu.tensorrt}" if board.gpu else "-"
        table.add_row(board.name, board.processor, _memory(board), gpu, board.verification.level)
    return table


def _details(board: Board) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    cpu = board.cpu
    table.add_row("board", f"{board.name}: {board.title}")
    kernels = ", ".join(cpu.features) or "plain C"
    if board.kind == "linux":
        kernels = "kernels as the processor at hand allows"
    table.add_row("processor", f"{board.processor}; {cpu.triple}; {kernels}")
    if board.gpu is not None:
        gpu = board.gpu
        table.add_row("GPU", f"{gpu.name}; sm_{gpu.sm}")
        table.add_row("", f"JetPack {gpu.jetpack}: CUDA {gpu.cuda}, TensorRT {gpu.tensorrt}")
    for index, region in enumerate(board.memory):
        table.add_row("" if index else "memory", _region(board, region))
    if board.limits_of is not None:
        table.add_row("limits", f"those of {board.limits_of} are held when it is emulated")
    if board.kind == "linux":
        glibc = f"glibc {board.glibc} or newer" if board.glibc else "glibc: this machine's"
        table.add_row("system", glibc)
    table.add_row("model", f"{board.model}, where build is given no --model")
    for way, operators in _operators(board).items():
        title = {"core": "C core", "tensorrt": "TensorRT plugins"}[way]
        table.add_row("operators" if way == "core" else "", f"{title}: {', '.join(operators)}")
    table.add_row("", f"ONNX domain {DOMAIN}, version {VERSION}")
    chain = board.toolchain
    flags = f" {' '.join(chain.gcc_flags)}" if chain.gcc_flags else ""
    table.add_row("compilers", f"{chain.gcc}{flags} (Debian: {' '.join(chain.gcc_packages)})")
    if board.kind == "linux":
        table.add_row("", f"zig cc -target {board.zig_triple} (pip install ziglang)")
    if board.emulator is not None:
        line = " ".join([board.emulator.program, *board.emulator.arguments])
        table.add_row("emulator", f"{line} (Debian: {board.emulator.package})")
    table.add_row("verified", f"{board.verification.level}: {board.verification.note}")
    for index, note in enumerate(board.notes):
        table.add_row("" if index else "notes", note)
    return table


def _memory(board: Board) -> str:
    """A microcontroller's flash and the bank of its arena; a Linux board's RAM."""
    if board.placement is None:
        return ", ".join(_bytes(region.size) for region in board.memory) or "-"
    weights, arena = (board.region(board.placement.weights), board.region(board.placement.arena))
    return f"{_bytes(weights.size)} {weights.name}, arena in {_bytes(arena.size)} {arena.name}"


def _region(board: Board, region: MemoryRegion) -> str:
    line = f"{region.name:<9} {_bytes(region.size):>8}  {region.base:#010x}  {region.kind}"
    placed = dataclasses.asdict(board.placement) if board.placement else {}
    uses = [use for use, name in placed.items() if name == region.name]
    return f"{line}  <- {', '.join(uses)}" if uses else line


def _bytes(size: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size / 1024:g} KiB"

"""Does it fit? Bytes of flash and RAM against a board's regions, with figures either way."""

from __future__ import annotations

from dataclasses import dataclass

from tatvpr_edge.boards.board import Board, Placement
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.spec.errors import BoardError

#: Reserved for calls of the library.
STACK_BYTES = 8192
#: What they used of it at most on the emulated boards, whose stacks tests/mcu paint: describing
#: with a shipped model, and a query in a weighed, calibrated map.
DESCRIBE_STACK_BYTES, QUERY_STACK_BYTES = 2048, 5200


@dataclass(frozen=True)
class Need:
    """One thing that takes memory."""

    what: str
    region: str
    bytes: int


@dataclass(frozen=True)
class Fit:
    """Needs by region, and the sizes of those regions."""

    needs: tuple[Need, ...]
    sizes: dict[str, int]
    tile: int
    arena_bytes: int
    tables_bytes: int

    def rows(self) -> tuple[tuple[str, str, int, int], ...]:
        """(what, region, bytes needed, bytes there), for reports."""
        return tuple((n.what, n.region, n.bytes, self.sizes[n.region]) for n in self.needs)


def limits(board: Board) -> tuple[Board, Placement]:
    """The board whose memory counts: an emulated one holds the limits of the real one.

    Raises:
        BoardError: no microcontroller.
    """
    real = load_board(board.limits_of) if board.limits_of else board
    if real.placement is None:
        raise BoardError(f"board {real.name} has no placement: it is no microcontroller")
    return real, real.placement


def tables_apart(board: Board) -> bool:
    """Whether the board keeps look-up tables in another memory than the arena.

    Raises:
        BoardError: no microcontroller.
    """
    placement = limits(board)[1]
    return placement.tables != placement.arena


def _remedy(board: Board, full: str, needed: int) -> str:
    """What to do where a region is full: others of its sort have room, or none has."""
    writable = board.region(full).writable
    others = [
        f"{region.name} ({region.size})"
        for region in board.memory
        if region.name != full and region.writable == writable and region.size >= needed
    ]
    if not others:
        return "choose a smaller model"
    return f"choose a smaller model, or by [placement] another region: {', '.join(others)}"


def fit(
    board: Board,
    model: str,
    weight_bytes: int,
    code_bytes: int,
    arenas: dict[int, int],
    tables_bytes: int = 0,
) -> Fit:
    """The largest tile of tokens whose arena fits, and everything else in its region.

    Args:
        arenas: arena bytes by tokens of a tile.
        tables_bytes: look-up tables in a region of their own; 0: the arena holds them.

    Raises:
        BoardError: something does not fit; the text has both figures.
    """
    real, placement = limits(board)
    sizes = {region.name: region.size for region in real.memory}
    room = sizes[placement.arena]
    fixed: tuple[Need, ...] = (
        Need("weights", placement.weights, weight_bytes),
        Need("code and constants", placement.code, code_bytes),
        Need("stack", placement.stack, STACK_BYTES),
    )
    if tables_bytes:
        fixed += (Need("look-up tables", placement.tables, tables_bytes),)
    taken = sum(n.bytes for n in fixed if n.region == placement.arena)
    fitting = [tile for tile in arenas if arenas[tile] + taken <= room]
    if not fitting:
        least = min(arenas.values())
        raise BoardError(
            f"{model} does not fit {board.name}: its arena takes at least {least} bytes, "
            f"region {placement.arena} of {real.name} has {room - taken}: "
            + _remedy(real, placement.arena, least)
        )
    tile = max(fitting)
    needs = (*fixed, Need("arena", placement.arena, arenas[tile]))
    for region in {n.region for n in needs}:
        total = sum(n.bytes for n in needs if n.region == region)
        if total > sizes[region]:
            here = [n for n in needs if n.region == region and n.bytes]
            what = " and ".join(f"{n.what} ({n.bytes})" for n in here)
            raise BoardError(
                f"{model} does not fit {board.name}: {what} take {total} bytes, "
                f"region {region} of {real.name} has {sizes[region]}: "
                + _remedy(real, region, max(n.bytes for n in here))
            )
    return Fit(needs, sizes, tile, arenas[tile], tables_bytes)

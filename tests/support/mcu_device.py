"""The whole library on an emulated board, mistakes and all: ``tests/mcu/firmware/device.c``."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulation import EmulatedBoard, Jobs, RunResult, Workshop
from frames import build_image, float_bits

from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import canonical_format, plane_shapes

DESCRIBE, INIT, MAP, QUERY, INFO, NULLS = range(1, 7)
UNKNOWN_FORMAT = 99
DEVICE = Path(__file__).resolve().parent.parent / "mcu" / "firmware" / "device.c"
MATCH = struct.Struct("<IIQfi7d2f")


def _row_bytes(pixels: str, width: int) -> int:
    """Bytes of a row of plane 0; of RGB where no frame can be such (the device is to say so)."""
    try:
        return plane_shapes(pixels, width, 2)[0][1]
    except FrameError:
        return 3 * width


@dataclass(frozen=True)
class Place:
    """One match of a query."""

    band: int
    place: int
    score: float
    accepted: int
    pose: tuple[float, ...]


@dataclass
class Answer:
    """What the device said to one job."""

    status: int
    canaries: bool = True
    descriptor: bytes = b""
    tokens: bytes = b""
    places: list[Place] = field(default_factory=list)
    words: tuple[int, ...] = ()
    text: str = ""


@dataclass
class Device(Jobs):
    """The whole library on one board."""

    kinds: list[int] = field(default_factory=list)

    def _add(self, kind: int, arguments: list[int], payload: bytes = b"") -> None:
        self.put(kind, arguments, payload)
        self.kinds.append(kind)

    def _frame(
        self,
        kind: int,
        raw: bytes,
        width: int,
        height: int,
        pixels: str,
        stride: int | None,
        k: float,
        tokens: float,
        rest: list[int],
    ) -> None:
        stride0 = _row_bytes(pixels, width) if stride is None else stride
        plane1 = abs(stride0) * height
        code = FORMATS.get(canonical_format(pixels), UNKNOWN_FORMAT)
        head = [
            code,
            width,
            height,
            stride0,
            abs(stride0),
            plane1,
            float_bits(k),
            float_bits(tokens),
        ]
        self._add(kind, [*head, *rest], raw)

    def describe(
        self,
        raw: bytes,
        width: int,
        height: int,
        k: float,
        tokens: float = 1.0,
        pixels: str = "RGB888",
        stride: int | None = None,
        arena_less: int = 0,
        arena_shift: int = 0,
        want_tokens: bool = False,
        tables_less: int = 0,
    ) -> None:
        """A frame of bytes ``raw`` to a descriptor."""
        rest = [arena_less, arena_shift, int(want_tokens), 0, tables_less]
        self._frame(DESCRIBE, raw, width, height, pixels, stride, k, tokens, rest)

    def query(
        self, raw: bytes, width: int, height: int, k: float, count: int = 1, tokens: float = 1.0
    ) -> None:
        """A frame against the map that was opened last."""
        rest = [0, 0, 0, count]
        self._frame(QUERY, raw, width, height, "RGB888", None, k, tokens, rest)

    def init(self, blob: bytes, size: int | None = None, shift: int = 0) -> None:
        """Bind ``blob`` as weights, ``size`` bytes as stated, ``shift`` bytes off alignment."""
        self._add(INIT, [len(blob) if size is None else size, shift], bytes(shift) + blob)

    def map(
        self, data: bytes, size: int | None = None, shift: int = 0, with_model: bool = True
    ) -> None:
        """Open ``data`` as a place map."""
        arguments = [len(data) if size is None else size, shift, int(with_model)]
        self._add(MAP, arguments, bytes(shift) + data)

    def info(self) -> None:
        """Ask for sizes: words are arena, weights, image, descriptor, tokens, dim, bank, stack,
        tables.
        """
        self._add(INFO, [])

    def nulls(self) -> None:
        """Pass a null pointer wherever one is refused: words are the statuses."""
        self._add(NULLS, [])

    def run(
        self,
        folder: Path,
        plugin: Path | None = None,
        blocks: bool = False,
        code: bool = False,
    ) -> tuple[list[Answer], RunResult]:
        """Answers to all jobs, in order.

        Raises:
            ToolError: the firmware did not end with status 0 (90: it faulted).
        """
        records, done = self.run_jobs(folder, plugin, blocks, code)
        return [_answer(kind, records) for kind in self.kinds], done


def _answer(kind: int, records: Any) -> Answer:
    first = next(records)
    if kind in (INIT, MAP):
        return Answer(int.from_bytes(first, "little"))
    if kind in (INFO, NULLS):
        words = struct.unpack(f"<{len(first) // 4}I", first)
        text = next(records).decode() if kind == INFO else ""
        return Answer(0, words=words, text=text)
    answer = Answer(int.from_bytes(first, "little"), next(records) == b"\1\0\0\0")
    if kind == DESCRIBE:
        answer.descriptor = next(records)
        answer.tokens = next(records)
        return answer
    found = next(records)
    for fields in MATCH.iter_unpack(found):
        _, band, place, score, accepted, *pose, _margin, _confidence = fields
        answer.places.append(Place(band, place, score, accepted, tuple(pose)))
    return answer


def build_device(workshop: Workshop, board: EmulatedBoard, lowered: Any, name: str) -> Device:
    """A device with ``lowered`` (compilers.tvm.lower) linked in.

    Raises:
        ToolError: it does not compile, or does not fit the board's regions.
    """
    return Device(board, build_image(workshop, board, lowered, name, DEVICE))

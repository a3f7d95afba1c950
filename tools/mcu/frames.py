"""Frames described by the whole library on an emulated board: ``firmware/frames.c``, driven from
here."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from emulation import FIRMWARE, EmulatedBoard, Jobs, RunResult, Workshop, write_changed
from numpy.typing import NDArray

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.mcu.fit import tables_apart
from tatvpr_edge.compilers.mcu.generated import Own, kernels_source, model_source, weights_source

DESCRIBE = 1


def float_bits(value: float) -> int:
    """A float32 as the integer of its bits."""
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return int(bits)


@dataclass
class Frames(Jobs):
    """The whole library on one board."""

    def describe(self, frame: NDArray[np.uint8], k: float, tokens: float) -> None:
        """One frame uint8 [H, W, 3]."""
        height, width, _ = frame.shape
        arguments = [width, height, float_bits(k), float_bits(tokens)]
        self.put(DESCRIBE, arguments, frame.tobytes())

    def run(
        self, folder: Path, plugin: Path, blocks: bool = False, code: bool = False
    ) -> tuple[list[int], RunResult]:
        """The status of every frame, in order.

        Raises:
            ToolError: the firmware did not end with status 0 (90: it faulted).
        """
        records, done = self.run_jobs(folder, plugin, blocks, code)
        return [int.from_bytes(record, "little") for record in records], done


def build_image(
    workshop: Workshop,
    board: EmulatedBoard,
    lowered: Any,
    name: str,
    firmware: Path = FIRMWARE / "frames.c",
) -> Path:
    """``firmware`` with ``lowered`` (compilers.tvm.lower) linked in.

    Raises:
        ToolError: it does not compile, or does not fit the board's regions.
    """
    folder = workshop.folder / f"{name}-{board.name}"
    blob, model = folder / "weights.bin", folder / "model.c"
    weights, kernels = folder / "weights.S", folder / "kernels.c"
    own = Own(tables_apart=tables_apart(load(board.name)))
    write_changed(blob, lowered.blob)
    write_changed(model, model_source(lowered, own).encode())
    # The digest makes other weights another source: an object knows no file that it includes.
    digest = hashlib.sha256(lowered.blob).hexdigest()
    assembly = f"/* {digest} */\n" + weights_source(lowered, own, str(blob))
    write_changed(weights, assembly.encode())
    sources = [firmware, model, weights]
    text = kernels_source(lowered, own)
    if text:
        write_changed(kernels, text.encode())
        sources.append(kernels)
    return workshop.link(board, f"{name}-{firmware.stem}", workshop.core(board), sources)

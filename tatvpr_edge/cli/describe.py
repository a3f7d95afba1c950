"""Many frames to descriptors, on all cores, with progress and one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.cli.images import FrameFile, read_frame
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.spec.errors import DataError, FrameError

Band = tuple[float, float]


def describe_frames(
    localizer: Localizer,
    frames: Sequence[FrameFile],
    bands: Sequence[Band],
    step: Callable[[int], None],
) -> list[NDArray[np.float32]]:
    """Descriptors float32 [N, D] of ``frames``, one array for each band (k, tokens).

    Raises:
        DataError: a frame that cannot be read or described; the text names it.
    """
    backend = localizer.backend

    def one(frame: FrameFile) -> list[NDArray[np.float32]]:
        try:
            checked = check_frame(read_frame(frame.path))
        except FrameError as error:
            raise DataError(f"{frame.path}: {error}") from None
        return [backend.describe(checked, k, tokens) for k, tokens in bands]

    rows: list[list[NDArray[np.float32]]] = []
    # Decoding and describing both leave the interpreter's lock, so that threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        pending = [pool.submit(one, frame) for frame in frames]
        try:
            for made in pending:
                rows.append(made.result())
                step(1)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [np.stack([row[index] for row in rows]) for index in range(len(bands))]

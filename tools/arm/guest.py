"""Frames, each between two marks; runs in an arm64 Python under ``qemu-aarch64``.

    guest.py MARKS ours ARTIFACT VARIANT TOKENS K [K ...]
    guest.py MARKS onnxruntime MODEL SIDE

One frame is counted for each K. Everything is called twice before the call that is counted. Prints
the name of what answered.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def ours(artifact: str, variant: str, tokens: str, *dial: str) -> Iterator[Callable[[], Any]]:
    """``Localizer.describe`` of a frame of the model's own size, at each k of ``dial``."""
    from tatvpr_edge.runtime import Localizer

    localizer = Localizer(artifact, tokens=float(tokens), kernels=variant)
    side = localizer.artifact.manifest.model.image_size
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    for k in dial:
        localizer.k = float(k)
        yield lambda: localizer.describe(frame)


def onnxruntime(model: str, side: str) -> Iterator[Callable[[], Any]]:
    """The plain transformer of the same shape, one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, int(side), int(side)))
    feed = {"pixels": pixels.astype(np.float32)}
    yield lambda: session.run(None, feed)


def main(marks: str, engine: str, *arguments: str) -> None:
    """Warm up, mark, call, mark, for each of the engine's calls."""
    marked = ctypes.CDLL(marks)
    for call in {"ours": ours, "onnxruntime": onnxruntime}[engine](*arguments):
        call()
        call()
        marked.mark_begin()
        call()
        marked.mark_end()
    print(engine, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

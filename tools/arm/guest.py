"""One frame between two marks; runs in an arm64 Python under ``qemu-aarch64``.

    guest.py MARKS ours ARTIFACT VARIANT K [TOKENS]
    guest.py MARKS onnxruntime MODEL SIDE

Everything is called twice before the call that is counted. Prints the name of what answered.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def ours(artifact: str, variant: str, k: str, tokens: str = "1") -> Callable[[], Any]:
    """``Localizer.describe`` of a frame of the model's own size."""
    from tatvpr_edge.runtime import Localizer

    localizer = Localizer(artifact, k=float(k), tokens=float(tokens), kernels=variant)
    side = localizer.artifact.manifest.model.image_size
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return lambda: localizer.describe(frame)


def onnxruntime(model: str, side: str) -> Callable[[], Any]:
    """The plain transformer of the same shape, one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, int(side), int(side)))
    feed = {"pixels": pixels.astype(np.float32)}
    return lambda: session.run(None, feed)


def main(marks: str, engine: str, *arguments: str) -> None:
    """Warm up, mark, call, mark."""
    marked = ctypes.CDLL(marks)
    call = {"ours": ours, "onnxruntime": onnxruntime}[engine](*arguments)
    call()
    call()
    marked.mark_begin()
    call()
    marked.mark_end()
    print(engine, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

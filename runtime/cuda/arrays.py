"""Frames that lie on the GPU: what has ``__cuda_array_interface__`` (pycuda, CuPy, torch, Numba).

Whether a frame shows anything and whether it has colour is looked at on the host, so that a frame
is copied there once; a Jetson's GPU and CPU share their memory.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.cuda.driver import Driver, open_driver
from tatvpr_edge.spec.errors import FrameError

_MOST_BYTES = 1 << 30
_DEFAULT_STREAM = 1  # CU_STREAM_LEGACY


def host_copy(array: Any) -> NDArray[Any]:
    """The elements of ``array`` in host memory, once what writes them is done.

    Args:
        array: has ``__cuda_array_interface__``, whose stream is waited for; the default one where
            it names none (torch's says nothing of streams).

    Raises:
        FrameError: it is no plain array of a frame's size.
        ToolError: no CUDA driver, or no Python package that reaches it.
    """
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    no_frame = FrameError(f"a frame on the GPU of shape {shape}: expected [height, width, 3]")
    strides = interface.get("strides")
    if not shape or 0 in shape:
        raise no_frame
    if strides is None:
        strides = tuple(np.cumprod((dtype.itemsize, *shape[:0:-1]))[::-1].tolist())
    span = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + dtype.itemsize
    if interface.get("mask") is not None or min(strides, default=1) < 0 or dtype.hasobject:
        raise FrameError("a frame on the GPU is masked or runs backwards in memory: copy it first")
    if span > _MOST_BYTES:
        raise no_frame
    data = np.empty(span, np.uint8)
    stream = interface.get("stream")
    with _driver(os.getpid()) as driver:
        driver.wait_for(_DEFAULT_STREAM if stream is None else stream)
        driver.download(data, interface["data"][0])
        driver.synchronise()
    return np.ndarray(shape, dtype, data, strides=strides)


@functools.lru_cache(maxsize=1)
def _driver(process: int) -> Driver:
    """One for all frames; a context does not survive a fork."""
    return open_driver()

"""The service in a process of its own, and what its tests ask it with."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tatvpr_edge.runtime import messages
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

#: A frame uint8 [40, 56, 3].
FRAME = np.random.default_rng(5).integers(0, 256, (40, 56, 3)).astype(np.uint8)


@contextlib.contextmanager
def serving(path: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``serve`` in a process of its own, ready, ended by its pid."""
    with subprocess.Popen(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--socket", str(path), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=path.parent,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(b"serving "), process.stderr.read()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def make_map(path: Path, model_hash: str, descriptors: Any) -> Path:
    """A map of descriptors made at k = 0.2."""
    info = MapInfo(model_hash, "int8", descriptors.shape[1], (Band(0.2),), "local")
    tags = [f"place {i}" for i in range(len(descriptors))]
    poses = np.full((len(descriptors), 7), np.nan)
    poses[:, 0] = np.arange(len(descriptors))
    write_map(path, info, [make_places(info, [descriptors], poses, tags)])
    return path


def connected(path: Path) -> socket.socket:
    """A client that has connected and says nothing."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with messages.short_path(str(path)) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection

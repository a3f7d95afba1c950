"""What a Localizer costs in memory, beside NumPy, on a board that runs nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tatvpr_edge
from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.tvm.lower import lower
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

#: Highest resident size of a fresh process, in kB, after NumPy and after queries.
PROGRAM = """
import sys, warnings
import numpy as np
def peak_kb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
before = peak_kb()
warnings.simplefilter("ignore")
from tatvpr_edge.runtime import Localizer
with Localizer(sys.argv[1], map=sys.argv[2]) as localizer:
    for k in (1.0, 0.6, 0.2):
        localizer.k = k
        localizer.query(frame)
print(peak_kb() - before)
"""


@pytest.mark.slow
def test_small_stays_within_its_bytes(
    build_cache: Path, tmp_path: Path, project_root: Path
) -> None:
    """Weights of at most 6.0 MB, and at most 64 MB resident above NumPy's."""
    require_tool("gcc", "gcc")
    from tatvpr_edge.models.export import export_onnx

    onnx_file = export_onnx("small", tmp_path / "small.onnx")
    remember_drift_of_two_frames(onnx_file, tmp_path)
    built = tatvpr_edge.build("host", model=onnx_file, output=tmp_path / "artifact")
    assert len(read_artifact(built).read("weights.bin")) <= 6_000_000
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(built), str(map_of_1000_places(built, tmp_path))],
        capture_output=True, text=True, timeout=120, cwd=project_root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= 64_000


def map_of_1000_places(artifact: Path, folder: Path) -> Path:
    """Random descriptors: the search reads every row of whatever they are."""
    model = read_artifact(artifact).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    rows = np.random.default_rng(0).standard_normal((1000, model.descriptor_size))
    places = make_places(info, [rows.astype(np.float32)], None, [""] * 1000)
    write_map(folder / "random.placemap", info, [places])
    return folder / "random.placemap"


def remember_drift_of_two_frames(onnx_file: Path, folder: Path) -> None:
    """The bound for other builds plays no part here, and 200 frames of ``small`` take minutes."""
    lowered, host = lower(checked_graph(onnx_file), onnx_file.stem), load("host")
    libraries = [
        open_library(compile_linux(lowered, host, folder / name, flags), lowered)
        for name, flags in (("core", ()), ("permuted", ("-DTATVPR_PERMUTED",)))
    ]
    points = golden.points_within((0.05, 1.0), lowered.matched.keeps_tokens)
    drift = golden.measure_drift(*libraries, lowered.matched.image_size, points, frames=2)
    assert all(np.isfinite(point.smallest_cosine) for point in drift)
    golden.cache_drift(lowered.model_hash, drift)

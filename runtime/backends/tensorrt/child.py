"""What ``finish`` runs in children of its own, because TensorRT may be killed or may crash.

``identify ARTIFACT HASH``       print the machine
``build ARTIFACT HASH FOLDER``   compile the plugin where that can be, build the engines into FOLDER
``check ARTIFACT HASH FOLDER``   load them, run the kernels' and the artifact's golden cases

HASH names the manifest that the parent verified: another artifact at that place is refused. The
last line of standard output is one JSON document; an error is one line on standard error and
exit status 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.backends.tensorrt.cache import PLUGIN
from tatvpr_edge.runtime.backends.tensorrt.device import (
    Device,
    engine_file,
    load_pipeline,
    open_device,
)
from tatvpr_edge.runtime.backends.tensorrt.engine import TensorRt
from tatvpr_edge.runtime.backends.tensorrt.kernel_check import check_kernels
from tatvpr_edge.runtime.backends.tensorrt.machine import this_machine
from tatvpr_edge.runtime.backends.tensorrt.pipeline import Pipeline
from tatvpr_edge.runtime.backends.tensorrt.plugin_library import compile_plugin, find_headers
from tatvpr_edge.runtime.frame import CameraFrame, squashed
from tatvpr_edge.runtime.verify import check_backend
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.errors import ArtifactError, TatvprError, ToolError
from tatvpr_edge.spec.sealed import seal


def identify(device: Device) -> dict[str, Any]:
    """The machine, and how much memory the builder wants."""
    return {
        "machine": asdict(this_machine(device.driver)),
        "build_memory_bytes": device.recipe.build_memory_bytes,
    }


def build(artifact: Artifact, device: Device, folder: Path) -> dict[str, Any]:
    """Plugin and engines into ``folder``."""
    plugin, note = _plugin(artifact, device, folder)
    trt = TensorRt(device.kernels, plugin)
    sizes = {}
    for stage in device.recipe.stages:
        plan = trt.build(
            artifact.read(stage.path), stage, device.recipe, device.recipe.patch_embed.dim
        )
        _write(folder / engine_file(stage.name), plan)
        sizes[stage.name] = len(plan)
    return {"engines": sizes, "plugin": "c++" if plugin else "python", "note": note}


def _plugin(artifact: Artifact, device: Device, folder: Path) -> tuple[Path | None, str]:
    """The plugin compiled here, or None and why the Python one has to do."""
    try:
        headers = find_headers()
        sources = folder / "plugin"
        sources.mkdir()
        for member in device.recipe.plugin_sources:
            _write(sources / Path(member).name, artifact.read(member))
        for name, member in device.recipe.cubins_for(device.driver.version()).items():
            _write(sources / f"{name}.cubin", artifact.read(member))
        library = compile_plugin(sources, sources, folder / PLUGIN, headers)
    except ToolError as error:
        return None, f"Python plugins ({error})"
    finally:
        shutil.rmtree(folder / "plugin", ignore_errors=True)
    return library, "C++ plugins, compiled here"


def check(artifact: Artifact, device: Device, folder: Path) -> dict[str, Any]:
    """Load what :func:`build` made; kernels at level (a), descriptors at level (c).

    Raises:
        ArtifactError, ToolError: a result is wrong; it is named.
    """
    cases = check_kernels(device.driver, device.kernels)
    hashes: dict[str, str] = {}

    def read(name: str) -> bytes:
        data = (folder / name).read_bytes()
        hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    plugin = seal(PLUGIN, [read(PLUGIN)]) if (folder / PLUGIN).is_file() else None
    pipeline = load_pipeline(artifact, device, plugin, read)
    backend = _Bare(pipeline, artifact.manifest.model.image_size)
    points = artifact.manifest.golden.points
    if not points:
        raise ToolError("the artifact carries no golden vectors, so that no engine can be trusted")
    results = check_backend(artifact, backend, points)
    return {
        "kernel_cases": cases,
        "golden_points": len(results),
        "lowest_cosine": min(result.lowest_cosine for result in results),
        "cuda_graph": pipeline.recorded,
        "hashes": hashes,
    }


class _Bare:
    """A pipeline as a backend without a CPU library behind it: a fault must show."""

    name = "tensorrt"

    def __init__(self, pipeline: Pipeline, size: int) -> None:
        self._pipeline = pipeline
        self._size = size

    def describe(self, frame: CameraFrame, k: float, tokens: float) -> NDArray[np.float32]:
        return self._pipeline.run(squashed(frame, self._size).planes[0], k, tokens)

    def close(self) -> None:
        self._pipeline.close()


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())


def main(argv: list[str]) -> NoReturn:
    """Run one of the three and end the process: with status 0, or 1 and a line of error.

    Destructors of TensorRT and CUDA at the end of a process have crashed others: they are skipped,
    those of what an error holds as well, since the parent would tell the crash instead of it.
    """
    # If memory runs out all the same, the kernel takes this process and not the robot's others.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        artifact = read_artifact(argv[1])
        if artifact.hash != argv[2]:
            raise ArtifactError(f"{argv[1]} was exchanged after its signature was checked")
        device = open_device(artifact)
        with device.driver:
            if argv[0] == "identify":
                document = identify(device)
            else:
                document = {"build": build, "check": check}[argv[0]](
                    artifact, device, Path(argv[3])
                )
        print(json.dumps(document), flush=True)
        os._exit(0)
    except (TatvprError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

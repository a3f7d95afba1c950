"""From an artifact to loaded kernels and to a pipeline of loaded engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.runtime.backends.tensorrt.engine import TensorRt
from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.backends.tensorrt.pipeline import Pipeline
from tatvpr_edge.runtime.backends.tensorrt.recipe import Recipe, read_recipe
from tatvpr_edge.runtime.cuda.driver import Driver, open_driver
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError, ToolError
from tatvpr_edge.spec.sealed import Sealed


def engine_file(stage: str) -> str:
    """Name of a stage's engine in the cache."""
    return f"{stage}.engine"


@dataclass(frozen=True)
class Device:
    """A GPU with an artifact's kernels loaded."""

    driver: Driver
    kernels: Kernels
    recipe: Recipe


def open_device(artifact: Artifact, context: Any = None, stream: Any = None) -> Device:
    """The machine's GPU with the artifact's kernels.

    Args:
        context, stream: a caller's; see :func:`tatvpr_edge.runtime.cuda.driver.open_driver`.

    Raises:
        ToolError: no CUDA driver or GPU.
        ArtifactError: the artifact was not built for TensorRT, or for another GPU.
    """
    recipe = read_recipe(artifact)
    driver = open_driver(context=context, stream=stream)
    architecture = driver.architecture()
    if architecture != recipe.architecture:
        raise ArtifactError(
            f"{artifact.root} holds kernels for {recipe.architecture}, this GPU "
            f"({driver.device_name()}) is {architecture}: build it for this board"
        )
    members = recipe.cubins_for(driver.version())
    with driver:
        kernels = Kernels(driver, {name: artifact.read(path) for name, path in members.items()})
    return Device(driver, kernels, recipe)


def load_pipeline(
    artifact: Artifact, device: Device, plugin: Sealed | None, plan: Callable[[str], bytes | None]
) -> Pipeline:
    """The artifact's pipeline; ``plan(file name)`` gives the engines' bytes. Closes ``plugin``.

    The device's context has to be current on this thread, as for whatever the pipeline does.

    Raises:
        ToolError: TensorRT does not load an engine, or one is missing.
    """
    try:
        trt = TensorRt(device.kernels, None if plugin is None else plugin.loaded_as())
    finally:
        if plugin is not None:
            plugin.close()  # what was loaded stays
    engines = {}
    for stage in device.recipe.stages:
        data = plan(engine_file(stage.name))
        if data is None:
            raise ToolError(f"the engine of stage {stage.name} is missing or was altered")
        engines[stage.name] = trt.load(data, stage, device.recipe.patch_embed.dim)
    return Pipeline(
        device.driver,
        device.kernels,
        device.recipe,
        engines,
        artifact.read(device.recipe.patch_embed.path),
        artifact.manifest.model.descriptor_size,
        table=None if device.recipe.table is None else artifact.read(device.recipe.table),
    )

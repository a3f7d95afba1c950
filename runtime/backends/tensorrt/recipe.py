"""``tensorrt/recipe.json``: what the board has to do with the portable half of an artifact.

Written by ``compilers.tensorrt.build``, read by ``finish`` and by the backend. One schema, here.
The artifact's reader has already checked the size and SHA-256 of every file that it names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.text import parse_json

RECIPE = "tensorrt/recipe.json"
BACKEND = "tensorrt"
RECIPE_VERSION = 1
#: Names of the stages of a model with none, one or two KeepTokens, which stand between them.
STAGES = (("whole",), ("front", "back"), ("front", "middle", "back"))
#: IPluginV3 as we use it exists from 10.3; beyond 11 the interface is unknown.
OLDEST_TENSORRT, NEWEST_MAJOR = (10, 3), 11


@dataclass(frozen=True)
class StageRecipe:
    """One engine. ``rows``: the input whose first axis is 2..max_tokens, or None; ``table``: the
    one that takes what is left of the recipe's table, or None."""

    name: str
    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: str | None = None
    table: str | None = None


@dataclass(frozen=True)
class PatchRecipe:
    """Constants of the patch embedding: ``path`` holds W int8 [dim, patch * patch * 3], then
    scale and bias float32 [dim], little endian."""

    path: str
    side: int
    patch: int
    dim: int

    @property
    def count(self) -> int:
        """Patches in a frame."""
        return (self.side // self.patch) ** 2

    @property
    def row_bytes(self) -> int:
        """Bytes of one patch, and of one row of W."""
        return self.patch * self.patch * 3


@dataclass(frozen=True)
class Recipe:
    """The whole recipe. Paths are members of the artifact.

    ``cubins``: CUDA major version ("12") -> source name -> member. ``build_memory_bytes`` is an
    estimate of what the builder needs free; ``workspace_bytes`` caps TensorRT's workspace pool.
    ``table``: float32 [max_tokens, 1], little endian, whose rows leave with the tokens; a model
    without one has none.
    """

    architecture: str
    stages: tuple[StageRecipe, ...]
    patch_embed: PatchRecipe
    max_tokens: int
    plugin_sources: tuple[str, ...]
    cubins: dict[str, dict[str, str]]
    workspace_bytes: int
    build_memory_bytes: int
    table: str | None = None

    def to_json(self) -> bytes:
        """Canonical bytes of ``recipe.json``."""
        values = {"recipe_version": RECIPE_VERSION, **asdict(self)}
        return json.dumps(values, sort_keys=True, indent=1).encode("ascii") + b"\n"

    def cubins_for(self, cuda: str) -> dict[str, str]:
        """The newest cubins that a driver speaking CUDA ``cuda`` ("12.6") loads.

        Raises:
            ArtifactError: the driver is older than every cubin.
        """
        major = int(cuda.split(".")[0])
        usable = [number for number in map(int, self.cubins) if number <= major]
        if not usable:
            oldest = min(map(int, self.cubins))
            raise ArtifactError(
                f"the artifact's kernels need CUDA {oldest} or newer, this driver speaks {cuda}: "
                "update JetPack"
            )
        return self.cubins[str(max(usable))]


def read_recipe(artifact: Artifact) -> Recipe:
    """The recipe of an artifact that was built with ``--backend tensorrt``.

    Raises:
        ArtifactError: there is none, or it is malformed or newer than this runtime.
    """
    entry = artifact.manifest.backends.get(BACKEND)
    if not isinstance(entry, dict) or not isinstance(entry.get("recipe"), str):
        raise ArtifactError(
            f"{artifact.root} was not built for TensorRT: build it with --backend tensorrt"
        )
    try:
        values = parse_json(artifact.read(entry["recipe"]))
        version = values.pop("recipe_version")
        if version > RECIPE_VERSION:
            raise ArtifactError(
                f"recipe version {version} is newer than this runtime's {RECIPE_VERSION}: "
                "update tatvpr-edge"
            )
        recipe = _from_values(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{artifact.root}: {entry['recipe']} is malformed ({error!r}): build the artifact again"
        ) from None
    for member in _members(recipe):
        artifact.manifest.file(member)
    return recipe


def _from_values(values: dict[str, Any]) -> Recipe:
    stages = tuple(
        StageRecipe(
            name=str(stage["name"]),
            path=str(stage["path"]),
            inputs=tuple(map(str, stage["inputs"])),
            outputs=tuple(map(str, stage["outputs"])),
            rows=stage["rows"],
            table=stage.get("table"),
        )
        for stage in values["stages"]
    )
    embed = values["patch_embed"]
    recipe = Recipe(
        architecture=str(values["architecture"]),
        stages=stages,
        patch_embed=PatchRecipe(
            str(embed["path"]), *(int(embed[name]) for name in ("side", "patch", "dim"))
        ),
        max_tokens=int(values["max_tokens"]),
        plugin_sources=tuple(map(str, values["plugin_sources"])),
        cubins={
            str(int(major)): {str(k): str(v) for k, v in table.items()}
            for major, table in values["cubins"].items()
        },
        workspace_bytes=int(values["workspace_bytes"]),
        build_memory_bytes=int(values["build_memory_bytes"]),
        table=None if values.get("table") is None else str(values["table"]),
    )
    names = tuple(stage.name for stage in stages)
    if names not in STAGES or not recipe.cubins:
        raise ValueError(f"stages {names}")
    for stage in stages:
        taken = {stage.rows, stage.table} - {None}
        if not taken <= set(stage.inputs) or (stage.table is not None and recipe.table is None):
            raise ValueError(f"stage {stage.name} takes what is not there")
    return recipe


def _members(recipe: Recipe) -> list[str]:
    return [
        *(stage.path for stage in recipe.stages),
        recipe.patch_embed.path,
        *([] if recipe.table is None else [recipe.table]),
        *recipe.plugin_sources,
        *(path for table in recipe.cubins.values() for path in table.values()),
    ]

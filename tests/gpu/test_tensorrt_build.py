"""``build --board jetson-* --backend tensorrt`` on a host without a GPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.tiny_model import DIM, PATCH, SIDE, TOKENS, tiny_model
from support.tools import require_tool
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers.build import build_artifact, plan_artifact
from tatvpr_edge.compilers.checks import check_model, checked_graph
from tatvpr_edge.compilers.report import BuildPlan
from tatvpr_edge.compilers.tensorrt import cubins
from tatvpr_edge.compilers.tensorrt.build import add_tensorrt, board_steps, check_limits
from tatvpr_edge.compilers.tensorrt.graph import KEPT_TOKENS
from tatvpr_edge.models.export import bodies
from tatvpr_edge.runtime.backends.tensorrt.recipe import RECIPE, read_recipe
from tatvpr_edge.runtime.verify import verify_artifact
from tatvpr_edge.spec.artifact import read_artifact, write_artifact
from tatvpr_edge.spec.errors import ArtifactError, ModelError, ToolError, UsageError


@pytest.mark.slow
def test_the_artifact_is_complete_and_verifies(
    own_cache: None, tiny_file: Path, tmp_path: Path
) -> None:
    require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    model = tmp_path / "tiny.onnx"
    shutil.copyfile(tiny_file, model)

    def train_on(what: str, done: int, of: int) -> None:
        """The file is another model from now on: all of the artifact is of the one that was."""
        if what == "lowering with TVM":
            onnx.save(tiny_model(seed=1, functions=bodies.bodies(TOKENS)), model)

    made = build_artifact(
        "jetson-orin-nano",
        model=model,
        backend="tensorrt",
        output=tmp_path / "orin",
        progress=train_on,
    )
    assert isinstance(made, Path)
    verified = verify_artifact(made, board="jetson-orin-nano")
    assert verified.golden_note == "not run (aarch64)"
    artifact = read_artifact(made)
    recipe = read_recipe(artifact)
    assert recipe.architecture == "sm_87"
    assert sorted(recipe.cubins) == ["12", "13"]
    for table in recipe.cubins.values():
        assert all(artifact.read(path)[:4] == b"\x7fELF" for path in table.values())
    assert recipe.cubins_for("12.6") == recipe.cubins["12"]
    assert recipe.cubins_for("13.2") == recipe.cubins["13"]
    with pytest.raises(ArtifactError, match="CUDA 12 or newer"):
        recipe.cubins_for("11.4")
    assert [stage.name for stage in recipe.stages] == ["front", "back"]
    for stage in recipe.stages:
        onnx.load_model_from_string(artifact.read(stage.path))
    assert recipe.max_tokens == TOKENS and recipe.stages[1].rows == KEPT_TOKENS
    names = {Path(path).name for path in recipe.plugin_sources}
    assert names == {"plugins.cpp", "launch.cpp", "launch.h", "cubins.S", "names.h"}
    assert artifact.read("lib/libtatvpr_model.so")[18] == 183, "the CPU library is aarch64's"

    embed = recipe.patch_embed
    assert (embed.side, embed.patch, embed.dim) == (SIDE, PATCH, DIM)
    constants = artifact.read(embed.path)
    weights = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tiny_file).graph.initializer
    }
    assert constants.startswith(weights["patch_embed.weight"].tobytes())
    assert constants.endswith(weights["patch_embed.bias"].astype("<f4").tobytes())


def test_the_portable_half_is_reproducible(gpu_artifact: Path, tiny_file: Path) -> None:
    cpu = read_artifact(gpu_artifact.parent / "cpu")
    graph = checked_graph(tiny_file)
    _, members = add_tensorrt(load_board("jetson-orin-nano"), graph, cpu.manifest, {})
    artifact = read_artifact(gpu_artifact)
    for path, content in members.items():
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        assert artifact.read(path) == data, path


def test_dry_run_says_what_is_left_for_the_board_and_what_memory_it_takes(tiny_file: Path) -> None:
    plan = plan_artifact("jetson-thor", model=tiny_file, backend="tensorrt")
    assert isinstance(plan, BuildPlan)
    text = "\n".join(plan.lines())
    for said in (
        "python -m tatvpr_edge.runtime finish",
        "TensorRT 10.13",
        "'front' and 'back'",
        "MB of free RAM",
        "CUDA 13 run-time compiler: NVRTC 13",
    ):
        assert said in text
    assert "CUDA 12" not in text, "Thor's kernels need CUDA 13"
    assert len(plan.to_dict()["board_steps"]) == 5
    cpu = plan_artifact("jetson-thor", model=tiny_file)
    assert isinstance(cpu, BuildPlan) and cpu.board_steps == ()


def test_a_board_without_a_gpu_is_refused(tiny_file: Path) -> None:
    with pytest.raises(UsageError, match="raspberry-pi-5 has no GPU"):
        plan_artifact("raspberry-pi-5", model=tiny_file, backend="tensorrt")


def test_a_missing_compiler_is_told_before_anything_is_compiled(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cubins.PACKAGES, 12, "no-such-package-of-nvidia")
    cubins._library.cache_clear()
    cubins.nvrtc_version.cache_clear()
    steps: list[str] = []
    with pytest.raises(ToolError, match="the CUDA 12 run-time compiler is not installed: pip"):
        build_artifact(
            "jetson-orin-nano",
            model=tiny_file,
            backend="tensorrt",
            output=tmp_path / "orin",
            progress=lambda step, *_: steps.append(step),
        )
    assert steps == ["checking the model"] and not (tmp_path / "orin").exists()


def test_what_the_kernels_do_not_take_is_refused_by_name(tmp_path: Path) -> None:
    board, path = load_board("jetson-orin-nano"), tmp_path / "model.onnx"
    onnx.save(tiny_model(group=24, functions=bodies.bodies(TOKENS)), path)
    with pytest.raises(ModelError, match=r"qkv.*group 24 is above 16.*--backend tvm"):
        board_steps(board, checked_graph(path))


def test_a_patch_that_no_block_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board's finish failed at the first frame."""
    monkeypatch.setattr("support.tiny_model.PATCH", 132)
    monkeypatch.setattr("support.tiny_model.SIDE", 4 * 132)
    with pytest.raises(ModelError, match=r"'patch_embed': 52272 bytes a patch, .*--backend tvm"):
        check_limits(check_model(tiny_model()))


@pytest.mark.parametrize("damage", ["newer", "missing", "shape", "stranger", "table", "rows"])
def test_a_wrong_recipe_is_refused(gpu_artifact: Path, tmp_path: Path, damage: str) -> None:
    artifact = read_artifact(gpu_artifact)
    recipe = json.loads(artifact.read(RECIPE))
    if damage == "newer":
        recipe["recipe_version"] = 2
    elif damage == "missing":
        del recipe["patch_embed"]
    elif damage == "shape":
        recipe["stages"] = {"front": 1}
    elif damage == "table":  # of which the recipe has none
        recipe["stages"][1]["inputs"].append("kept_table")
        recipe["stages"][1]["table"] = "kept_table"
    elif damage == "rows":
        recipe["stages"][1]["rows"] = "left"
    else:
        recipe["stages"][0]["path"] = "tensorrt/stranger.onnx"
    members = {entry.path: artifact.path(entry.path) for entry in artifact.manifest.files}
    altered = {**members, RECIPE: json.dumps(recipe).encode()}
    copy = write_artifact(tmp_path / "copy", artifact.manifest, altered)
    said = {"newer": "newer", "stranger": "stranger"}.get(damage, "malformed")
    with pytest.raises(ArtifactError, match=said):
        read_recipe(copy)


def test_image_scope_and_a_head_of_its_own_k_run_as_stages(tmp_path: Path) -> None:
    """The head's matmul keeps its constant k; one stage where the model keeps all its tokens."""
    from support.stage_bodies import runnable
    from tatvpr_edge.compilers.tensorrt.graph import PATCHES, build_pipeline
    from tatvpr_edge.spec import reference

    original = tiny_model(keep_after=(), scope=1, group=4, functions=bodies.bodies(TOKENS))
    path = tmp_path / "model.onnx"
    onnx.save(original, path)
    pipeline = build_pipeline(checked_graph(path))
    (whole,) = pipeline.stages
    assert whole.name == "whole" and whole.dynamic is None
    import onnxruntime

    frame = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    k = np.asarray(0.4, np.float32)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    given = {"frame": frame, "k": k, "tokens": np.asarray(1.0, np.float32)}
    wanted = {i.name for i in session.get_inputs()}
    (expected,) = session.run(["descriptor"], {n: v for n, v in given.items() if n in wanted})
    patches = reference.patch_embed(
        frame, pipeline.patch_weight, pipeline.patch_scale, pipeline.patch_bias
    )
    stage = runnable(whole.model, original).SerializeToString()
    stage_session = onnxruntime.InferenceSession(stage, providers=providers)
    (made,) = stage_session.run(None, {PATCHES: patches, "k": k})
    assert float(made @ expected) > 0.999

"""Files that people hand to 'export' and 'build' by mistake: what each is, and what to do."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from tatvpr_edge.cli import main
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import save_state, save_weights
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.modelfiles import CONFIG_KEY, refuse_foreign

COMMANDS = {
    "export": (["export", "{}", "--output", "{}.made"], "a weights file"),
    "build": (["build", "--board", "host", "--model", "{}", "--output", "{}.made"], "an ONNX file"),
}


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def saved(value: object, **options: object) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, **options)  # type: ignore[arg-type]
    return made.getvalue()


def arrays() -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.zeros(2))
    return made.getvalue()


STATE = {"model": {"head.weight": torch.zeros(2, 2)}}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
FOREIGN: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "empty": (lambda: b"", ("is empty", "download it again")),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", ("web page", "download the file itself")),
    "LFS pointer": (lambda: POINTER, ("Git LFS pointer", "git lfs pull")),
    "checkpoint": (lambda: saved(STATE), ("PyTorch checkpoint", "weights.safetensors")),
    "old checkpoint": (
        lambda: saved(STATE, _use_new_zipfile_serialization=False),
        ("PyTorch checkpoint", "weights.safetensors"),
    ),
    "pickle": (lambda: pickle.dumps(["code"]), ("pickle", "run code", "never opened")),
    "TorchScript": (
        lambda: zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"),
        ("TorchScript", "teacher"),
    ),
    "arrays": (arrays, ("NumPy arrays", "teacher")),
    "archive": (lambda: zipped("micro.onnx"), ("ZIP archive", "unpack")),
    "weights of another project": (
        lambda: save({"blocks.0.qkv": torch.zeros(2)}),
        ("another project", "'blocks.0.qkv'", "teacher"),
    ),
}


def said(command: str, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    arguments, _ = COMMANDS[command]
    assert main([word.format(file) for word in arguments]) == 1
    line = capsys.readouterr().err.strip()
    assert not Path(f"{file}.made").exists()
    return line.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pth"])
def test_a_file_of_another_kind_is_named_with_the_remedy(
    command: str,
    kind: str,
    suffix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, words = FOREIGN[kind]
    file = tmp_path / f"mine{suffix}"
    file.write_bytes(make())
    line = said(command, file, capsys)
    for word in (file.name, COMMANDS[command][1], *words):
        assert word in line


@pytest.fixture
def own_weights(tmp_path: Path) -> Path:
    backbone = ViTConfig(image_px=32, patch=8, dim=24, depth=1, heads=3, keep_after=0)
    path = tmp_path / "weights.safetensors"
    save_weights(registry.create(ModelConfig("mine", backbone, HeadConfig("cls")), seed=0), path)
    return path


def test_weights_of_ours_are_to_be_exported_first(
    own_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said("build", own_weights, capsys)
    assert "weights file" in line and "tatvpr-edge export" in line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("depth", 1_000_000, "its depth is 1000000"), ("image_px", 1_000_000, "its tokens is")],
)
def test_a_file_that_claims_more_than_it_holds_costs_nothing(
    own_weights: Path, key: str, value: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A million blocks took minutes, a million pixels "there is not enough memory"."""
    with safe_open(own_weights, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(metadata[CONFIG_KEY])
    config["backbone"][key] = value
    own_weights.write_bytes(save(tensors, {**metadata, CONFIG_KEY: json.dumps(config)}))
    line = said("export", own_weights, capsys)
    assert "weights do not fit mine" in line and words in line


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_a_seed_that_torch_does_not_take_is_a_usage_error(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "nano", "--random", seed, "--output", str(tmp_path / "a.onnx")]) == 2
    assert "'--random'" in capsys.readouterr().err


def test_an_exported_file_is_to_be_built(
    own_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "mine.onnx"
    assert main(["export", str(own_weights), "--output", str(made)]) == 0
    capsys.readouterr()
    line = said("export", made, capsys)
    assert "exported already" in line and "build --model" in line


def test_a_training_state_points_to_the_weights_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(tmp_path / "state.pt", {"step": 3})
    assert "weights.safetensors" in said("export", tmp_path / "state.pt", capsys)


@pytest.mark.parametrize("opset", [17, 20])
def test_an_onnx_file_of_another_project_is_not_told_to_change_its_opset(
    opset: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "stock", value[:1], value[1:]
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(
        graph, opset_imports=opsets, ir_version=8, producer_name="pytorch", producer_version="2.9"
    )
    onnx.save(model, tmp_path / "stock.onnx")
    line = said("build", tmp_path / "stock.onnx", capsys)
    assert "not a ternary place model" in line and "'pytorch 2.9'" in line and "teacher" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder" in said(command, tmp_path, capsys)


@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"<html", b"version https://"]),
    rest=st.binary(max_size=80),
)
def test_any_bytes_are_told_or_left_to_the_reader(
    start: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("bytes") / "any.onnx"
    file.write_bytes(start + rest)
    try:
        refuse_foreign(file, "an ONNX file")
    except ModelError as error:
        assert "\n" not in str(error)


def test_a_damaged_header_is_left_to_the_reader(tmp_path: Path) -> None:
    for header in (b"{not json}", json.dumps([1]).encode(), b"{" + b"[" * 100_000):
        file = tmp_path / "damaged.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        refuse_foreign(file, "a weights file")

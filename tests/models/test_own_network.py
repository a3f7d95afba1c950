"""examples/own_head.py: a torch network of our layers with a head of its user's own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from support.tools import require_tool
from tatvpr_edge.cli import main
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.golden import cosine, synthetic_frame
from tatvpr_edge.compilers.reference import Reference
from tatvpr_edge.models import registry
from tatvpr_edge.models.export import export_onnx
from tatvpr_edge.models.heads import HEADS, build_head
from tatvpr_edge.models.nn.config import HeadConfig
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ModelError


def test_the_example_runs_as_it_stands_and_says_random(project_root: Path, tmp_path: Path) -> None:
    made = tmp_path / "mine.onnx"
    script = project_root / "examples" / "own_head.py"
    done = subprocess.run(
        [sys.executable, str(script), str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(made)
    nowhere = [sys.executable, str(script), str(tmp_path / "nowhere" / "mine.onnx")]
    refused = subprocess.run(nowhere, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("error: ")
    graph = checked_graph(made)
    assert graph.metadata["tatvpr.weights"] == "random"
    assert graph.metadata["tatvpr.head"] == "meanhead"


def test_what_is_exported_is_what_torch_computes(project_root: Path, tmp_path: Path) -> None:
    model = runpy.run_path(str(project_root / "examples" / "own_head.py"))["network"]()
    model.trained = True
    path = export_onnx(model, tmp_path / "mine.onnx")
    graph = checked_graph(path)
    assert graph.metadata["tatvpr.weights"] == "trained"
    frame = synthetic_frame(0, 64, 64)
    wanted = Reference(onnx.load(path), graph).run(frame, 1.0, 1.0)["descriptor"]
    with torch.no_grad():
        got = model(torch.from_numpy(frame)[None], 1.0)[0].numpy()
    assert got.shape == wanted.shape == (128,)
    assert cosine(got, wanted) > 0.999
    assert np.abs(np.linalg.norm(wanted) - 1) < 1e-5


@pytest.mark.slow
def test_it_builds(project_root: Path, tmp_path: Path) -> None:
    require_tool("gcc", "gcc")
    model = runpy.run_path(str(project_root / "examples" / "own_head.py"))["network"]()
    path = export_onnx(model, tmp_path / "mine.onnx")
    made = tmp_path / "made"
    command = ["build", "--board", "host", "--model", str(path), "--output", str(made)]
    assert main([*command, "--k-range", "1:1"]) == 0
    entry = read_artifact(made).manifest.model
    assert (entry.head, entry.descriptor_size, entry.weights) == ("meanhead", 128, "random")


#: As a newcomer writes one: annotations are types here, not their text.
PLAIN_HEAD = """
from torch import nn


class Plain(nn.Identity):
    def __init__(self, backbone, share: float = 0.5, rows: int = 2, kind: str = "max", bias=None):
        super().__init__()
"""


def test_options_of_a_head_of_ones_own_may_be_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(PLAIN_HEAD, names)
    monkeypatch.setitem(HEADS, "plain", names["Plain"])
    backbone = registry.config("nano").backbone
    for options in ({"share": 0.25}, {"kind": "mean"}, {"bias": None}, {"rows": 3}):
        assert build_head(HeadConfig("plain", options), backbone) is not None
    with pytest.raises(ModelError, match=r"rows is 0\.5: it is a whole number from 1 up"):
        build_head(HeadConfig("plain", {"rows": 0.5}), backbone)
    with pytest.raises(ModelError, match="share is 'x': it is a number"):
        build_head(HeadConfig("plain", {"share": "x"}), backbone)

"""The recipe of CONTRIBUTING.md, done on a copy of the tree: a head is one file and one row."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import require_tool

#: The largest of every channel over the patches that are left, projected.
FILE = """\
from __future__ import annotations

from tatvpr_edge.models.heads.pooling import projection, write_projected
from tatvpr_edge.models.nn.exact import unit_length
from torch import nn


class MaxHead(nn.Module):
    def __init__(self, backbone, project=None):
        super().__init__()
        self.proj = projection(backbone, project, backbone.row_scales)
        self.size = project or backbone.dim

    @staticmethod
    def macs(backbone, tokens, project=None):
        return backbone.dim * (project or 0)

    def readers(self):
        return [] if self.proj is None else [self.proj]

    def forward(self, tokens, gate):
        x = tokens[:, 1:].amax(dim=1, keepdim=True)
        if self.proj is not None:
            x = self.proj(x, gate)
        return unit_length(x[:, 0], self.training)

    def write(self, graph, tokens):
        patches = graph.slice(tokens, "head.patches", 1, 0)
        largest = graph.add("ReduceMax", [patches, graph.axes(0)], "head.max", keepdims=1)
        return write_projected(graph, largest, [] if self.proj is None else [self.proj])
"""
REGISTRY = "models/heads/__init__.py"
IMPORT = "from tatvpr_edge.models.heads.mixvpr import MixVPRHead\n"
ROW = '    "mixvpr": MixVPRHead,\n'

#: Run with the copy's own package: export, build for two boards, compare with torch.
CHECK = """\
import dataclasses
import sys
from pathlib import Path
import numpy as np
import torch
import tatvpr_edge
from tatvpr_edge.models import registry
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.models.export import export_onnx
from tatvpr_edge.models.nn.config import HeadConfig
from tatvpr_edge.compilers.golden import cosine, synthetic_frame
tree, work = Path(sys.argv[1]), Path(sys.argv[2])
assert tree in Path(tatvpr_edge.__file__).parents, tatvpr_edge.__file__
assert "micro-max" in registry.names()
config = registry.config("micro-max", image_px=64, dim=64, depth=2, heads=2, keep_after=(1,))
config = dataclasses.replace(config, head=HeadConfig("max", {"project": 96}))
model = registry.create(config, seed=1).eval()
onnx_file = export_onnx(model, work / "max.onnx")
for board in ("host", "stm32h7"):
    tatvpr_edge.build(board, model=onnx_file, output=work / board)
assert (work / "stm32h7" / "lib" / "libtatvpr_model.a").is_file()
localizer = Localizer(work / "host", k=1.0)
for tokens in (1.0, 0.5):
    localizer.tokens = tokens
    frame = synthetic_frame(7, 64, 64)
    with torch.no_grad():
        wanted = model(torch.from_numpy(frame)[None], k=1.0, tokens=tokens)[0].numpy()
    got = localizer.describe(frame)
    assert got.shape == (96,) and cosine(got, wanted) > 0.999, (tokens, cosine(got, wanted))
"""


@pytest.mark.slow
def test_a_head_is_one_file_and_one_row(tmp_path: Path, project_root: Path) -> None:
    """A max-pool over patches, behind token dropping: exported, built for Linux and Cortex-M7."""
    require_tool("gcc", "gcc")
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "zoo", "*.jpg")
    for folder in ("tatvpr_edge", "runtime", "compilers", "boards", "models"):
        shutil.copytree(project_root / folder, tree / folder, symlinks=True, ignore=ignored)
    (tree / "models" / "heads" / "maximum.py").write_text(FILE)
    registry = tree / REGISTRY
    text = registry.read_text()
    assert text.count(IMPORT) == text.count(ROW) == 1
    text = text.replace(IMPORT, f"from tatvpr_edge.models.heads.maximum import MaxHead\n{IMPORT}")
    registry.write_text(text.replace(ROW, f'    "max": MaxHead,\n{ROW}'))
    program = f"import sys; sys.path[:0] = [{str(tree)!r}]\n{CHECK}"
    command = [sys.executable, "-c", program, str(tree), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree)
    assert done.returncode == 0, done.stderr

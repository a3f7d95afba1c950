"""A network of your own: our ternary backbone, your head, one ONNX file that every board can build.

    python examples/own_head.py mine.onnx
    tatvpr-edge build --board raspberry-pi-5 --model mine.onnx

A head is a torch module with ``size`` and two methods: what it computes, and the same in ONNX.
Every build compares the compiled head with ONNX Runtime on the same file.
"""

from __future__ import annotations

import argparse
import sys

try:
    import torch
except ImportError:
    sys.exit("error: a network needs torch: pip install 'tatvpr-edge[train]'")

from tatvpr_edge.models.export import export_onnx
from tatvpr_edge.models.export.graph import Graph
from tatvpr_edge.models.nn.config import HeadConfig, ModelConfig, ViTConfig
from tatvpr_edge.models.nn.layers import Gate
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import TatvprError


class MeanHead(torch.nn.Module):
    """The mean of all tokens, through a dense layer, at unit length."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.size, self.fc = size, torch.nn.Linear(dim, size)

    def forward(self, tokens: torch.Tensor, gate: Gate) -> torch.Tensor:
        return torch.nn.functional.normalize(self.fc(tokens.mean(1)), dim=-1)

    def write(self, graph: Graph, tokens: str) -> str:
        mean = graph.add("ReduceMean", [tokens, graph.axes(0)], "head.mean", keepdims=1)
        return graph.descriptor(graph.linear(mean, "head.fc", self.fc))


def network() -> PlaceModel:
    """Untrained: train it in your own loop, then say ``model.trained = True``."""
    backbone = ViTConfig(image_px=64, patch=16, dim=96, depth=2, heads=3, keep_after=0)
    model = PlaceModel(ModelConfig("mine", backbone, HeadConfig("cls")))
    model.head = MeanHead(backbone.dim, 128)
    return model.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", help="the ONNX file")
    output = parser.parse_args().output
    try:
        print(export_onnx(network(), output))
    except (TatvprError, OSError) as error:
        sys.exit(f"error: {error}")

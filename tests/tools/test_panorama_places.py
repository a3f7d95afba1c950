"""tools/panorama_places.py: what a camera at a spot sees, at every heading."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tatvpr_edge.models.data.formats import labelled

tool = importlib.import_module("panorama_places")


def compass(rows: int = 90) -> np.ndarray:
    """A panorama whose red is the heading and whose green is the height above the horizon."""
    heading = np.linspace(-180, 180, 2 * rows, endpoint=False) + 90 / rows
    elevation = 90 - (np.arange(rows) + 0.5) * 180 / rows
    red = np.broadcast_to((heading + 180) / 360 * 255, (rows, 2 * rows))
    green = np.broadcast_to(((elevation + 90) / 180 * 255)[:, None], (rows, 2 * rows))
    return np.rint(np.stack([red, green, np.zeros_like(red)], 2)).astype(np.uint8)


@pytest.mark.parametrize("heading", [-90, 0, 40, 135])
def test_the_centre_of_a_view_is_its_heading_and_edges_are_half_the_field_of_view_away(
    heading: int,
) -> None:
    view = np.asarray(
        tool.look(compass(), (64, 64), math.radians(60), (math.radians(heading), 0, 0))
    )
    degrees = view[32, :, 0] / 255 * 360 - 180
    assert degrees[31:33].mean() == pytest.approx(heading, abs=2)
    assert degrees[-1] - degrees[0] == pytest.approx(60, abs=3)
    elevation = view[:, 32, 1] / 255 * 180 - 90
    assert elevation[31:33].mean() == pytest.approx(0, abs=2)
    assert elevation[0] - elevation[-1] == pytest.approx(60, abs=3)


def test_a_view_across_the_seam_has_no_edge() -> None:
    rows = 90
    smooth = np.cos(np.linspace(0, 2 * np.pi, 2 * rows, endpoint=False))
    panorama = np.repeat(np.rint(127 + 100 * smooth)[None, :, None], rows, 0).repeat(3, 2)
    view = tool.look(panorama.astype(np.uint8), (64, 64), math.radians(70), (math.pi, 0, 0))
    assert np.abs(np.diff(np.asarray(view, np.int64)[32, :, 0])).max() <= 6


def test_every_heading_is_a_place_the_trainer_reads(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(compass()).save(tmp_path / "in" / "a.png")
    arguments = ["--panoramas", str(tmp_path / "in"), "--headings", "3", "--views", "2"]
    arguments += ["--size", "32x32"]
    assert tool.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    places = labelled(tmp_path / "out")
    assert [len(members) for members in places.places] == [2, 2, 2]
    assert tool.main([*arguments, "--output", str(tmp_path / "again")]) == 0
    for path in places.paths:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_photograph_is_no_panorama(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "in" / "a.png")
    output = tmp_path / "out"
    assert tool.main(["--panoramas", str(tmp_path / "in"), "--output", str(output)]) == 1
    assert "a.png: 64 x 48 is no equirectangular panorama" in capsys.readouterr().err
    assert not output.exists()

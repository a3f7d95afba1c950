"""Places of OpenArena's maps: where there is air, where one can stand, and, where the game is
installed, frames of them."""

from __future__ import annotations

import csv
import math
import struct
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

import render_arena  # noqa: E402
from rendering.arena import EYE, GAME, PACKS, ArenaView, draw, packed_maps  # noqa: E402
from rendering.bsp import Bsp  # noqa: E402

from tatvpr_edge.spec.errors import DataError  # noqa: E402

SIDE, HEIGHT = 1024.0, 256.0
SOLID, SKY = 1, 4
#: A room of six walls, the ceiling of sky, and a pillar in its middle: boxes of (low, high, sky).
BOXES = [
    ((-64, -64, -64), (SIDE + 64, SIDE + 64, 0), False),
    ((-64, -64, HEIGHT), (SIDE + 64, SIDE + 64, HEIGHT + 64), True),
    ((-64, -64, 0), (0, SIDE + 64, HEIGHT), False),
    ((SIDE, -64, 0), (SIDE + 64, SIDE + 64, HEIGHT), False),
    ((0, -64, 0), (SIDE, 0, HEIGHT), False),
    ((0, SIDE, 0), (SIDE, SIDE + 64, HEIGHT), False),
    ((480, 480, 0), (544, 544, HEIGHT), False),
]
THINGS = """{ "classname" "worldspawn" }
{ "classname" "info_player_deathmatch" "origin" "100 100 24" }
{ "classname" "item_health" "origin" "800 300 24" }
{ "classname" "light" "origin" "500 500 200" }
"""


def room() -> bytes:
    """The bytes of a map of two leaves, that are split at x = 512, and list every box."""
    planes, sides, brushes = [(1.0, 0.0, 0.0, 512.0)], [], []
    for low, high, sky in BOXES:
        first = len(sides)
        for axis in range(3):
            for sign, limit in ((1.0, high[axis]), (-1.0, -low[axis])):
                normal = [0.0, 0.0, 0.0]
                normal[axis] = sign
                sides.append((len(planes), int(sky)))
                planes.append((*normal, float(limit)))
        brushes.append((first, 6, int(sky)))
    every = range(len(BOXES))
    textures = [(0, SOLID), (SKY, 0)]
    lumps = {
        0: THINGS.encode() + b"\0",
        1: b"".join(struct.pack("<64sii", b"t", *t) for t in textures),
        2: b"".join(struct.pack("<4f", *p) for p in planes),
        3: struct.pack("<9i", 0, -1, -2, *[0] * 6),
        4: b"".join(struct.pack("<12i", 0, 0, *[0] * 8, 0, len(BOXES)) for _ in range(2)),
        6: b"".join(struct.pack("<i", b) for b in every),
        8: b"".join(struct.pack("<3i", *b) for b in brushes),
        9: b"".join(struct.pack("<2i", *s) for s in sides),
    }
    head, body, at = b"IBSP" + struct.pack("<i", 46), b"", 8 + 17 * 8
    for number in range(17):
        data = lumps.get(number, b"")
        head += struct.pack("<ii", at + len(body), len(data))
        body += data
    return head + body


class TestARoom:
    def test_walls_and_air(self) -> None:
        bsp = Bsp(room())
        assert not bsp.solid((10, 10, 10)) and bsp.solid((-10, 10, 10))
        assert bsp.solid((500, 500, 100)) and not bsp.solid((470, 500, 100))
        assert bsp.free_distance((100, 500, 50), 0, 2000) == pytest.approx(380, abs=8)
        assert bsp.free_distance((100, 100, 50), 0, 2000) == pytest.approx(924, abs=8)
        assert bsp.free_distance((100, 100, 50), 0, 300) == 300
        assert bsp.floor_below((100, 100, 50), 160) == pytest.approx(0, abs=8)
        assert bsp.floor_below((100, 100, 200), 160) is None
        assert bsp.reaches((100, 100, 50), (900, 100, 50))
        assert not bsp.reaches((100, 512, 50), (900, 512, 50))

    def test_sky_is_what_a_brush_says(self) -> None:
        assert Bsp(room()).under_sky((100, 100, 50))
        closed = room().replace(
            struct.pack("<64sii", b"t", SKY, 0), struct.pack("<64sii", b"t", 0, 1)
        )
        assert not Bsp(closed).under_sky((100, 100, 50))

    def test_things_with_an_origin(self) -> None:
        found = {thing.kind: thing.origin for thing in Bsp(room()).things()}
        assert found["item_health"] == (800.0, 300.0, 24.0) and "worldspawn" not in found

    def test_places_stand_on_the_floor_look_into_the_open_and_are_unlike(self) -> None:
        bsp = Bsp(room())
        found = render_arena.find_places(bsp, np.random.default_rng(1), 8, sky=True)
        assert len(found) == 8
        for number, (eyes, heading) in enumerate(found):
            assert eyes[2] == pytest.approx(50, abs=8)
            assert bsp.free_distance(eyes, heading, 176) == 176 or render_arena.sees(
                bsp, eyes, heading
            )
            for other, turned in found[:number]:
                near = math.dist(eyes, other) < render_arena.APART
                apart = abs((heading - turned + 180) % 360 - 180)
                assert not near or apart >= render_arena.APART_DEG
            views = render_arena.beside(bsp, np.random.default_rng(number), eyes, heading, 4)
            assert views is not None and views[0] == (eyes, heading)
            for moved, turned in views:
                assert math.dist(moved, eyes) <= render_arena.RADIUS + 1e-9
                assert abs(turned - heading) <= render_arena.TURN_DEG

    @pytest.mark.parametrize("data", [b"", b"IBSP", b"IBSP" + struct.pack("<i", 47) + bytes(200)])
    def test_what_is_no_map_is_one_line(self, data: bytes) -> None:
        with pytest.raises(DataError, match=r"no Quake III map|damaged"):
            Bsp(data, "x")

    def test_a_cut_map_is_one_line(self) -> None:
        whole = room()
        for cut in range(100, len(whole), 333):
            try:
                Bsp(whole[:cut], "x").things()
            except DataError as error:
                assert "\n" not in str(error)


def test_without_the_game_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rendering.arena.PACKS", tmp_path)
    assert render_arena.main(["--maps", "all", "--output", str(tmp_path / "out")]) == 1
    assert "apt-get install openarena xvfb" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def need_the_game() -> None:
    if not (GAME.exists() and PACKS.is_dir()):
        pytest.skip("OpenArena is not installed (optional data for training: openarena xvfb)")


@pytest.mark.slow
def test_every_frame_is_of_its_own_view() -> None:
    """Drawn in another order, a view gives the same picture, but for what moves in the map."""
    need_the_game()
    bsp = Bsp(packed_maps()["aggressor"])
    views = {
        f"v{number}": ArenaView(x, y, z - EYE, heading)
        for number, ((x, y, z), heading) in enumerate(
            render_arena.find_places(bsp, np.random.default_rng(1), 4, sky=False)
        )
    }
    assert len(views) == 4
    first = draw("aggressor", views, (160, 120))
    again = draw("aggressor", dict(reversed(views.items())), (160, 120))
    for name in views:
        off = {
            other: float(np.abs(first[name].astype(int) - frame).mean())
            for other, frame in again.items()
        }
        others = [value for other, value in off.items() if other != name]
        assert 2 * off[name] < min(others), off  # items turn, light flickers


@pytest.mark.slow
def test_frames_of_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_the_game()
    words = ["--maps", "islanddm", "--places", "2", "--views", "2", "--split"]
    assert render_arena.main([*words, "--output", str(tmp_path / "out")]) == 0
    assert "2 places, 2 views of each" in capsys.readouterr().out
    with open(tmp_path / "out" / "queries" / "poses.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["place"] for row in rows] == ["islanddm-000", "islanddm-001"]
    assert all((tmp_path / "out" / "queries" / row["name"]).is_file() for row in rows)
    with pytest.raises(SystemExit):
        render_arena.main(["--maps"])
    assert render_arena.main(["--maps", "nowhere", "--output", str(tmp_path / "x")]) == 1
    assert "no map 'nowhere'" in capsys.readouterr().err

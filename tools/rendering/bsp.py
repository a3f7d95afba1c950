"""Quake III maps (IBSP 46): where there is air, how far a ray goes, what stands where.

Layout: the format as id Software's released source has it (qfiles.h); nodes split space by planes,
leaves hold brushes, a brush is solid where a point lies behind all of its planes. Curved surfaces
are not looked at: a picture says whether they are in the way.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import DataError

_ENTITIES, _TEXTURES, _PLANES, _NODES, _LEAFS = 0, 1, 2, 3, 4
_LEAF_BRUSHES, _BRUSHES, _BRUSH_SIDES = 6, 8, 9
_LUMPS = 17
_SOLID = 1 | 0x10000  # CONTENTS_SOLID, CONTENTS_PLAYERCLIP
_SKY = 4  # SURF_SKY
_HIGHEST = 8192.0  # that a sky may lie above
_STEP = 8.0  # units between the points of a ray that are looked at
_PAIR = re.compile(r'"([^"]*)"\s+"([^"]*)"')

Point = tuple[float, float, float]
_Plane = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """An entity that stands somewhere: an item, a place to begin."""

    kind: str
    origin: Point


class Bsp:
    """The solid parts of a map, from its bytes.

    Raises:
        DataError: it is no map of this format, or a part leaves the file.
    """

    def __init__(self, data: bytes, name: str = "the map") -> None:
        try:
            if data[:4] != b"IBSP" or struct.unpack_from("<i", data, 4)[0] != 46:
                raise DataError(f"{name} is no Quake III map (IBSP, version 46)")
            self._data = data
            self._lumps = [struct.unpack_from("<ii", data, 8 + 8 * i) for i in range(_LUMPS)]
            planes = self._table(_PLANES, "<f4", 4)
            self._planes = [(*map(float, row[:3]), float(row[3])) for row in planes]
            self._nodes = self._table(_NODES, "<i4", 9)[:, :3].tolist()
            self._leafs = self._table(_LEAFS, "<i4", 12)[:, [0, 10, 11]].tolist()
            self._leaf_brushes = self._table(_LEAF_BRUSHES, "<i4", 1)[:, 0].tolist()
            textures = self._table(_TEXTURES, "<i4", 18)[:, 16:].tolist()  # flags, contents
            sides = self._table(_BRUSH_SIDES, "<i4", 2).tolist()
            self._brushes: list[list[_Plane] | None] = []
            self._sky: list[bool] = []
            for first, count, texture in self._table(_BRUSHES, "<i4", 3).tolist():
                mine = sides[first : first + count]
                sky = any(textures[side[1]][0] & _SKY for side in mine)
                solid = sky or textures[texture][1] & _SOLID
                self._brushes.append([self._planes[side[0]] for side in mine] if solid else None)
                self._sky.append(sky)
        except (struct.error, ValueError, IndexError) as error:
            raise DataError(f"{name} is damaged: {error}") from None

    def _table(self, lump: int, kind: str, columns: int) -> NDArray[np.generic]:
        offset, size = self._lumps[lump]
        row = np.dtype(kind).itemsize * columns
        return np.frombuffer(self._data, kind, size // row * columns, offset).reshape(-1, columns)

    def things(self) -> list[Thing]:
        """Every entity with an origin, as the file lists them."""
        offset, size = self._lumps[_ENTITIES]
        text = self._data[offset : offset + size].decode("latin-1")
        found = []
        for block in re.findall(r"\{(.*?)\}", text, re.DOTALL):
            values = dict(_PAIR.findall(block))
            numbers = values.get("origin", "").split()
            if len(numbers) == 3:
                x, y, z = map(float, numbers)
                found.append(Thing(values.get("classname", ""), (x, y, z)))
        return found

    def solid(self, point: Point) -> bool:
        """Whether a point lies in a wall, or outside the map."""
        return self._at(point) is not None

    def under_sky(self, point: Point) -> bool:
        """Whether what is straight above a point is sky."""
        height = self._march(point, (0.0, 0.0, 1.0), _HIGHEST)
        brush = self._at((point[0], point[1], point[2] + height))
        return brush is not None and brush >= 0 and self._sky[brush]

    def _at(self, point: Point) -> int | None:
        """The brush that a point lies in, -1 outside the map, None in the air."""
        node = 0
        while node >= 0:
            plane, front, back = self._nodes[node]
            node = front if _above(self._planes[plane], point) >= 0 else back
        cluster, first, count = self._leafs[-node - 1]
        for index in self._leaf_brushes[first : first + count]:
            brush = self._brushes[index]
            if brush is not None and all(_above(plane, point) <= 0 for plane in brush):
                return int(index)
        return -1 if cluster < 0 else None

    def free_distance(self, start: Point, heading_deg: float, most: float) -> float:
        """How far a level ray goes before a wall, at most ``most``; in steps of 8 units."""
        dx, dy = math.cos(math.radians(heading_deg)), math.sin(math.radians(heading_deg))
        return self._march(start, (dx, dy, 0.0), most)

    def floor_below(self, start: Point, most: float) -> float | None:
        """The z of the floor below a point; None where it is deeper than ``most``."""
        depth = self._march(start, (0.0, 0.0, -1.0), most)
        return None if depth >= most else start[2] - depth

    def reaches(self, start: Point, end: Point) -> bool:
        """Whether the straight way between two points meets no wall."""
        length = math.dist(start, end)
        if length == 0:
            return True
        way = tuple((b - a) / length for a, b in zip(start, end, strict=True))
        return self._march(start, way, length) >= length

    def _march(self, start: Point, way: Sequence[float], most: float) -> float:
        gone = 0.0
        while gone < most:
            x, y, z = (a + gone * d for a, d in zip(start, way, strict=True))
            if self.solid((x, y, z)):
                return gone
            gone += _STEP
        return most


def _above(plane: _Plane, point: Point) -> float:
    return plane[0] * point[0] + plane[1] * point[1] + plane[2] * point[2] - plane[3]

"""Where everything lies in a place map's base file: its records and the offsets of its sections.

The bytes in words: docs/placemap-format.md. They are read and written by
:mod:`tatvpr_edge.spec.placemap`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .calibration import SEQUENCE_WEIGHTS
from .maptypes import MOMENT, MapInfo

MAGIC = b"TVPRMAP1"
VERSION = 2
ALIGN = 64
#: What stands in a header before its version is known.
START = struct.Struct("<8sI")
HEADER = struct.Struct("<8sIIQII32sIIIIQIIQQQQ56sII")
#: A band's calibration of sequences stands apart, because zero bytes mean that there is none.
BAND = struct.Struct("<ffQQQI3f3ffI40s4f4B")
SEQUENCE = struct.Struct(f"<I3f{SEQUENCE_WEIGHTS}f")
#: Required feature: a band is calibrated for sequences of frames.
SEQUENCES = 1
#: Required feature: how sure an answer is depends on the query's k or tokens.
DIALS = 2
#: Required feature: margins of sequences count by their roots.
ROOTED = 4
#: Optional feature: places keep parts of their neighbours' descriptors.
NEIGHBOURS = 1
HEADER_BYTES, BAND_BYTES = 192, 128
assert HEADER.size == HEADER_BYTES and BAND.size == BAND_BYTES


@dataclass(frozen=True)
class BandLayout:
    """Offsets of one band's sections; 0 where its kind has none."""

    descriptors: int
    norms: int = 0
    mean: int = 0


@dataclass(frozen=True)
class Layout:
    """Offsets of a base file; they follow from its counts alone, so a reader compares them."""

    bands: tuple[BandLayout, ...]
    poses: int
    moments: int
    tags: int
    file_bytes: int
    gaps: tuple[tuple[int, int], ...]


def _band_sections(info: MapInfo, has_mean: bool, places: int) -> list[tuple[str, int]]:
    """(field of BandLayout, bytes) of one band's sections, in the order of the file."""
    sections = [("descriptors", places * info.row_bytes)]
    if info.kind == "int8":
        sections.append(("norms", 4 * places))
    if has_mean:
        sections.append(("mean", 4 * info.dim))
    return sections


def layout_of(info: MapInfo, means: Sequence[bool], places: int, tags_bytes: int) -> Layout:
    """Where everything lies; ``means``: whether a band has one, ``tags_bytes``: of all tags."""
    end = HEADER_BYTES + BAND_BYTES * len(means)
    gaps = []

    def section(size: int) -> int:
        nonlocal end
        begin = -(-end // ALIGN) * ALIGN
        gaps.append((end, begin))
        end = begin + size
        return begin

    bands = tuple(
        BandLayout(**{name: section(n) for name, n in _band_sections(info, mean, places)})
        for mean in means
    )
    poses = section(56 * places)
    moments = section(MOMENT.itemsize * places)
    tags = section(tags_bytes)
    return Layout(bands, poses, moments, tags, end, tuple(gaps))

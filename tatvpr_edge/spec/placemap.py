"""Place maps (``.placemap``): the layout, the writer of a base file, and the reader.

The byte layout is in docs/placemap.md. A base file never changes once it stands: it is written
beside its place, synced and renamed. Places added later go into a journal beside it
(:mod:`tatvpr_edge.spec.mapjournal`) until ``compact`` folds them in. Queries read the base through
a memory map.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import MapError
from .floats import F32
from .scores import binary_rows, check_descriptors, int8_rows

MAGIC = b"TVPRMAP1"
VERSION = 1
KINDS = {"int8": 1, "binary": 2}
METRICS = {"int8": 1, "binary": 2}
POSE_FRAMES = ("local", "utm")
MAX_DIM = 65536
MAX_BANDS = 16
MAX_PLACES = 2**31 - 1
ALIGN = 64

_HEADER = struct.Struct("<8sIIQII32sIIIIQIIQQQII")
_BAND = struct.Struct("<fffIQQ32s")
HEADER_BYTES, BAND_BYTES = 128, 64
assert _HEADER.size == HEADER_BYTES and _BAND.size == BAND_BYTES

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Which k and tokens a set of descriptors was made with, and when a match is accepted."""

    k: float
    tokens: float = 1.0
    threshold: float | None = None


@dataclass(frozen=True)
class MapInfo:
    """What every part of a map shares."""

    model_hash: str
    kind: str
    dim: int
    bands: tuple[Band, ...]
    pose_frame: str = "local"

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored descriptor."""
        return self.dim if self.kind == "int8" else self.dim // 8


@dataclass(frozen=True)
class Rows:
    """Stored descriptors of one band: int8 [N, D] with norms [N], or uint8 [N, D / 8]."""

    data: NDArray[np.int8] | NDArray[np.uint8]
    norms: F32 | None

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Places:
    """Places as they are stored: one :class:`Rows` a band, poses float64 [N, 7], tags."""

    rows: tuple[Rows, ...]
    poses: F64
    tags: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.poses)


@dataclass(frozen=True)
class _Layout:
    """Offsets of a base file; they follow from its counts alone, so a reader compares them."""

    descriptors: tuple[int, ...]
    norms: tuple[int, ...]
    poses: int
    tags: int
    file_bytes: int
    gaps: tuple[tuple[int, int], ...]


def _layout(info: MapInfo, places: int, tags_bytes: int) -> _Layout:
    end = HEADER_BYTES + BAND_BYTES * len(info.bands)
    gaps = []

    def section(size: int) -> int:
        nonlocal end
        begin = -(-end // ALIGN) * ALIGN
        gaps.append((end, begin))
        end = begin + size
        return begin

    descriptors, norms = [], []
    for _ in info.bands:
        descriptors.append(section(places * info.row_bytes))
        norms.append(section(4 * places) if info.kind == "int8" else 0)
    poses = section(56 * places)
    tags = section(tags_bytes)
    return _Layout(tuple(descriptors), tuple(norms), poses, tags, end, tuple(gaps))


# ---- writing ---------------------------------------------------------------------------------


def make_places(
    info: MapInfo,
    descriptors: Sequence[F32],
    poses: F64 | None = None,
    tags: Sequence[str] | None = None,
) -> Places:
    """Places from float descriptors.

    Args:
        descriptors: one float32 [N, dim] a band, in the bands' order.
        poses: float64 [N, 7] (x y z qx qy qz qw), NaN where unknown; None: all unknown.
        tags: one text a place; None: empty.

    Raises:
        MapError: a count, shape or value is wrong.
    """
    check_info(info)
    if len(descriptors) != len(info.bands):
        raise MapError(f"{len(descriptors)} sets of descriptors for {len(info.bands)} bands")
    checked = [check_descriptors(rows, info.dim) for rows in descriptors]
    count = len(checked[0])
    poses = np.full((count, 7), np.nan) if poses is None else np.asarray(poses, np.float64)
    tags = ("",) * count if tags is None else tuple(tags)
    if any(len(rows) != count for rows in checked) or len(tags) != count:
        raise MapError("the bands, poses and tags are not of the same number of places")
    if poses.shape != (count, 7):
        raise MapError(f"poses of shape {poses.shape}: expected [{count}, 7]")
    if np.isinf(poses).any():
        raise MapError("a pose is infinite: write NaN where it is unknown")
    rows = tuple(
        Rows(*int8_rows(part)) if info.kind == "int8" else Rows(binary_rows(part), None)
        for part in checked
    )
    return Places(rows, poses, tags)


def check_info(info: MapInfo) -> None:
    """Raise MapError where ``info`` cannot be written."""
    if info.kind not in KINDS:
        raise MapError(f"descriptor kind {info.kind!r} is not one of {', '.join(KINDS)}")
    if info.pose_frame not in POSE_FRAMES:
        raise MapError(f"pose frame {info.pose_frame!r} is not one of {', '.join(POSE_FRAMES)}")
    if not 1 <= info.dim <= MAX_DIM or (info.kind == "binary" and info.dim % 8):
        raise MapError(f"{info.dim} elements do not fit a {info.kind} map")
    if not 1 <= len(info.bands) <= MAX_BANDS:
        raise MapError(f"{len(info.bands)} bands: a map has 1 to {MAX_BANDS}")
    for band in info.bands:
        _check_band(band)


def _check_band(band: Band) -> None:
    for name, value in (("k", band.k), ("tokens", band.tokens)):
        if not 0 < value <= 1:
            raise MapError(f"a band's {name} is {value!r}: it must be in (0, 1]")
    if band.threshold is not None and not -1 <= band.threshold <= 1:
        raise MapError(f"a band's threshold is {band.threshold!r}: scores are in -1..1")


def write_map(path: str | Path, info: MapInfo, parts: Sequence[Places]) -> None:
    """Write a base file holding ``parts`` one after another, replacing ``path`` atomically.

    Raises:
        MapError: the map cannot be written (disk full, no such folder); nothing is left behind.
    """
    path = Path(path)
    header, sections = _encode(info, parts)
    try:
        with replacing(path) as sink:
            sink.write(header)
            for section in sections:
                sink.write(section)
    except OSError as error:
        raise MapError(f"cannot write the map {path}: {explain(error)}") from error


def explain(error: OSError) -> str:
    """An operating system's error in words for one line."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space and try again"
    return str(error.strerror or error)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[tempfile._TemporaryFileWrapper]:  # type: ignore[type-arg]
    """A temporary file beside ``path`` that takes its place once it is on the disk."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
    ) as sink:
        try:
            yield sink
            sink.flush()
            os.fchmod(sink.fileno(), 0o644)
            os.fsync(sink.fileno())
            os.replace(sink.name, path)
        except BaseException:
            os.unlink(sink.name)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(info: MapInfo, parts: Sequence[Places]) -> tuple[bytes, list[bytes]]:
    check_info(info)
    places = sum(len(part) for part in parts)
    if places > MAX_PLACES:
        raise MapError(f"{places} places: a map holds at most {MAX_PLACES}")
    tags = _encode_tags([tag for part in parts for tag in part.tags])
    layout = _layout(info, places, len(tags))
    pieces: list[tuple[int, list[bytes]]] = []
    for index in range(len(info.bands)):
        rows = [part.rows[index] for part in parts]
        pieces.append((layout.descriptors[index], [part.data.tobytes() for part in rows]))
        if info.kind == "int8":
            norms = [np.asarray(part.norms, "<f4").tobytes() for part in rows]
            pieces.append((layout.norms[index], norms))
    pieces.append((layout.poses, [np.asarray(part.poses, "<f8").tobytes() for part in parts]))
    pieces.append((layout.tags, [tags]))
    sections: list[bytes] = []
    end, crc = HEADER_BYTES + BAND_BYTES * len(info.bands), 0
    for offset, blocks in pieces:
        for block in (bytes(offset - end), *blocks):
            sections.append(block)
            crc = zlib.crc32(block, crc)
        end = offset + sum(map(len, blocks))
    return _encode_header(info, places, len(tags), layout, crc), sections


def _encode_header(
    info: MapInfo, places: int, tags_bytes: int, layout: _Layout, payload_crc: int
) -> bytes:
    fields = (
        *(MAGIC, VERSION, HEADER_BYTES + BAND_BYTES * len(info.bands), layout.file_bytes, 0, 0),
        *(bytes.fromhex(info.model_hash), KINDS[info.kind], info.dim, METRICS[info.kind]),
        *(1 if info.kind == "int8" else 0, places, len(info.bands)),
        *(POSE_FRAMES.index(info.pose_frame), layout.poses, layout.tags, tags_bytes, payload_crc),
    )
    table = b"".join(
        _BAND.pack(
            band.k,
            band.tokens,
            np.nan if band.threshold is None else band.threshold,
            *(0, layout.descriptors[index], layout.norms[index], bytes(32)),
        )
        for index, band in enumerate(info.bands)
    )
    crc = zlib.crc32(_HEADER.pack(*fields, 0) + table)
    return _HEADER.pack(*fields, crc) + table


def _encode_tags(tags: Sequence[str]) -> bytes:
    texts = [tag.encode("utf-8", "surrogateescape") for tag in tags]
    for text in texts:
        if len(text) > 65535:
            raise MapError(f"a tag of {len(text)} bytes is too long: at most 65535")
    try:
        b"".join(texts).decode("utf-8")
    except UnicodeDecodeError:
        raise MapError("a tag is not valid UTF-8: rename that frame") from None
    ends = np.zeros(len(texts) + 1, dtype="<u8")
    np.cumsum([len(text) for text in texts], out=ends[1:])
    return ends.tobytes() + b"".join(texts)


# ---- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A validated base file, its sections being views of a read-only memory map."""

    info: MapInfo
    rows: tuple[Rows, ...]
    poses: F64
    tag_ends: NDArray[np.uint64]
    tag_text: NDArray[np.uint8]
    payload_crc: int
    file_bytes: int

    def __len__(self) -> int:
        return len(self.poses)

    def tag(self, place: int) -> str:
        """The tag of ``place``."""
        first, last = int(self.tag_ends[place]), int(self.tag_ends[place + 1])
        return self.tag_text[first:last].tobytes().decode("utf-8", "replace")

    def places(self) -> Places:
        """All places, for a writer that copies them."""
        return Places(self.rows, self.poses, tuple(self.tag(index) for index in range(len(self))))


def read_base(path: str | Path) -> Base:
    """Open and check a base file.

    Raises:
        MapError: by name of the fault.
    """
    try:
        size = os.stat(path).st_size
        if size < HEADER_BYTES:
            raise MapError(f"{path} is truncated or no map: {size} bytes; make it again")
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise MapError(f"cannot read the map {path}: {explain(error)}") from None
    try:
        return parse_base(data)
    except MapError as error:
        raise MapError(f"map {path}: {error}") from None


def parse_base(data: NDArray[np.uint8]) -> Base:
    """The base file in ``data`` uint8 [bytes]; the views share its memory.

    Raises:
        MapError: by name of the fault.
    """
    if len(data) < HEADER_BYTES:
        raise MapError("truncated: shorter than a header")
    fields = _HEADER.unpack(data[:HEADER_BYTES].tobytes())
    magic, version, header_bytes, file_bytes, required, _optional, model_hash = fields[:7]
    kind_code, dim, metric, scale_rule, places, bands, pose_frame = fields[7:14]
    poses_offset, tags_offset, tags_bytes, payload_crc, header_crc = fields[14:]
    if magic != MAGIC:
        raise MapError("this is no place map: wrong first bytes")
    if version != VERSION:
        advice = "update tatvpr-edge" if version > VERSION else "make it again"
        raise MapError(f"format version {version} is not {VERSION}: {advice}")
    if not 1 <= bands <= MAX_BANDS or header_bytes != HEADER_BYTES + BAND_BYTES * bands:
        raise MapError(f"its header contradicts itself ({bands} bands, {header_bytes} bytes)")
    if len(data) < header_bytes:
        raise MapError("truncated inside its header: make it again")
    header = bytearray(data[:header_bytes].tobytes())
    header[124:128] = bytes(4)
    if zlib.crc32(bytes(header)) != header_crc:
        raise MapError("its header was altered (checksum): make it again")
    if required:
        raise MapError(f"it requires unknown features (bits {required:#x}): update tatvpr-edge")
    kind = {code: name for name, code in KINDS.items()}.get(kind_code)
    if kind is None or metric != METRICS[kind] or scale_rule != (1 if kind == "int8" else 0):
        raise MapError(f"descriptor kind {kind_code}, metric {metric}: unknown here")
    if not 1 <= dim <= MAX_DIM or (kind == "binary" and dim % 8):
        raise MapError(f"{dim} elements do not fit a {kind} map")
    if places > MAX_PLACES or pose_frame >= len(POSE_FRAMES):
        raise MapError("its header contradicts itself (places or pose frame)")
    table = [
        _BAND.unpack(data[at : at + BAND_BYTES].tobytes())
        for at in range(HEADER_BYTES, header_bytes, BAND_BYTES)
    ]
    info = MapInfo(
        model_hash=model_hash.hex(),
        kind=kind,
        dim=dim,
        bands=tuple(
            Band(_short(k), _short(tokens), _short(limit) if math.isfinite(limit) else None)
            for k, tokens, limit, *_ in table
        ),
        pose_frame=POSE_FRAMES[pose_frame],
    )
    for band in info.bands:
        if not (0 < band.k <= 1 and 0 < band.tokens <= 1):
            raise MapError("a band's k or tokens is not in (0, 1]: the header is damaged")
    layout = _layout(info, places, tags_bytes)
    stored = [*(entry[3:] for entry in table), (poses_offset, tags_offset, file_bytes)]
    offsets = zip(layout.descriptors, layout.norms, strict=True)
    wanted: list[tuple[object, ...]] = [(0, *pair, bytes(32)) for pair in offsets]
    wanted.append((layout.poses, layout.tags, layout.file_bytes))
    if stored != wanted or tags_bytes < 8 * (places + 1):
        raise MapError("its offsets contradict its counts: the header is damaged")
    if len(data) != file_bytes:
        what = "truncated" if len(data) < file_bytes else "longer than it says"
        raise MapError(f"{what}: {len(data)} of {file_bytes} bytes; make it again")
    if zlib.crc32(data[header_bytes:].data) != payload_crc:
        raise MapError("its places were altered (checksum): make it again")
    if any(data[first:last].any() for first, last in layout.gaps):
        raise MapError("the padding between its sections is not zero: make it again")
    return _views(info, data, layout, places, payload_crc)


def _short(value: float) -> float:
    """A stored float32 as the shortest decimal that means it (0.2, not 0.20000000298)."""
    return float(str(np.float32(value)))


def _views(
    info: MapInfo, data: NDArray[np.uint8], layout: _Layout, places: int, payload_crc: int
) -> Base:
    def part(offset: int, count: int, kind: str) -> NDArray:  # type: ignore[type-arg]
        return data[offset : offset + count * np.dtype(kind).itemsize].view(kind)

    rows = []
    for descriptors, norms in zip(layout.descriptors, layout.norms, strict=True):
        table = part(descriptors, places * info.row_bytes, "i1" if info.kind == "int8" else "u1")
        rows.append(
            Rows(
                table.reshape(places, info.row_bytes),
                part(norms, places, "<f4") if info.kind == "int8" else None,
            )
        )
    ends = part(layout.tags, places + 1, "<u8")
    text = data[layout.tags + 8 * (places + 1) :]
    if ends[0] != 0 or int(ends[-1]) != len(text) or (ends[1:] < ends[:-1]).any():
        raise MapError("its tags overlap or leave the file: make it again")
    return Base(
        info=info,
        rows=tuple(rows),
        poses=part(layout.poses, places * 7, "<f8").reshape(places, 7),
        tag_ends=ends,
        tag_text=text,
        payload_crc=payload_crc,
        file_bytes=layout.file_bytes,
    )

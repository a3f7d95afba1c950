"""Place maps (``.placemap``), version 2: the layout of a base file, its writer and its reader.

The byte layout is in docs/placemap-format.md; ``runtime/core/common/map.c`` reads the same bytes
with the same verdict. A base file never changes once it stands: it is written beside its place,
synced and renamed. Places added later go into a journal beside it
(:mod:`tatvpr_edge.runtime.mapjournal`) until ``compact`` folds them in. Queries read a small base
from memory and a large one through a memory map.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .atomic import replacing
from .calibration import Calibration
from .errors import MapError
from .mapfiles import explain, followed
from .maplayout import (
    BAND,
    BAND_BYTES,
    DIALS,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NEIGHBOURS,
    ROOTED,
    SEQUENCES,
    START,
    VERSION,
    BandLayout,
    Layout,
    layout_of,
)
from .maptypes import (
    F64,
    KINDS,
    MAX_BANDS,
    MAX_PLACES,
    MOMENT,
    POSE_FRAMES,
    UNIT_SLACK,
    Band,
    MapInfo,
    Places,
    Rows,
    check_distances,
    check_info,
    encode_tag,
    make_places,
    outside_earth,
    with_unknowns,
)
from .storedcalibration import (
    calibration_fields,
    dial_fields,
    read_calibration,
    sequence_bytes,
    shortest,
)

__all__ = [
    "Band",
    "Base",
    "Calibration",
    "MapInfo",
    "Places",
    "Rows",
    "check_info",
    "make_places",
    "parse_base",
    "read_base",
    "write_map",
]

# ---- writing ---------------------------------------------------------------------------------


def write_map(
    path: str | Path, info: MapInfo, parts: Sequence[Places], *, new: bool = False
) -> None:
    """Write a base file holding ``parts`` one after another, replacing ``path`` atomically, or the
    map that a link there leads to.

    Args:
        new: nothing is replaced.

    Raises:
        MapError: the map cannot be written (disk full, no such folder), or something lies at the
            ``path`` of a new one; nothing is left behind.
    """
    path = Path(path)
    header, sections = _encode(info, parts)
    try:
        with replacing(path if new else followed(path), new=new) as sink:
            sink.write(header)
            for section in sections:
                sink.write(section)
    except OSError as error:
        if new and isinstance(error, FileExistsError):
            raise MapError(
                f"{path} exists by now: another program made it meanwhile, and it stays; remove "
                "it, or name another"
            ) from None
        raise MapError(f"cannot write the map {path}: {explain(error)}") from error


def _encode(info: MapInfo, parts: Sequence[Places]) -> tuple[bytes, list[bytes]]:
    check_info(info)
    places = sum(len(part) for part in parts)
    if places > MAX_PLACES:
        raise MapError(f"{places} places: a map holds at most {MAX_PLACES}")
    tags = _encode_tags([tag for part in parts for tag in part.tags])
    layout = layout_of(info, [band.mean is not None for band in info.bands], places, len(tags))
    pieces: list[tuple[int, list[bytes]]] = []
    for index, (band, offsets) in enumerate(zip(info.bands, layout.bands, strict=True)):
        rows = [part.rows[index] for part in parts]
        pieces.append((offsets.descriptors, [part.data.tobytes() for part in rows]))
        if offsets.norms:
            norms = [np.asarray(part.norms, "<f4").tobytes() for part in rows]
            pieces.append((offsets.norms, norms))
        if offsets.mean:
            pieces.append((offsets.mean, [np.asarray(band.mean, "<f4").tobytes()]))
    pieces.append((layout.poses, [stored_poses(part.poses) for part in parts]))
    pieces.append((layout.moments, [part.moments.tobytes() for part in parts]))
    pieces.append((layout.tags, [tags]))
    sections: list[bytes] = []
    end, crc = HEADER_BYTES + BAND_BYTES * len(info.bands), 0
    for offset, blocks in pieces:
        for block in (bytes(offset - end), *blocks):
            sections.append(block)
            crc = zlib.crc32(block, crc)
        end = offset + sum(map(len, blocks))
    return _encode_header(info, places, len(tags), layout, crc), sections


def stored_poses(poses: F64) -> bytes:
    """Poses as bytes: what is unknown is zero there, and so said in the moment."""
    return np.where(np.isnan(poses), 0.0, poses).astype("<f8").tobytes()


def _encode_header(
    info: MapInfo, places: int, tags_bytes: int, layout: Layout, payload_crc: int
) -> bytes:
    required = _required(info.bands)
    fields = (
        *(MAGIC, VERSION, HEADER_BYTES + BAND_BYTES * len(info.bands), layout.file_bytes),
        *(required, NEIGHBOURS if info.neighbours else 0),
        *(bytes.fromhex(info.model_hash), KINDS[info.kind], info.dim, info.descriptor_size),
        *(POSE_FRAMES.index(info.pose_frame), places, len(info.bands), 0),
        *(layout.poses, layout.moments, layout.tags, tags_bytes, bytes(56), payload_crc),
    )
    table = b"".join(
        BAND.pack(
            *(band.k, band.tokens, offsets.descriptors, offsets.norms, offsets.mean),
            *calibration_fields(band.calibration),
            sequence_bytes(band.calibration),
            *dial_fields(band.calibration),
        )
        for band, offsets in zip(info.bands, layout.bands, strict=True)
    )
    crc = zlib.crc32(HEADER.pack(*fields, 0) + table)
    return HEADER.pack(*fields, crc) + table


def _required(bands: Sequence[Band]) -> int:
    """The features that a reader of these bands must know: set exactly where one has them."""
    made = [band.calibration for band in bands if band.calibration is not None]
    sequences = SEQUENCES if any(of.sequence is not None for of in made) else 0
    dials = DIALS if any(any(dial_fields(of)) for of in made) else 0
    return sequences | dials | (ROOTED if any(of.kind == "rooted" for of in made) else 0)


def _encode_tags(tags: Sequence[str]) -> bytes:
    texts = [encode_tag(tag) for tag in tags]
    ends = np.zeros(len(texts) + 1, dtype="<u8")
    np.cumsum([len(text) for text in texts], out=ends[1:])
    return ends.tobytes() + b"".join(texts)


# ---- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A validated base file, its sections being views of a read-only memory map."""

    info: MapInfo
    rows: tuple[Rows, ...]
    stored_poses: F64  # [N, 7], zero where unknown
    moments: NDArray[np.void]  # MOMENT [N]
    tag_ends: NDArray[np.uint64]
    tag_text: NDArray[np.uint8]
    payload_crc: int
    file_bytes: int

    def __len__(self) -> int:
        return len(self.stored_poses)

    @property
    def poses(self) -> F64:
        """Poses float64 [N, 7], NaN where unknown: a copy."""
        return with_unknowns(self.stored_poses, self.moments["known"])

    def pose(self, place: int) -> F64:
        """Pose float64 [7] of ``place``, NaN where unknown."""
        known = int(self.moments[place]["known"])
        stored = enumerate(self.stored_poses[place].tolist())
        return np.array([number if known >> i & 1 else np.nan for i, number in stored])

    def tag(self, place: int) -> str:
        """The tag of ``place``."""
        first, last = int(self.tag_ends[place]), int(self.tag_ends[place + 1])
        return self.tag_text[first:last].tobytes().decode("utf-8", "replace")

    def places(self) -> Places:
        """All places, for a writer that copies them."""
        tags = tuple(self.tag(index) for index in range(len(self)))
        return Places(self.rows, self.poses, tags, self.moments)


#: A file of up to so many bytes is copied: 30,000 places of one int8 band of 512 numbers, in 16 ms.
_READ_BYTES = 16 << 20


def read_base(path: str | Path, sha256: str | None = None) -> Base:
    """Open and check a base file.

    Args:
        sha256: what was signed: the file is read once into memory of this process, hashed there and
            searched there. None: so is a file of at most ``_READ_BYTES``; a larger one is mapped,
            and whoever writes into the file, or cuts it, changes the map or ends this process.

    Raises:
        MapError: by name of the fault.
    """
    try:
        size = os.stat(path).st_size
        if size < START.size:
            raise MapError(f"{path} is truncated or no map: {size} bytes; make it again")
        if sha256 is None and size > _READ_BYTES:
            data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        else:
            data = _copied(path)
    except OSError as error:
        raise MapError(f"cannot read the map {path}: {explain(error)}") from None
    if sha256 is not None and hashlib.sha256(data.data).hexdigest() != sha256:
        raise MapError(f"the map {path} is not what was signed: its SHA-256 differs")
    try:
        return parse_base(data)
    except MapError as error:
        raise MapError(f"map {path}: {error}") from None


def _copied(path: str | Path) -> NDArray[np.uint8]:
    """The bytes of a file, read once, at the start of a page as a mapped file's are."""
    with open(path, "rb", buffering=0) as source:
        size = os.fstat(source.fileno()).st_size
        memory = memoryview(mmap.mmap(-1, max(size, 1)))[:size]
        done = 0
        while done < size and (count := source.readinto(memory[done:])):
            done += count
    data = np.frombuffer(memory[:done], np.uint8)
    data.flags.writeable = False
    return data


@dataclass(frozen=True)
class Header:
    """What a base file says of itself before its places are looked at."""

    info: MapInfo
    layout: Layout
    places: int
    payload_crc: int


def parse_base(data: NDArray[np.uint8]) -> Base:
    """The base file in ``data`` uint8 [bytes]; the views share its memory.

    Raises:
        MapError: by name of the fault.
    """
    head = parse_header(data, len(data))
    layout, begin = head.layout, HEADER_BYTES + BAND_BYTES * len(head.info.bands)
    if zlib.crc32(data[begin:].data) != head.payload_crc:
        raise MapError("its places were altered (checksum): make it again")
    if any(data[first:last].any() for first, last in layout.gaps):
        raise MapError("the padding between its sections is not zero: make it again")
    return _views(head, data)


def parse_header(data: NDArray[np.uint8], file_size: int) -> Header:
    """The header and bands of a base file of ``file_size`` bytes that begins with ``data``.

    Means of binary bands are read where ``data`` reaches so far.

    Raises:
        MapError: by name of the fault.
    """
    fields, table = _checked_fields(data)
    header_bytes, size, required, optional, model_hash = fields[2:7]
    kind_code, dim, descriptor_size, frame, places, bands, zero = fields[7:14]
    poses, moments, tags, tags_bytes, rest, payload_crc, _ = fields[14:]
    if required & ~(SEQUENCES | DIALS | ROOTED):
        raise MapError(f"it requires unknown features (bits {required:#x}): update tatvpr-edge")
    kind = {code: name for name, code in KINDS.items()}.get(kind_code)
    if kind is None:
        raise MapError(f"descriptor kind {kind_code} is unknown here: update tatvpr-edge")
    if places > MAX_PLACES or frame >= len(POSE_FRAMES) or zero or any(rest):
        raise MapError("its header contradicts itself (places or pose frame)")
    if tags_bytes < 8 * (places + 1):
        raise MapError("its offsets contradict its counts: the header is damaged")
    bare = MapInfo(model_hash.hex(), kind, dim, (), POSE_FRAMES[frame], descriptor_size)
    layout = layout_of(bare, [entry[4] != 0 for entry in table], places, tags_bytes)
    stored = [entry[2:5] for entry in table]
    wanted = [(band.descriptors, band.norms, band.mean) for band in layout.bands]
    if stored != wanted or (poses, moments, tags, size) != (
        *(layout.poses, layout.moments, layout.tags, layout.file_bytes),
    ):
        raise MapError("its offsets contradict its counts: the header is damaged")
    if file_size != size:
        what = "truncated" if file_size < size else "longer than it says"
        raise MapError(f"{what}: {file_size} of {size} bytes; make it again")
    found = tuple(
        Band(
            shortest(entry[0]),
            shortest(entry[1]),
            read_calibration(entry[5:14], entry[14], entry[15:]),
            _mean(at, dim, data),
        )
        for entry, at in zip(table, layout.bands, strict=True)
    )
    if required != _required(found):
        raise MapError("its header contradicts its calibrations: damaged")
    info = replace(bare, bands=found, neighbours=bool(optional & NEIGHBOURS))
    if descriptor_size == 0:
        raise MapError("its header contradicts itself (no elements in a descriptor)")
    check_info(info)
    assert header_bytes == HEADER_BYTES + BAND_BYTES * bands
    return Header(info, layout, places, payload_crc)


def _checked_fields(data: NDArray[np.uint8]) -> tuple[tuple, list[tuple]]:  # type: ignore[type-arg]
    """Fields of the header and of each band, once magic, version and checksum are right."""
    if len(data) < START.size:
        raise MapError("truncated: shorter than a header")
    magic, version = START.unpack(data[: START.size].tobytes())
    if magic != MAGIC:
        raise MapError("this is no place map: wrong first bytes")
    if version == 1:
        raise MapError(
            "it is of format version 1, described by operators that no artifact computes any more: "
            "make it again with 'tatvpr-edge map build'; 'tatvpr-edge map upgrade' rewrites it, so "
            "that its positions and tags can be read"
        )
    if version != VERSION:
        raise MapError(f"format version {version} is not {VERSION}: update tatvpr-edge")
    if len(data) < HEADER_BYTES:
        raise MapError("truncated: shorter than a header")
    fields = HEADER.unpack(data[:HEADER_BYTES].tobytes())
    header_bytes, bands = fields[2], fields[12]
    if not 1 <= bands <= MAX_BANDS or header_bytes != HEADER_BYTES + BAND_BYTES * bands:
        raise MapError(f"its header contradicts itself ({bands} bands, {header_bytes} bytes)")
    if len(data) < header_bytes:
        raise MapError("truncated inside its header: make it again")
    header = bytearray(data[:header_bytes].tobytes())
    header[HEADER_BYTES - 4 : HEADER_BYTES] = bytes(4)
    if zlib.crc32(bytes(header)) != fields[-1]:
        raise MapError("its header was altered (checksum): make it again")
    starts = range(HEADER_BYTES, header_bytes, BAND_BYTES)
    return fields, [BAND.unpack(data[at : at + BAND_BYTES].tobytes()) for at in starts]


def _mean(at: BandLayout, dim: int, data: NDArray[np.uint8]) -> tuple[float, ...] | None:
    if not at.mean:
        return None
    return tuple(data[at.mean : at.mean + 4 * dim].view("<f4").tolist())


def _views(head: Header, data: NDArray[np.uint8]) -> Base:
    info, layout, places = head.info, head.layout, head.places

    def part(offset: int, count: int, kind: str) -> NDArray:  # type: ignore[type-arg]
        return data[offset : offset + count * np.dtype(kind).itemsize].view(kind)

    rows = []
    for at in layout.bands:
        table = part(at.descriptors, places * info.row_bytes, "i1" if at.norms else "u1")
        norms = part(at.norms, places, "<f4") if at.norms else None
        rows.append(Rows(table.reshape(places, info.row_bytes), norms))
    poses = part(layout.poses, places * 7, "<f8").reshape(places, 7)
    moments = data[layout.moments : layout.moments + places * MOMENT.itemsize].view(MOMENT)
    check_numbers(info, tuple(rows), poses, moments)
    ends = part(layout.tags, places + 1, "<u8")
    text = data[layout.tags + 8 * (places + 1) :]
    if ends[0] != 0 or int(ends[-1]) != len(text) or (ends[1:] < ends[:-1]).any():
        raise MapError("its tags overlap or leave the file: make it again")
    return Base(
        info=info,
        rows=tuple(rows),
        stored_poses=poses,
        moments=moments,
        tag_ends=ends,
        tag_text=text,
        payload_crc=head.payload_crc,
        file_bytes=layout.file_bytes,
    )


def check_numbers(
    info: MapInfo, rows: tuple[Rows, ...], poses: F64, moments: NDArray[np.void]
) -> None:
    """The rules of every stored number, for files and journals alike.

    Args:
        poses: float64 [N, 7] as stored: zero where unknown.

    Raises:
        MapError: a norm outside (0, 1], a pose that is not finite or too far away, an orientation
            that is no unit quaternion, an unknown number that is not zero, a time before 1970.
    """
    for part in rows:
        if part.norms is not None and not ((part.norms > 0) & (part.norms <= 1)).all():
            raise MapError("a descriptor's norm is not in (0, 1]: make it again")
    if not np.isfinite(poses).all():
        raise MapError("a pose is not finite: make it again")
    try:
        check_distances(poses)
    except MapError as error:  # the first releases wrote such
        raise MapError(f"{error}; make it again") from None
    known = moments["known"]
    turned = known >> 3
    if not (((turned == 0) | (turned == 15)).all() and (moments["time_us"] >= 0).all()):
        raise MapError("a pose is half known, or a time is before 1970: make it again")
    if (np.where(np.isnan(with_unknowns(poses, known)), poses, 0) != 0).any():
        raise MapError("an unknown number of a pose is not zero: make it again")
    x, y, z, w = (poses[:, column] for column in range(3, 7))
    with np.errstate(over="ignore"):
        off = np.abs((((x * x + y * y) + z * z) + w * w) - 1) > UNIT_SLACK
    if (off & (turned == 15)).any():
        raise MapError("an orientation is no unit quaternion: make it again")
    if info.pose_frame == "geographic" and outside_earth(poses).any():
        raise MapError("a geographic position is not on earth: make it again")

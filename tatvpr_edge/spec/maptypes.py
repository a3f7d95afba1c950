"""What a place map holds: bands, stored descriptors, poses, moments, tags.

:mod:`tatvpr_edge.spec.placemap` is the file of them, :mod:`tatvpr_edge.runtime.mapjournal` what is
added later. docs/placemap-format.md has each field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .calibration import Calibration, check_calibration
from .errors import MapError
from .floats import F32
from .scores import binary_rows, check_descriptors, int8_rows
from .values import shown

#: Kinds of stored descriptors and their numbers in a file. 3 is kept for binary rows that are
#: searched first with int8 rows behind them for the best few: per band, bits and mean, then int8
#: and norms (``maplayout._band_sections`` lists what a kind stores).
KINDS = {"int8": 1, "binary": 2, "weighed": 4}
POSE_FRAMES = ("local", "utm", "geographic")
MAX_DIM = 65536
MAX_BANDS = 16
MAX_PLACES = 2**31 - 1
MAX_DRIVES = 2**16
MAX_TAG_BYTES = 65535
#: Seconds from 1970 to the end of the year 9999: further is no time, but milliseconds since 1970.
LATEST_S = 253_402_300_799
#: A position is no further from its origin: squares of distances are then finite in float32, too.
FURTHEST_M = 1e9
#: How far from 1 the length of an orientation may be when places are made (it is then made 1).
QUATERNION_SLACK = 0.01
#: How far from 1 its square may be in a file.
UNIT_SLACK = 1e-6

F64 = NDArray[np.float64]

#: A place in time: microseconds since 1970 (0: unknown, so that 0 s is 1), which drive it comes
#: from, its number along that drive, how often it was recognised since (255 stands for more), and
#: which of the seven numbers of its pose are known (bit i: number i).
MOMENT = np.dtype(
    [
        ("time_us", "<i8"),
        ("order", "<u4"),
        ("drive", "<u2"),
        ("confirmed", "u1"),
        ("known", "u1"),
    ]
)
_BITS = (1 << np.arange(7)).astype(np.uint8)


@dataclass(frozen=True)
class Band:
    """Which k and tokens a set of descriptors was made with, and how its matches are judged.

    Attributes:
        calibration: None: nothing is known of when a match is right.
        mean: float32 [dim] that the signs of a binary map are taken around; None: around zero.
    """

    k: float
    tokens: float = 1.0
    calibration: Calibration | None = None
    mean: tuple[float, ...] | None = None

    @classmethod
    def accepting(cls, k: float, tokens: float = 1.0, threshold: float | None = None) -> Band:
        """A band whose matches are accepted from a score up; None: not judged."""
        judged = None if threshold is None else Calibration("score", threshold)
        return cls(k, tokens, judged)


@dataclass(frozen=True)
class MapInfo:
    """What every place of a map shares.

    Attributes:
        dim: numbers of each descriptor that are stored and compared: the first ones.
        descriptor_size: numbers in a descriptor of the model; 0: as many as ``dim``.
        pose_frame: "local" (metres), "utm" (metres east, north) or "geographic" (x: longitude,
            y: latitude, in degrees; z in metres).
        neighbours: some places keep a part of their neighbours' descriptors
            (``mapping.neighbours``), so that neighbours are more alike than their frames.
    """

    model_hash: str
    kind: str
    dim: int
    bands: tuple[Band, ...]
    pose_frame: str = "local"
    descriptor_size: int = 0
    neighbours: bool = False

    def __post_init__(self) -> None:
        if self.descriptor_size == 0:
            object.__setattr__(self, "descriptor_size", self.dim)

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
    """Places as they are stored.

    Attributes:
        rows: one :class:`Rows` a band.
        poses: float64 [N, 7]: x y z qx qy qz qw, NaN where unknown.
        tags: one text a place.
        moments: MOMENT [N].
    """

    rows: tuple[Rows, ...]
    poses: F64
    tags: tuple[str, ...]
    moments: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.poses)

    @staticmethod
    def joined(parts: Sequence[Places]) -> Places:
        """One after another; each of the same bands."""
        rows = []
        for of in zip(*(part.rows for part in parts), strict=True):
            norms = [band.norms for band in of if band.norms is not None]
            data = np.concatenate([band.data for band in of])
            rows.append(Rows(data, np.concatenate(norms) if norms else None))
        return Places(
            tuple(rows),
            np.concatenate([part.poses for part in parts]),
            tuple(tag for part in parts for tag in part.tags),
            np.concatenate([part.moments for part in parts]),
        )


# ---- making places ---------------------------------------------------------------------------


def make_places(
    info: MapInfo,
    descriptors: Sequence[F32],
    poses: F64 | None = None,
    tags: Sequence[str] | None = None,
    *,
    times: Sequence[float] | F64 | None = None,
    orders: Sequence[int] | NDArray[np.integer] | None = None,
    drives: Sequence[int] | NDArray[np.integer] | int = 0,
    confirmed: Sequence[int] | NDArray[np.integer] | int = 0,
) -> Places:
    """Places from float descriptors.

    Args:
        descriptors: one float32 [N, descriptor_size] a band, in the bands' order.
        poses: float64 [N, 7] (x y z qx qy qz qw), NaN where unknown; None: all unknown. An
            orientation is known whole or not at all, and made of unit length here.
        tags: one text a place; None: empty.
        times: seconds since 1970, NaN where unknown; None: all unknown.
        orders: number of each place along its drive; None: 0, 1, 2 ...
        drives: which drive each place comes from.
        confirmed: how often each was recognised; 255 stands for more.

    Raises:
        MapError: a count, shape or value is wrong; the text names the first place that is.
    """
    check_info(info)
    if len(descriptors) != len(info.bands):
        raise MapError(f"{len(descriptors)} sets of descriptors for {len(info.bands)} bands")
    checked = [check_descriptors(rows, info.descriptor_size) for rows in descriptors]
    count = len(checked[0])
    tags = ("",) * count if tags is None else tuple(tags)
    if any(len(rows) != count for rows in checked) or len(tags) != count:
        raise MapError("the bands, poses and tags are not of the same number of places")
    for tag in tags:
        encode_tag(tag)
    poses = np.full((count, 7), np.nan) if poses is None else np.array(poses, np.float64)
    moments = np.zeros(count, MOMENT)
    moments["time_us"] = _microseconds(times, count)
    moments["order"] = _whole(np.arange(count) if orders is None else orders, "order", 2**32, count)
    moments["drive"] = _whole(drives, "drive", MAX_DRIVES, count)
    moments["confirmed"] = np.minimum(_whole(confirmed, "confirmed", 2**31, count), 255)
    poses, moments["known"] = known_poses(poses, count, info.pose_frame)
    rows = tuple(
        stored_rows(info, band, part[:, : info.dim])
        for band, part in zip(info.bands, checked, strict=True)
    )
    return Places(rows, poses, tags, moments)


def stored_rows(info: MapInfo, band: Band, descriptors: F32) -> Rows:
    """float32 [N, dim] as a band of this map stores them; raises MapError."""
    if info.kind == "int8":
        return Rows(*int8_rows(descriptors))
    mean = None if band.mean is None else np.asarray(band.mean, np.float32)
    return Rows(binary_rows(descriptors, mean), None)


def encode_tag(tag: str) -> bytes:
    """A tag as it is stored.

    Raises:
        MapError: it is longer than MAX_TAG_BYTES, no UTF-8, or no text at all.
    """
    if not isinstance(tag, str):
        raise MapError(f"a tag is text, and {shown(tag)} is none: give str(...) of it")
    try:
        text = tag.encode("utf-8")
    except UnicodeEncodeError:
        raise MapError("a tag is not valid UTF-8: rename that frame") from None
    if len(text) > MAX_TAG_BYTES:
        raise MapError(f"a tag of {len(text)} bytes is too long: at most {MAX_TAG_BYTES}")
    return text


def _whole(
    values: Sequence[int] | NDArray[np.integer] | int, name: str, limit: int, count: int
) -> NDArray[np.int64]:
    table = np.asarray(values)
    if table.size and (table.dtype.kind not in "iu" or table.min() < 0 or table.max() >= limit):
        raise MapError(f"a place's {name} is a whole number from 0 up to {limit - 1}")
    if table.ndim and table.shape != (count,):
        raise MapError(f"{name} of shape {table.shape}: expected [{count}]")
    return np.broadcast_to(table.astype(np.int64), (count,))


def _microseconds(times: Sequence[float] | F64 | None, count: int) -> NDArray[np.int64]:
    if times is None:
        return np.zeros(count, np.int64)
    seconds = np.asarray(times, np.float64)
    if seconds.shape != (count,):
        raise MapError(f"times of shape {seconds.shape}: expected [{count}]")
    known = np.where(np.isnan(seconds), 0.0, seconds)
    if ((known < 0) | (known > LATEST_S)).any():
        raise MapError(
            "a place's time is in seconds, not milliseconds, since 1970, or NaN if unknown"
        )
    # 0 says that the time is unknown: a clock that begins there, as a simulator's, is seen at 1.
    return np.where(np.isnan(seconds), 0, np.maximum(np.rint(known * 1e6), 1)).astype(np.int64)


def known_poses(poses: F64, count: int, frame: str) -> tuple[F64, NDArray[np.uint8]]:
    """Poses with unit orientations, and which of their numbers are known."""
    if poses.shape != (count, 7):
        raise MapError(f"poses of shape {poses.shape}: expected [{count}, 7]")
    check_distances(poses)
    known = ~np.isnan(poses)
    turned = known[:, 3:]
    halves = turned.any(axis=1) & ~turned.all(axis=1)
    if halves.any():
        raise MapError(
            f"place {int(np.argmax(halves))}: its orientation is half known: give qx qy qz qw or "
            "none of them"
        )
    with np.errstate(over="ignore"):
        length = np.sqrt((poses[:, 3:] ** 2).sum(axis=1))
    wrong = turned.all(axis=1) & ~(np.abs(length - 1) <= QUATERNION_SLACK)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise MapError(
            f"place {place}: its orientation qx qy qz qw has length {length[place]:.4g}, not 1"
        )
    poses[:, 3:] /= length[:, None]
    if frame == "geographic" and outside_earth(poses).any():
        raise MapError(
            f"place {int(np.argmax(outside_earth(poses)))}: geographic poses are longitude "
            "(-180..180), latitude (-90..90), height"
        )
    return poses, (known * _BITS).sum(axis=1).astype(np.uint8)


def check_distances(poses: F64) -> None:
    """Raise MapError where a number of poses [N, 7] is infinite, or further away than any place."""
    if np.isinf(poses).any():
        raise MapError("a pose is infinite: write NaN where it is unknown")
    far = (np.abs(poses[:, :3]) > FURTHEST_M).any(axis=1)
    if far.any():
        place = int(np.argmax(far))
        told = " ".join(f"{n:g}" for n in poses[place, :3])
        raise MapError(
            f"place {place}: its position is {told}: at most {FURTHEST_M:g} metres, or NaN where "
            "it is unknown"
        )


def outside_earth(poses: F64) -> NDArray[np.bool_]:
    """Which poses [N, 7] are no longitude and latitude."""
    with np.errstate(invalid="ignore"):
        outside: NDArray[np.bool_] = (np.abs(poses[:, 0]) > 180) | (np.abs(poses[:, 1]) > 90)
    return outside


def with_unknowns(poses: F64, known: NDArray[np.uint8]) -> F64:
    """Stored poses [N, 7] with NaN where ``known`` says so: a copy."""
    return np.where((known[:, None] & _BITS).astype(bool), poses, np.nan)


# ---- what can be written ---------------------------------------------------------------------


def check_info(info: MapInfo) -> None:
    """Raise MapError where ``info`` cannot be written."""
    for what, named, known in (
        ("descriptor kind", info.kind, KINDS),
        ("pose frame", info.pose_frame, POSE_FRAMES),
    ):
        if not isinstance(named, str) or named not in known:
            raise MapError(f"{what} {shown(named)} is not one of {', '.join(known)}")
    if not 1 <= info.dim <= MAX_DIM or (info.kind != "int8" and info.dim % 8):
        raise MapError(f"{info.dim} elements do not fit a {info.kind} map")
    if not info.dim <= info.descriptor_size <= MAX_DIM:
        raise MapError(
            f"{info.dim} elements of descriptors of {info.descriptor_size}: a map keeps the first "
            f"ones, at most {MAX_DIM}"
        )
    if not 1 <= len(info.bands) <= MAX_BANDS:
        raise MapError(f"{len(info.bands)} bands: a map has 1 to {MAX_BANDS}")
    for band in info.bands:
        _check_band(info, band)


def _check_band(info: MapInfo, band: Band) -> None:
    for name, value in (("k", band.k), ("tokens", band.tokens)):
        if not 0 < value <= 1:
            raise MapError(f"a band's {name} is {value!r}: it must be in (0, 1]")
    if band.mean is not None:
        if info.kind == "int8" or len(band.mean) != info.dim:
            raise MapError(
                f"a mean of {len(band.mean)} numbers: binary maps have one of {info.dim}"
            )
        if not np.isfinite(np.asarray(band.mean, np.float32)).all():
            raise MapError("a band's mean is not finite")
    if band.calibration is not None:
        check_calibration(band.calibration)


def calibrated(info: MapInfo, calibrations: Sequence[Calibration | None]) -> MapInfo:
    """``info`` with another calibration for each band."""
    bands = zip(info.bands, calibrations, strict=True)
    made = replace(info, bands=tuple(replace(band, calibration=c) for band, c in bands))
    check_info(made)
    return made

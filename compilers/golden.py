"""Golden vectors, and how far two correct builds of one model may differ.

Frames are synthetic and seeded. ``min_cosine`` is the bound of docs/numerics.md, level (c):
``1 - 2 * (1 - m)`` where m is the smallest cosine over 200 frames between the core and itself with
permuted reductions; of large models fewer are measured, and what 200 would show is reckoned. It
depends on the model alone, so it is computed once per model hash: read from the card beside the
ONNX file (key "drift" of ``MODEL.json``) where the hash fits, else from the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.compilers.objects import is_made_anew
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.manifest import LOWEST_COSINE, Dials, Golden, GoldenFrame, GoldenPoint
from tatvpr_edge.spec.text import parse_json
from tatvpr_edge.spec.workers import in_order

U8 = NDArray[np.uint8]
#: (k, tokens) of golden vectors; those outside the artifact's k_range are left out, but for fewer
#: tokens at the nearest k within.
POINTS = ((1.0, 1.0), (0.6, 1.0), (0.4, 1.0), (0.2, 1.0), (0.05, 1.0), (0.4, 0.5))
#: Lowest and highest of them: what measuring costs is reckoned for all, whatever range is built.
EVERY_K = (0.05, 1.0)
DRIFT_FRAMES = 200
#: Multiply-accumulates that measuring may take, and the frames of the largest models: 20 to 40 s.
DRIFT_MACS = 1_500_000_000_000
LEAST_DRIFT_FRAMES = 24
_SEED = 20_250
Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True)
class DriftPoint:
    """The smallest cosine seen at one setting."""

    k: float
    tokens: float
    smallest_cosine: float

    @property
    def min_cosine(self) -> float:
        """What another correct build must reach: twice the distance seen is allowed."""
        return 1.0 - 2.0 * (1.0 - self.smallest_cosine)


def synthetic_frame(seed: int, width: int, height: int) -> U8:
    """A seeded frame, uint8 [height, width, 3]: coarse patches of colour under fine noise."""
    rng = np.random.default_rng([_SEED, seed])
    coarse = rng.integers(0, 256, (8, 8, 3))
    rows = np.arange(height) * 8 // height
    columns = np.arange(width) * 8 // width
    frame = coarse[rows][:, columns] + rng.integers(-24, 25, (height, width, 3))
    return np.clip(frame, 0, 255).astype(np.uint8)


def golden_frames(image_size: int) -> list[U8]:
    """One frame of the model's square and one that has to be resized."""
    return [
        synthetic_frame(0, image_size, image_size),
        synthetic_frame(1, image_size * 5 // 4, image_size * 3 // 4),
    ]


def points_within(k_range: tuple[float, float], keeps_tokens: bool) -> list[tuple[float, float]]:
    """The settings of golden vectors for an artifact."""
    low, high = k_range
    ks = sorted({low, high, *(k for k, t in POINTS if t == 1.0 and low <= k <= high)}, reverse=True)
    points = [(k, 1.0) for k in ks]
    if keeps_tokens:
        points += [(min(max(k, low), high), t) for k, t in POINTS if t < 1.0]
    return points


def make_golden(
    library: Library, image_size: int, drift: Sequence[DriftPoint], exact: bool
) -> tuple[Golden, dict[str, bytes]]:
    """The manifest's entry and the files it names.

    Settings at which two correct builds are further apart than ``LOWEST_COSINE`` (random weights
    at small k) have no golden vectors: they would tell no right answer from a wrong one.

    Raises:
        ModelError: that is so at every setting, or descriptors are zeros.
    """
    telling = [point for point in drift if point.min_cosine >= LOWEST_COSINE]
    if not telling:
        best = max(point.smallest_cosine for point in drift)
        raise ModelError(
            f"two correct builds of this model have a cosine of {best:.3f} at best, at any k: "
            "no golden vector could tell a damaged one: train it, or build with a --k-range nearer "
            "to 1"
        )
    frames = golden_frames(image_size)
    files: dict[str, bytes] = {}
    entries = []
    for index, frame in enumerate(frames):
        name = f"golden/frame{index}.rgb"
        files[name] = frame.tobytes()
        entries.append(GoldenFrame(name, frame.shape[1], frame.shape[0]))
    points = []
    for point in telling:
        rows = np.stack([describe(library, frame, point.k, point.tokens) for frame in frames])
        if not rows.any():
            raise ModelError(
                f"the model's descriptor is all zeros at k = {point.k:g}: no place could be told "
                "from another: train it, or look for what its head cuts off"
            )
        name = f"golden/k{_text(point.k)}-t{_text(point.tokens)}.f32"
        files[name] = rows.astype("<f4").tobytes()
        points.append(GoldenPoint(point.k, point.tokens, name, point.min_cosine))
    return Golden(exact=exact, frames=tuple(entries), points=tuple(points)), files


def _text(value: float) -> str:
    return repr(float(value)).removesuffix(".0")  # in full: 0.6 and 0.6000001 are two files


def drift_frames(macs: int) -> int:
    """How many frames are measured where one frame, at all settings, takes ``macs``.

    A function of the model alone, so that its artifact has the same bytes wherever it is built.
    """
    return max(LEAST_DRIFT_FRAMES, min(DRIFT_FRAMES, DRIFT_MACS // max(macs, 1)))


def measure_drift(
    core: Library,
    permuted: Library,
    image_size: int,
    points: Sequence[tuple[float, float]],
    frames: int = DRIFT_FRAMES,
    progress: Progress | None = None,
) -> list[DriftPoint]:
    """The smallest cosine of each point over ``DRIFT_FRAMES`` seeded frames.

    Of fewer ``frames`` the largest distance is taken ``ln 200 / ln frames`` times: so much further
    the largest of 200 lies where distances have an exponential tail (Gumbel's law of the maximum).
    """
    beyond = max(1.0, math.log(DRIFT_FRAMES) / math.log(max(frames, 2)))

    def one(seed: int) -> list[float]:
        frame = synthetic_frame(seed, image_size, image_size)
        return [cosine(describe(core, frame, *p), describe(permuted, frame, *p)) for p in points]

    smallest = np.full(len(points), np.inf)
    for done, values in enumerate(in_order(one, range(frames), os.cpu_count() or 1), start=1):
        smallest = np.minimum(smallest, values)
        if progress is not None:
            progress("drift of this model (once per model)", done, frames)
    stated = np.maximum(1.0 - beyond * (1.0 - smallest), -1.0)
    return [DriftPoint(k, t, float(s)) for (k, t), s in zip(points, stated, strict=True)]


def describe(library: Library, frame: U8, k: float, tokens: float) -> NDArray[np.float32]:
    """Descriptor float32 [D] of an RGB frame uint8 [H, W, 3]."""
    return library.describe(check_frame(frame), k, tokens).descriptor


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of two vectors, at most 1; of zeros 1 with others and 0 with anything else."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squares = float((x @ x) * (y @ y))
    if squares == 0.0:
        return float(np.array_equal(x, y))
    return min(float(x @ y) / math.sqrt(squares), 1.0)  # NaN stays NaN, which agrees with nothing


def model_card(onnx_file: Path) -> Path:
    """The card beside a model: where the drift of a shipped one is written down."""
    return onnx_file.with_suffix(".json")


def known_drift(
    model_hash: bytes, onnx_file: Path, points: Sequence[tuple[float, float]]
) -> list[DriftPoint] | None:
    """What a former measurement found, if it covers every point.

    It says how far from its golden vectors a board may answer: of what will be signed the model's
    card may say it, and no cache.
    """
    cached = () if is_made_anew() else (_read_cached,)
    for read in (lambda wanted: _read(model_card(onnx_file), wanted), *cached):
        found = read(model_hash)
        if all(point in found for point in points):
            return [DriftPoint(k, t, found[k, t]) for k, t in points]
    return None


@dataclass(frozen=True)
class CardDials:
    """What a model's card says of its dials."""

    defaults: Dials | None = None
    frontier: tuple[Dials, ...] = ()


def known_dials(model_hash: bytes, onnx_file: Path) -> CardDials:
    """``defaults`` and ``frontier`` of the card beside the ONNX file; nothing where its drift is of
    another model.

    Raises:
        ModelError: the card's dials are malformed.
    """
    path = model_card(onnx_file)
    if not _read(path, model_hash):
        return CardDials()
    card = parse_json(path.read_bytes())
    try:
        own = card.get("defaults")
        defaults = None if own is None else Dials(float(own["k"]), float(own["tokens"]))
        frontier = tuple(
            Dials(float(s["k"]), float(s["tokens"]), float(s["recall"]))
            for s in card.get("frontier", [])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its defaults or frontier are malformed ({error!r})") from None
    return CardDials(defaults, frontier)


def _cached(model_hash: bytes) -> Path:
    return cache_folder("drift") / f"{model_hash.hex()}.points"


_Known = dict[tuple[float, float], float]  # the smallest cosine by (k, tokens)


def _read(path: Path, model_hash: bytes) -> _Known:
    """Points of a card; empty where they are missing, damaged or of another model."""
    try:
        return _points(parse_json(path.read_bytes())["drift"], model_hash)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read_cached(model_hash: bytes) -> _Known:
    """Points that a build remembered, whose SHA-256 stands before them."""
    try:
        digest, _, body = _cached(model_hash).read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return {}
        return _points(parse_json(body), model_hash)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _points(drift: dict[str, Any], model_hash: bytes) -> _Known:
    if drift["model_hash"] != model_hash.hex() or drift["frames"] < LEAST_DRIFT_FRAMES:
        return {}
    return {(p["k"], p["tokens"]): float(p["smallest_cosine"]) for p in drift["points"]}


def _document(
    known: _Known, model_hash: bytes, points: Sequence[DriftPoint], frames: int
) -> dict[str, Any]:
    """What is known and what was measured now."""
    both = {**known, **{(p.k, p.tokens): p.smallest_cosine for p in points}}
    return {
        "model_hash": model_hash.hex(),
        "frames": frames,
        "points": [
            {"k": k, "tokens": t, "smallest_cosine": value}
            for (k, t), value in sorted(both.items(), reverse=True)
        ],
    }


def write_drift(
    path: Path, model_hash: bytes, points: Sequence[DriftPoint], frames: int = DRIFT_FRAMES
) -> None:
    """Write into a card, all else of which stays as it is, known points of this model included."""
    try:
        card = parse_json(path.read_bytes())
    except OSError:
        card = {}
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise ModelError(f"{path} is no model card: move it away")
    card["drift"] = _document(_read(path, model_hash), model_hash, points, frames)
    with replacing(path, mode=0o644) as sink:
        sink.write(json.dumps(card, indent=1).encode("ascii") + b"\n")


def cache_drift(
    model_hash: bytes, points: Sequence[DriftPoint], frames: int = DRIFT_FRAMES
) -> None:
    """Remember a measurement for the next build of the same model, which believes it only whole;
    a home that cannot be written, or is damaged, costs that build its time alone."""
    drift = _document(_read_cached(model_hash), model_hash, points, frames)
    body = json.dumps(drift).encode("ascii")
    path = _cached(model_hash)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o644) as sink:
            sink.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

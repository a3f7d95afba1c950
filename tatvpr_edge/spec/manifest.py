"""``manifest.json``: what an artifact says about itself. This module owns the schema.

Everything in an unsigned manifest is reproducible: no date, no host name, no absolute path. Its
canonical form (sorted keys, one indent, a newline at the end) is what gets signed and hashed.

Keys, version 2 (an unknown key is ignored, an unknown name in ``required_features`` is refused)::

    format_version     2
    operators          2                       version of the operators: spec/operators.py
    created_with       "tatvpr-edge 0.2.0"
    required_features  []                      names that a reader must know, or refuse
    serial             0                       set by signing: a board that trusts keys refuses an
                                               artifact with a lower one than the installed
    board              "host"
    model              {name, hash, head, descriptor_size, image_size, token_dim, max_tokens,
                        weights, groups}
                                               weights: trained | random (for benchmarks alone);
                                               groups: {layer: group}, gates of groups above 1
    defaults           {k, tokens}             the dials of a Localizer that is given none
    frontier           [{k, tokens, recall}]   settings that were evaluated, densest first, with
                                               the percent found (Recall@1); what they cost, and so
                                               which are worth having, a board's profile says
    input              {resize, formats}       frame preparation: see RESIZE and spec/frames.py
    k_range            [0.01, 1.0]             the k for which it was built and checked
    code               {kind, path, triple, kernels, abi}
                                               kind: shared-library | static-library
    weights            "weights.bin"
    memory             {arena_bytes, ...}      bytes, by name
    compute            [{k, tokens, macs}]
    golden             {exact, frames: [{path, width, height}],
                        points: [{k, tokens, path, min_cosine}]}
                                               frame: raw RGB888; point: float32 [frames, D]
    profile            {device: {}, points: [{k, tokens, latency_ms, ...}]}
    backends           {}                      other ways to run it ("tensorrt"), by name
    files              [{path, bytes, sha256}] every file but manifest.json and manifest.sig
    sha256             of this document without this key, in canonical form
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .errors import ArtifactError
from .fields import Fields, is_number
from .formats import FORMATS
from .operators import VERSION
from .text import parse_json

#: 2: operators version 2. Version 1 computes other bytes than this release and is not read.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
#: Nothing larger is parsed: a manifest of every file that we write is below a hundredth of this.
MAX_MANIFEST_BYTES = 4 << 20
#: A golden point whose bound is below this would accept descriptors of another place as right.
LOWEST_COSINE = 0.5

#: Optional abilities of readers that an artifact may require. None exists yet.
KNOWN_FEATURES: frozenset[str] = frozenset()
#: The only frame preparation of version 1: squash to the square as Pillow's BILINEAR does.
RESIZE = "pillow-bilinear-squash"
CODE_KINDS = ("shared-library", "static-library")
TRAINED, RANDOM = "trained", "random"
#: What people are told wherever a model of random weights is named.
RANDOM_NOTE = "random weights: for benchmarks, finds no place"

# A name that no shell, file system or log can misread. No component begins with a dot or a dash.
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+\-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BOARD = re.compile(r"[a-z0-9][a-z0-9\-]{0,63}")


def check_member(path: str) -> str:
    """``path`` when it is a plain relative name inside an artifact.

    Raises:
        ArtifactError: it is absolute, climbs, or has characters other than letters, digits and
            ``. _ + -``; or it is the manifest or the signature.
    """
    shown = repr(path)[:120]
    if not isinstance(path, str) or not 0 < len(path) <= 200:
        raise ArtifactError(f"file name {shown} in the manifest is empty or too long")
    if path in (MANIFEST, SIGNATURE):
        raise ArtifactError(f"the manifest lists {path} as a file: it may not list itself")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "." in parts or "" in parts:
        raise ArtifactError(f"file name {shown} in the manifest leaves the artifact: refused")
    if any(_COMPONENT.fullmatch(part) is None for part in parts):
        raise ArtifactError(
            f"file name {shown} in the manifest has characters other than letters, digits, "
            "'.', '_', '+' and '-': refused"
        )
    return path


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: relative POSIX path, size, lower-case hex SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelEntry:
    """The model inside. ``hash`` is the SHA-256 (hex) of the canonical graph and weights."""

    name: str
    hash: str
    head: str
    descriptor_size: int
    image_size: int
    token_dim: int
    max_tokens: int
    weights: str = TRAINED
    groups: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Dials:
    """One setting of the two dials; ``recall`` in percent where it belongs to a frontier."""

    k: float
    tokens: float
    recall: float | None = None

    def to_dict(self) -> dict[str, float]:
        """As the manifest holds it."""
        own = {"k": self.k, "tokens": self.tokens}
        return own if self.recall is None else {**own, "recall": self.recall}


@dataclass(frozen=True)
class Code:
    """Compiled code: a library with the C interface of ``tatvpr.h`` for ``triple``."""

    kind: str
    path: str
    triple: str
    kernels: tuple[str, ...] = ()
    abi: int = 1


#: What a model without a card of its own is run at.
DEFAULTS = Dials(0.2, 1.0)


@dataclass(frozen=True)
class GoldenFrame:
    """A raw RGB888 file of ``height * width * 3`` bytes."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class GoldenPoint:
    """Descriptors, float32 little endian [frames, D], that k and tokens must give.

    ``min_cosine`` is the bound for backends that are not bit-exact (level c).
    """

    k: float
    tokens: float
    path: str
    min_cosine: float


@dataclass(frozen=True)
class Golden:
    """Golden vectors. ``exact``: every CPU gives these bytes (CLS and GeM heads)."""

    exact: bool = True
    frames: tuple[GoldenFrame, ...] = ()
    points: tuple[GoldenPoint, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A whole manifest; ``files`` is filled by the artifact's writer."""

    board: str
    model: ModelEntry
    code: Code
    created_with: str
    weights: str = "weights.bin"
    golden: Golden = field(default_factory=Golden)
    k_range: tuple[float, float] = (0.01, 1.0)
    defaults: Dials = DEFAULTS
    frontier: tuple[Dials, ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    compute: tuple[dict[str, float], ...] = ()
    profile: dict[str, Any] = field(default_factory=lambda: {"device": {}, "points": []})
    backends: dict[str, Any] = field(default_factory=dict)
    required_features: tuple[str, ...] = ()
    serial: int = 0
    files: tuple[FileEntry, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "operators": VERSION,
            "created_with": self.created_with,
            "required_features": list(self.required_features),
            "serial": self.serial,
            "board": self.board,
            "model": dict(vars(self.model)),
            "input": {"resize": RESIZE, "formats": list(FORMATS)},
            "k_range": list(self.k_range),
            "defaults": self.defaults.to_dict(),
            "frontier": [setting.to_dict() for setting in self.frontier],
            "code": {**vars(self.code), "kernels": list(self.code.kernels)},
            "weights": self.weights,
            "memory": dict(self.memory),
            "compute": [dict(point) for point in self.compute],
            "golden": {
                "exact": self.golden.exact,
                "frames": [dict(vars(frame)) for frame in self.golden.frames],
                "points": [dict(vars(point)) for point in self.golden.points],
            },
            "profile": self.profile,
            "backends": self.backends,
            "files": [dict(vars(entry)) for entry in self.files],
        }

    def to_json(self) -> bytes:
        """The canonical bytes of ``manifest.json``."""
        return seal(self.to_dict())

    def file(self, path: str) -> FileEntry:
        """The entry of ``path``.

        Raises:
            ArtifactError: the manifest does not list it.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ArtifactError(f"the manifest names {path} but does not list it among its files")


def seal(document: dict[str, Any]) -> bytes:
    """The canonical bytes of a manifest's ``document``, its own ``sha256`` put in anew."""
    bare = {key: value for key, value in document.items() if key != "sha256"}
    digest = hashlib.sha256(_canonical(bare)).hexdigest()
    return _canonical({**bare, "sha256": digest})


def _canonical(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    return text.encode("ascii") + b"\n"


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``.

    Raises:
        ArtifactError: the fault, by name: truncated, newer, required feature, or the wrong key.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{MANIFEST} has {len(data)} bytes: no manifest of ours is so large")
    try:
        document = parse_json(data.decode("utf-8"))
    except ValueError as error:  # not UTF-8 is one
        raise ArtifactError(
            f"{MANIFEST} is truncated or not JSON ({str(error)[:100]}): build or copy it again"
        ) from None
    top = Fields(document, MANIFEST)
    version = top.integer("format_version", 1)
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"artifact format {version} is newer than this reader's {FORMAT_VERSION}: "
            "update tatvpr-edge"
        )
    if version < FORMAT_VERSION:
        raise ArtifactError(f"artifact format {version} is of an older release: {_again(document)}")
    if top.integer("operators", 1) != VERSION:
        raise ArtifactError(
            f"the artifact computes version {document['operators']} of the operators, this reader "
            f"knows {VERSION}: {_again(document)}"
        )
    features = top.texts("required_features")
    unknown = sorted(set(features) - KNOWN_FEATURES)
    if unknown:
        raise ArtifactError(
            f"the artifact requires {', '.join(unknown)[:200]}, which this version does not know: "
            "update tatvpr-edge"
        )
    if seal(document) != data:
        raise ArtifactError(
            f"{MANIFEST} was altered: it is not what its own SHA-256 says; build or copy the "
            "artifact again"
        )
    files = _files(top)
    manifest = Manifest(
        created_with=top.text("created_with"),
        required_features=features,
        serial=top.integer("serial", 0),
        board=top.text("board", _BOARD.fullmatch),
        model=_model(top.inner("model")),
        code=_code(top.inner("code")),
        weights=check_member(top.text("weights")),
        golden=_golden(top.inner("golden")),
        k_range=_k_range(top.items("k_range", 2)),
        defaults=_dials(top.inner("defaults")),
        frontier=tuple(_dials(setting, recall=True) for setting in top.each("frontier", 100)),
        memory=_memory(top.mapping("memory")),
        compute=tuple(
            {"k": p.fraction("k"), "tokens": p.fraction("tokens"), "macs": p.number("macs")}
            for p in top.each("compute", 1000)
        ),
        profile=_profile(top.inner("profile")),
        backends=top.mapping("backends"),
        files=files,
    )
    _input(top.inner("input"))
    _check_dials(manifest)
    _check_references(manifest)
    return manifest


def _again(document: dict[str, Any]) -> str:
    """The command that builds an artifact once more, with what its manifest says of it."""
    board, model = document.get("board"), document.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    options = [
        f" --{option} {value}"
        for option, value in (("board", board), ("model", name))
        if isinstance(value, str) and _COMPONENT.fullmatch(value)
    ]
    return f"build it again with 'tatvpr-edge build{''.join(options)}'"


def _files(top: Fields) -> tuple[FileEntry, ...]:
    files = tuple(
        FileEntry(
            path=check_member(entry.text("path")),
            bytes=entry.integer("bytes", 0),
            sha256=entry.text("sha256", _SHA256.fullmatch),
        )
        for entry in top.each("files")
    )
    names = [entry.path for entry in files]
    # Case is folded: two such names would be one file on some file systems.
    folded = {name.lower() for name in names}
    if len(folded) != len(names):
        raise ArtifactError(f"{MANIFEST}: a file is listed twice")
    for name in names:
        if any(parent.as_posix().lower() in folded for parent in PurePosixPath(name).parents):
            raise ArtifactError(f"{MANIFEST}: {name} lies inside another listed file")
    return files


def _model(model: Fields) -> ModelEntry:
    return ModelEntry(
        name=model.text("name"),
        hash=model.text("hash", _SHA256.fullmatch),
        head=model.text("head"),
        descriptor_size=model.integer("descriptor_size", 1, 65536),
        image_size=model.integer("image_size", 1, 65536),
        token_dim=model.integer("token_dim", 1, 65536),
        max_tokens=model.integer("max_tokens", 1, 2**24),
        weights=model.text("weights", lambda kind: kind in (TRAINED, RANDOM)),
        groups=_groups(model.mapping("groups")),
    )


def _groups(values: dict[str, Any]) -> dict[str, int]:
    fields = Fields(values, "model.groups")
    return {name: fields.integer(name, 2, 65536) for name in values}


def _dials(setting: Fields, recall: bool = False) -> Dials:
    found = setting.number("recall") if recall else None
    if found is not None and not 0 <= found <= 100:
        raise ArtifactError(f"{MANIFEST}: frontier: a recall of {found:g} is no percentage")
    return Dials(setting.fraction("k"), setting.fraction("tokens"), found)


def _code(code: Fields) -> Code:
    return Code(
        kind=code.text("kind", lambda kind: kind in CODE_KINDS),
        path=check_member(code.text("path")),
        triple=code.text("triple"),
        kernels=code.texts("kernels"),
        abi=code.integer("abi", 1),
    )


def _input(contract: Fields) -> None:
    contract.text("resize", lambda name: name == RESIZE)
    contract.texts("formats")


def _golden(golden: Fields) -> Golden:
    return Golden(
        exact=golden.flag("exact"),
        frames=tuple(
            GoldenFrame(
                check_member(frame.text("path")),
                frame.integer("width", 1, 65536),
                frame.integer("height", 1, 65536),
            )
            for frame in golden.each("frames", 100)
        ),
        points=tuple(
            GoldenPoint(
                point.fraction("k"),
                point.fraction("tokens"),
                check_member(point.text("path")),
                _min_cosine(point),
            )
            for point in golden.each("points", 1000)
        ),
    )


def _min_cosine(point: Fields) -> float:
    bound = point.number("min_cosine")
    if not LOWEST_COSINE <= bound <= 1.0 + 1e-9:  # two equal vectors may round to more than 1
        raise ArtifactError(
            f"{MANIFEST}: min_cosine {bound:g} of a golden point is outside {LOWEST_COSINE:g}..1: "
            "it would tell no right answer from a wrong one"
        )
    return bound


def _k_range(values: list[Any]) -> tuple[float, float]:
    if len(values) != 2 or not all(is_number(value) for value in values):
        raise ArtifactError(f"{MANIFEST}: k_range is not two numbers")
    low, high = float(values[0]), float(values[1])
    if not 0 < low <= high <= 1:
        raise ArtifactError(f"{MANIFEST}: k_range {low:g}..{high:g} is not inside (0, 1]")
    return low, high


def _memory(values: dict[str, Any]) -> dict[str, int]:
    fields = Fields(values, "memory")
    return {name: fields.integer(name, 0) for name in values}


def _profile(profile: Fields) -> dict[str, Any]:
    points = []
    for point in profile.each("points", 10_000):
        point.fraction("k")
        point.fraction("tokens")
        points.append(point._values)
    return {"device": profile.mapping("device"), "points": points}


def _check_dials(manifest: Manifest) -> None:
    """Every k that a reader takes from here is one that it would accept from its caller."""
    low, high = manifest.k_range
    for setting in (manifest.defaults, *manifest.frontier):
        if not low <= setting.k <= high:
            raise ArtifactError(
                f"{MANIFEST}: k {setting.k:g} of its defaults or frontier is outside its k_range "
                f"{low:g}..{high:g}"
            )


def _check_references(manifest: Manifest) -> None:
    """Every file that a field names is listed, and golden files have the sizes they must have."""
    manifest.file(manifest.code.path)
    manifest.file(manifest.weights)
    golden, model = manifest.golden, manifest.model
    if not golden.frames or not golden.points:
        raise ArtifactError(
            f"{MANIFEST} has no golden point, so that nobody could tell a right answer from a "
            "wrong one: build the artifact again"
        )
    for frame in golden.frames:
        if manifest.file(frame.path).bytes != frame.width * frame.height * 3:
            raise ArtifactError(f"golden frame {frame.path} does not have its size in bytes")
    for point in golden.points:
        wanted = 4 * model.descriptor_size * len(golden.frames)
        if manifest.file(point.path).bytes != wanted:
            raise ArtifactError(f"golden vectors {point.path} do not have {wanted} bytes")

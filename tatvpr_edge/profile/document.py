"""The profile document on the host: checked, completed with recall, written as files.

In: the JSON that ``tatvpr_edge.runtime.profiling.profile_artifact`` returns, here or from a board.
Out: ``profile.json``, ``profile.csv``, and the part of it that the artifact's manifest carries.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tatvpr_edge.profile.shape import check_shape
from tatvpr_edge.runtime.profiling.measure import DOCUMENT_FORMAT
from tatvpr_edge.spec.documents import read_json
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.text import parse_json

_COLUMNS = (
    *("k", "tokens", "p50_ms", "p95_ms", "p99_ms", "mean_ms", "min_ms", "max_ms", "queries"),
    *("energy_mj", "energy_gross_mj", "power_mw", "macs", "recall"),
    *("valid", "invalid", "energy_note"),
)


def check_document(document: Any, where: str) -> dict[str, Any]:
    """The document itself.

    Raises:
        DataError: it is no profile, of another format, or a part is missing or malformed.
    """
    if not isinstance(document, dict) or document.get("format") != DOCUMENT_FORMAT:
        raise DataError(f"{where} is no profile of the format {DOCUMENT_FORMAT!r}: profile again")
    points = document.get("points")
    if not isinstance(points, list) or not points:
        raise DataError(f"{where} holds no measured point: profile again")
    check_shape(document, where)
    return document


def read_document(path: str | Path) -> dict[str, Any]:
    """A profile.json.

    Raises:
        DataError: as `check_document`, or the file cannot be read or is not JSON.
    """
    return check_document(read_json(Path(path), DataError), str(path))


def add_recall(
    document: dict[str, Any], recall: Mapping[tuple[float, float], float], what: str
) -> None:
    """Puts measured Recall@1 (0 to 1) into the points of the same k and tokens."""
    for point in document["points"]:
        for (k, tokens), value in recall.items():
            if math.isclose(k, point["k"]) and math.isclose(tokens, point["tokens"]):
                point["recall"] = value
    document["recall"] = {"what": what}


def read_recall(path: str | Path) -> tuple[dict[tuple[float, float], float], str]:
    """Recall@1 by (k, tokens), as a fraction, and what it was measured on.

    Reads what ``tatvpr-edge evaluate --json`` prints (of two folders, or the first model of the
    first protocol), or ``{"what": "...", "points": [{"k", "tokens", "recall"}]}``.

    Raises:
        DataError: the file has none of these forms.
        OSError: it cannot be read.
    """
    wrong = DataError(f"{path} holds no recall: give what 'tatvpr-edge evaluate --json' prints")
    try:
        document = parse_json(Path(path).read_text(encoding="utf-8-sig"))
        if "points" in document:
            found = {
                (float(p["k"]), float(p.get("tokens", 1.0))): float(p["recall"])
                for p in document["points"]
                if p.get("recall") is not None
            }
            what = str(document.get("what", Path(path).name))
        elif "recall" in document:
            found = {(float(k), 1.0): v["@1"] / 100.0 for k, v in document["recall"].items()}
            what = f"frames of two folders, {document['queries_counted']} queries"
        else:
            protocol, models = next(iter(document["protocols"].items()))
            model, values = next(iter(models.items()))
            found = {(float(k), 1.0): float(v) / 100.0 for k, v in values["recall@1"].items()}
            what = f"{model}, protocol {protocol}, {values.get('queries', '?')} queries"
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError, OverflowError):
        raise wrong from None
    if not found or not all(0.0 <= value <= 1.0 for value in found.values()):
        raise wrong
    return found, what


def has_valid(profile: Mapping[str, Any] | None) -> bool:
    """Whether a manifest's profile holds a point that a governor goes by."""
    points = [] if profile is None else profile.get("points", [])
    return any(isinstance(point, Mapping) and point.get("valid") is not False for point in points)


def manifest_profile(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the artifact's manifest carries: enough for the governor, and for people to judge it."""
    points = []
    for point in document["points"]:
        latency = point["latency_ms"]
        kept = {
            "k": point["k"],
            "tokens": point["tokens"],
            "latency_ms": {name: round(latency[name], 4) for name in ("p50", "p95", "p99")},
            "energy_mj": None if point["energy_mj"] is None else round(point["energy_mj"], 4),
            "macs": point["macs"],
            "valid": point["valid"],
        }
        if point.get("recall") is not None:
            kept["recall"] = round(point["recall"], 5)
        if not point["valid"]:
            kept["invalid"] = point.get("invalid", "")
            if point.get("busy"):
                kept["busy"] = True
                kept["others_cores"] = round(point.get("others_cores") or 0.0, 2)
        points.append(kept)
    device = {key: value for key, value in document["device"].items() if value not in (None, "")}
    for key in ("backend", "kernels"):
        if document["artifact"].get(key):
            device[key] = document["artifact"][key]
    if "recall" in document:
        device["recall_of"] = document["recall"]["what"]
    return {"device": device, "points": points}


def to_csv(document: Mapping[str, Any]) -> str:
    """One row a point; what is not known is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for point in document["points"]:
        latency = point["latency_ms"]
        names: Sequence[str] = ("p50", "p95", "p99", "mean", "min", "max", "count")
        cells = [point["k"], point["tokens"], *(latency[name] for name in names)]
        cells += [point.get(name) for name in _COLUMNS[9:]]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()

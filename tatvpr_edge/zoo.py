"""Shipped models by name: the ONNX file inside the installed package, checked against its card.

The compilers read models through this; they know nothing of how a model was trained. A card,
``models/zoo/<name>.json``, names the files of a model and their SHA-256.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.text import parse_json

#: The package is this folder; ``models`` is linked into it.
ZOO = Path(__file__).resolve().parent / "models" / "zoo"


def names(zoo: Path = ZOO) -> list[str]:
    """Names of the shipped models."""
    return sorted(card.stem for card in zoo.glob("*.json"))


def card(name: str, zoo: Path = ZOO) -> dict[str, Any]:
    """The card of a shipped model: files, data, schedule, recall.

    Raises:
        ModelError: unknown name (the text lists the known ones), or a damaged card.
    """
    if name not in names(zoo):
        known = ", ".join(names(zoo)) or "none"
        raise ModelError(f"unknown model {name!r}: shipped are {known}; or give an ONNX file")
    path = zoo / f"{name}.json"
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(values["files"], dict):
            raise TypeError("files is not a table")
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: a damaged card ({error}): install the package again") from error
    return dict(values)


def path(name: str, suffix: str = "onnx", zoo: Path = ZOO) -> Path:
    """The file of a shipped model, its SHA-256 checked.

    Args:
        suffix: "onnx", or "safetensors" for the weights to train on.

    Raises:
        ModelError: unknown name, or a file that is missing or not what the card says.
    """
    entry = card(name, zoo)["files"].get(suffix)
    file = zoo / f"{name}.{suffix}"
    if not isinstance(entry, dict) or "sha256" not in entry:
        raise ModelError(f"{zoo / name}.json names no {suffix} file: install the package again")
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}): install again") from error
    if digest != entry["sha256"]:
        raise ModelError(f"{file}: SHA-256 is not that of its card: install the package again")
    return file

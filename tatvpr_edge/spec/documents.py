"""Files that people write and tools leave, TOML and JSON: read in one place, refused in one way.

Whatever is wrong with the file is one line that names it. The mark that some editors put before
UTF-8 is passed over. Standard library only.
"""

from __future__ import annotations

import errno
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.errors import TatvprError
from tatvpr_edge.spec.text import parse_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_MOST_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


def read_bytes(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """All bytes of a file or a pipe, which may be a device without an end.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    data = bytearray()
    with open(path, "rb", buffering=0) as source:
        while chunk := source.read(_CHUNK_BYTES):
            data += chunk
            if len(data) > most_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return bytes(data)


def read_toml(path: Path, error: type[TatvprError], shown: str | None = None) -> dict[str, Any]:
    """The tables of the TOML file at ``path``.

    Args:
        error: what is raised.
        shown: what the file is called in errors; its path without.

    Raises:
        TatvprError: of the kind ``error``: no such file, not UTF-8, not TOML.
    """
    values: dict[str, Any] = _read(path, parse_toml, "TOML", error, shown)
    return values


def read_json(path: Path, error: type[TatvprError], shown: str | None = None) -> Any:
    """The value in the JSON file at ``path``; arguments and errors as of :func:`read_toml`."""
    return _read(path, parse_json, "JSON", error, shown)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of TOML ``text``.

    Raises:
        ValueError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _read(
    path: Path,
    parse: Callable[[str], Any],
    language: str,
    error: type[TatvprError],
    shown: str | None,
) -> Any:
    name = str(path) if shown is None else shown
    try:
        return parse(read_bytes(path).removeprefix(BOM_UTF8).decode("utf-8"))
    except OSError as fault:
        where = "" if name == str(path) else f": check {path}"
        raise error(f"{name}: cannot be read: {fault.strerror}{where}") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{name}: byte {fault.start} is not UTF-8: save it as UTF-8") from fault
    except ValueError as fault:
        raise error(f"{name} is not valid {language}: {fault}") from fault

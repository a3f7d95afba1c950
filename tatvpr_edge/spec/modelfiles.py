"""What a model file is when it is none of ours: told by its first bytes, nothing in it is run.

``export`` and ``build`` ask here before a reader sees the file, so that people learn what they
hold and what to do with it, not which parser gave up.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.text import parse_json

#: Metadata of a weights file of ours: the model's configuration as JSON.
CONFIG_KEY = "tatvpr.config"
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
_START_BYTES = 512
_TRAIN = (
    "networks of other projects are not taken over: train one of ours with it as a teacher "
    "(docs/training.md)"
)
_DOWNLOAD = "download the file itself"
_STATE = f"'tatvpr-edge train' leaves weights.safetensors, which 'export' takes; {_TRAIN}"
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
#: Formats that begin with a mark of their own: (offset, mark, what it is, what to do).
_MARKS = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file it stands "
     "for", "run 'git lfs pull' where it came from"),
    (0, _OLD_TORCH, "a PyTorch checkpoint", _STATE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or h5py)", _TRAIN),
    (4, b"TFL3", "a TensorFlow Lite model", _TRAIN),
    (0, b"GGUF", "a GGUF file (llama.cpp)", _TRAIN),
    (0, b"ptrt", "a TensorRT engine", "give the ONNX file that it was made of"),
    (0, b"ftrt", "a TensorRT engine", "give the ONNX file that it was made of"),
    (0, b"\x93NUMPY", "a NumPy array", _TRAIN),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and give the file inside"),
    (257, b"ustar", "a tar archive", "unpack it and give the file inside"),
)  # fmt: skip


def refuse_foreign(path: str | os.PathLike[str], wanted: str) -> None:
    """Nothing for a file that may be ``wanted`` ("an ONNX file", "a weights file") or is damaged.

    Raises:
        ModelError: missing, unreadable, or known to be something else; says what, and what to do.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError(f"{file}: no such file; 'tatvpr-edge models' lists the shipped models")
    if file.is_dir():
        raise ModelError(f"{file} is a folder, not {wanted}: give a file in it")
    if not file.is_file():  # a pipe would be waited for, a device may have no end
        raise ModelError(f"{file} is a pipe or a device, not {wanted}: give a file")
    try:
        found = _kind(file)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    if found is not None and found[0] != wanted:
        raise ModelError(f"{file} is {found[0]}, not {wanted}: {found[1]}")


def _kind(file: Path) -> tuple[str, str] | None:
    """(what it is, what to do), None where the first bytes do not say."""
    with file.open("rb") as stream:
        start = stream.read(_START_BYTES)
    if not start:
        return "empty", "copy or download it again"
    for offset, mark, what, remedy in _MARKS:
        if start[offset : offset + len(mark)] == mark:
            return what, remedy
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page that was saved under this name", _DOWNLOAD
    if start.startswith(b"PK\x03\x04"):
        return _archive(file)
    if start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which can run code and is never opened", _STATE
    header = _safetensors_header(file, start)
    if header is not None:
        return _safetensors(header)
    if start[0] == 0x08 and file.suffix == ".onnx":
        return "an ONNX file", "it is exported already: 'tatvpr-edge build --model' takes it"
    return None


def _archive(file: Path) -> tuple[str, str]:
    """A ZIP file: torch has written three kinds of them, NumPy one."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "a ZIP archive that is cut short", "copy or download it again"
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "a TorchScript program", _TRAIN
    if "models/model.json" in inner or "archive_format" in inner:
        return "a program of torch.export", _TRAIN
    if "data.pkl" in inner:
        return "a PyTorch checkpoint", _STATE
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays", _TRAIN
    return "a ZIP archive", "unpack it and give the file inside"


def _safetensors_header(file: Path, start: bytes) -> dict[str, object] | None:
    length = int.from_bytes(start[:8], "little")
    limit = min(_MAX_HEADER_BYTES, file.stat().st_size - 8)
    if start[8:9] != b"{" or not 2 <= length <= limit:
        return None
    with file.open("rb") as stream:
        stream.seek(8)
        try:
            header = parse_json(stream.read(length))
        except ValueError:
            return None
    return header if isinstance(header, dict) else None


def _safetensors(header: dict[str, object]) -> tuple[str, str]:
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and CONFIG_KEY in metadata:
        return "a weights file", "'tatvpr-edge export FILE --output model.onnx' makes one of it"
    names = sorted(name for name in header if name != "__metadata__")
    shown = f" (its first tensor is {names[0][:60]!r})" if names else ""
    return f"a safetensors file without {CONFIG_KEY}, of another project{shown}", _TRAIN

"""An ONNX file to a ModelProto with all its data in memory, read as if an enemy had written it.

Called by :mod:`tatvpr_edge.compilers.checks`. External data must be a plain file inside the
model's own folder: absolute paths, ``..``, links (symbolic or hard) and holes are refused by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.modelfiles import refuse_foreign

EXPORT_AGAIN = "export the model again with 'tatvpr-edge export'"


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model at ``path`` with its external tensors read into it.

    Raises:
        ModelError: no such file, not ONNX (the text says what it is), or external data that is
            unsafe, missing or short.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError(f"{file}: no such ONNX file; 'tatvpr-edge models' lists the shipped ones")
    refuse_foreign(file, "an ONNX file")
    try:
        model = onnx.load(str(file), load_external_data=False, format="protobuf")
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{file} is not an ONNX file or is cut short: {EXPORT_AGAIN}") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    _check_texts(model, file)
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{file} holds no graph: {EXPORT_AGAIN}")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            _read_external(tensor, file.resolve().parent)
    return model


def _check_texts(message: Message, file: Path) -> None:
    """Refuse a text that is no UTF-8: of an old syntax like ONNX's the reader hands it out as
    ``bytes``, which nothing behind here expects."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if isinstance(value, Sequence) else [value]:
                _check_texts(part, file)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ModelError(
                        f"{file}: {field.name} {text[:40]!r} is not UTF-8 text: {EXPORT_AGAIN}"
                    )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _read_external(tensor: onnx.TensorProto, folder: Path) -> None:
    """Replace the reference in ``tensor`` by the bytes it names."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    where = f"external data of tensor {tensor.name!r}"
    location = fields.get("location", "")
    file = _contained(location, folder, where)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{where}: unknown element type {tensor.data_type}") from None
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{where}: negative dimension in {list(tensor.dims)}")
    expected = int(np.prod([int(d) for d in tensor.dims], dtype=object)) * dtype.itemsize
    offset = _whole(fields.get("offset", "0"), "offset", where)
    length = _whole(fields.get("length", str(expected)), "length", where)
    size = file.stat().st_size
    if length != expected:
        raise ModelError(f"{where}: {length} bytes stated, its shape takes {expected}")
    if offset + length > size:
        raise ModelError(f"{where}: {location} has {size} bytes, {offset + length} are needed")
    with open(file, "rb") as handle:
        handle.seek(offset)
        tensor.raw_data = handle.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _whole(text: str, what: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"{where}: {what} {text!r} is not a whole number")
    return int(text)


def _contained(location: str, folder: Path, where: str) -> Path:
    """The file that ``location`` names, which must be a plain one inside ``folder``."""
    remedy = "it must be a plain file in the model's own folder"
    pure = PurePosixPath(location)
    absolute = pure.is_absolute() or PureWindowsPath(location).is_absolute()
    climbs = ".." in pure.parts or ".." in PureWindowsPath(location).parts
    if not location or "\0" in location or absolute or climbs:
        raise ModelError(f"{where} is at {location!r}: {remedy}")
    current = folder
    for part in pure.parts:
        current = current / part
        try:
            status = os.lstat(current)
        except OSError:
            raise ModelError(f"{where}: {location!r} is missing beside the model") from None
        if stat.S_ISLNK(status.st_mode):
            raise ModelError(f"{where}: {location!r} is a symbolic link: {remedy}")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{where}: {location!r} is not a file: {remedy}")
    if status.st_nlink != 1:
        raise ModelError(f"{where}: {location!r} is a hard link to a file elsewhere: {remedy}")
    if not current.resolve().is_relative_to(folder):
        raise ModelError(f"{where} is at {location!r}: {remedy}")
    return current

"""Weights and training states on disk: written atomically, never able to run code when read.

Weights are safetensors with the model's configuration in their metadata. A training state is
torch's format, read with ``weights_only``.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tatvpr_edge import zoo
from tatvpr_edge.models.heads import whole_options
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.modelfiles import CONFIG_KEY, refuse_foreign
from tatvpr_edge.spec.text import parse_json

#: The gate has no weights: a checkpoint may be run with another gate or precision.
_WITHOUT_WEIGHTS = ("backbone.groups", "backbone.scope", "backbone.ternary", "backbone.keep_after")
_WEIGHTS_KEY = "tatvpr.weights"


def write_atomically(path: Path, data: bytes) -> None:
    """``data`` at ``path``, whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as sink:
        sink.write(data)


def save_weights(model: PlaceModel, path: Path, *, half: bool = False) -> None:
    """The model's weights with its configuration; ``half`` stores them in half precision."""
    tensors = {
        name: (value.half() if half else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    metadata = {
        CONFIG_KEY: json.dumps(model.config.to_dict(), sort_keys=True),
        _WEIGHTS_KEY: "trained" if model.trained else "random",
    }
    write_atomically(path, _ordered(save(tensors, metadata)))


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its metadata in one order: the library's is another every
    time, and who compares files by their hashes would find other weights."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def weights_file(name: str | os.PathLike[str]) -> Path:
    """The weights that ``name`` means: a ``.safetensors`` file, or a shipped model's name.

    Raises:
        ModelError: neither, or a shipped file that is not what its card says.
    """
    path = Path(os.path.expanduser(name))
    if path.suffix == ".safetensors":
        return path
    try:
        return zoo.path(str(name), "safetensors")
    except ModelError as error:
        if str(name) in zoo.names():
            raise
        known = ", ".join(zoo.names())
        raise ModelError(
            f"unknown model {str(name)!r}: give a .safetensors file or a shipped model's name "
            f"({known})"
        ) from error


def needing_other_weights(wanted: ModelConfig, stored: ModelConfig) -> list[str]:
    """Names of the settings in which ``wanted`` needs other weights than ``stored`` has; empty
    where they fit. An option that one of them leaves to its head's default is said with it.

    Raises:
        ModelError: a head is unknown.
    """
    mine, theirs = wanted.to_dict(), stored.to_dict()
    for values, config in ((mine, wanted), (theirs, stored)):
        values["head"]["options"] = whole_options(config.head)
    return [
        f"{part}.{key}"
        for part in ("backbone", "head")
        for key in sorted(mine[part])
        if f"{part}.{key}" not in _WITHOUT_WEIGHTS and mine[part][key] != theirs[part][key]
    ]


def load_weights(
    path: str | os.PathLike[str], *, expected: ModelConfig | None = None
) -> PlaceModel:
    """The model in a weights file, in evaluation mode.

    Args:
        expected: build this model, and refuse a file whose weights belong to another architecture.
            Gate settings (group, scope) may differ: they have no weights.

    Raises:
        ModelError: missing or damaged file, a file of another project (the text says what it is),
            or another architecture.
    """
    refuse_foreign(path, "a weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors file that can be read ({error})") from error
    if CONFIG_KEY not in metadata:
        raise ModelError(f"{path}: has no {CONFIG_KEY} metadata: not written by tatvpr-edge train")
    try:
        stored = ModelConfig.from_dict(parse_json(metadata[CONFIG_KEY]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path}: its configuration is damaged ({error})") from error
    wanted = expected or stored
    differing = needing_other_weights(wanted, stored)
    if differing:
        raise ModelError(
            f"{path}: holds a {stored.name} of another architecture than {wanted.name} "
            f"({', '.join(differing)} differ)"
        )
    _check_claim(path, wanted, tensors)
    model = PlaceModel(wanted)
    model.trained = metadata.get(_WEIGHTS_KEY) != "random"
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit {wanted.name} ({first})") from error
    return model.eval()


def _check_claim(
    path: str | os.PathLike[str], wanted: ModelConfig, tensors: dict[str, torch.Tensor]
) -> None:
    """A line of metadata that claims a million blocks costs no minutes and no memory."""
    backbone = wanted.backbone
    blocks = {name.split(".")[2] for name in tensors if name.startswith("backbone.blocks.")}
    table = tensors.get("backbone.pos_embed")
    for key, claimed, there in (
        ("depth", backbone.depth, len(blocks)),
        ("tokens", backbone.tokens, 0 if table is None else len(table)),
    ):
        if claimed != there:
            raise ModelError(
                f"{path}: weights do not fit {wanted.name}: its {key} is {claimed} and the file "
                f"has weights of {there}: write the file again"
            )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """A training state: tensors, numbers, strings, lists and dictionaries of them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` wrote.

    Raises:
        ModelError: missing, damaged, or a pickle that holds anything but data.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on foreign pickles; we refuse them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused, because it holds more than data (a pickle can run code) "
            "or is damaged: take a checkpoint that tatvpr-edge train wrote"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        said = str(error).partition(". ")[0] or type(error).__name__
        raise ModelError(
            f"{path}: not a training state that can be read ({said}): remove it to begin its stage "
            "anew"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(f"{path}: not a training state: remove it to begin its stage anew")
    return state

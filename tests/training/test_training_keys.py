"""The page of keys explains every key that a training file may hold, with its default."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tatvpr_edge.models.train.config import TrainConfig


def keys(record: Any, where: str = "") -> Iterator[tuple[str, Any, str]]:
    """(section, record, key) of every key below ``record``."""
    for name, kind in typing.get_type_hints(record).items():
        inner = typing.get_args(kind)[0] if name == "data" else kind
        if dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{where}.{name}".strip("."))
        else:
            yield where, record, name


def test_every_key_is_explained(project_root: Path) -> None:
    from training_keys import explained, page

    written = (project_root / "docs" / "training-keys.md").read_text()
    assert written == page(), "python tools/training_keys.py > docs/training-keys.md"
    found = list(keys(TrainConfig))
    assert len(found) > 90
    for section, record, key in found:
        texts = [text for names, text in explained(record) if key in names]
        assert len(texts) == 1 and len(texts[0]) > 2, f"{section}.{key} is not explained"
        own = written.split(f"## `[{section}]`" if section != "data" else "## `[[data]]`")[1]
        assert f"`{key}`" in own.split("\n## ")[0], f"{section}.{key} is not on the page"

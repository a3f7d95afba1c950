"""Every key of a training file with its default: ``docs/training-keys.md``, from the records.

python tools/training_keys.py > docs/training-keys.md
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from tatvpr_edge.models.train.config import DataConfig, TrainConfig

_HEAD = """# Keys of a training file

Written by `python tools/training_keys.py` from the records in `models/train/config.py` and
`models/train/augment.py`, which check a file. What the keys are for: [training](training.md).
"""


def main() -> None:
    print(page(), end="")


def page() -> str:
    """The page."""
    parts = [_HEAD]
    made = TrainConfig()
    for field in dataclasses.fields(made):
        if field.name == "data":
            parts += _section("[[data]]", DataConfig())
        else:
            parts += _section(f"[{field.name}]", getattr(made, field.name))
    return "\n".join(parts)


def _section(title: str, record: Any) -> Iterator[str]:
    """A table of the keys of ``record``, whose values are the defaults, and of its tables."""
    yield f"## `{title}`\n"
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    tables = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    yield "| key | default | |"
    yield "|---|---|---|"
    for names, text in explained(type(record)):
        shown = ", ".join(f"`{_toml(values[name])}`" for name in names)
        yield f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {text} |"
    yield ""
    for name, value in tables.items():
        yield from _section(title.replace("]", f".{name}]"), value)


def explained(record: Any) -> list[tuple[list[str], str]]:
    """(keys, what is said of them) in the docstring of ``record``, in its order."""
    _, _, listed = inspect.cleandoc(record.__doc__ or "").partition("Attributes:\n")
    made: list[tuple[list[str], str]] = []
    for line in listed.splitlines():
        begins = re.match(r"    (\w[\w, ]*): (.*)", line)
        if begins:
            made.append((begins[1].split(", "), begins[2]))
        elif line.strip():
            keys, text = made.pop()
            made.append((keys, f"{text} {line.strip()}"))
    return [(keys, text.replace("``", "`").replace("|", "\\|")) for keys, text in made]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{}"
    return "[]" if value == () else f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    main()

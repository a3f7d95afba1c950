"""What the command lines of the rendering tools share: options, and the folder that they write."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from given import whole

from tatvpr_edge.spec.atomic import naming, put_new, staging
from tatvpr_edge.spec.errors import DataError


def make_parser(doc: str | None, size: str, quality: int) -> argparse.ArgumentParser:
    """A parser with --seed, --size, --quality and --output, summarised by a page's first line."""
    summary = (doc or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary, allow_abbrev=False)
    add = parser.add_argument
    add("--seed", type=whole(0), default=0, help="the same seed gives the same frames (0)")
    add("--size", default=size, help=f"WIDTHxHEIGHT of the frames ({size})")
    add("--quality", type=whole(1, 95), default=quality, help=f"of the JPEG files ({quality})")
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


@contextlib.contextmanager
def new_set(output: Path) -> Iterator[Path]:
    """A folder to fill with a set of frames, which is ``output`` in the end, whole or not at all.

    Raises:
        DataError: something lies at ``output``, before or by then.
    """
    said = f"{output} exists: name a new folder with --output"
    if output.exists():
        raise DataError(said)
    output.parent.mkdir(parents=True, exist_ok=True)
    with naming(output), staging(output) as folder:
        folder.chmod(0o755)
        yield folder
        try:
            put_new(folder, output)
        except FileExistsError:
            raise DataError(said) from None

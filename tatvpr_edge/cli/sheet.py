"""The demo's contact sheet: each query beside the frame that it was matched with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import DataError

if TYPE_CHECKING:
    from tatvpr_edge.cli.demo import Answer

THUMB = (112, 84)
FRAME = 3
CAPTION = 14
GAP = 8
TITLE = 28
COLUMNS = 7
RIGHT, WRONG = (46, 125, 50), (198, 40, 40)
INK, PAPER = (33, 33, 33), (250, 250, 250)


def write_sheet(
    path: Path, gallery: Path, queries: Path, answers: Sequence[Answer], setting: str
) -> None:
    """Write the PNG: green frames are right, red ones are wrong.

    Raises:
        DataError: it cannot be written; nothing is left behind.
    """
    cell = (2 * THUMB[0] + 3 * FRAME, THUMB[1] + 2 * FRAME + CAPTION)
    columns = min(COLUMNS, len(answers))
    lines = math.ceil(len(answers) / columns)
    size = (GAP + columns * (cell[0] + GAP), TITLE + GAP + lines * (cell[1] + GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    right = sum(answer.right for answer in answers)
    draw.text(
        (GAP, GAP),
        f"tatvpr-edge demo, {setting}: {right} of {len(answers)} right. Left: query. Right: the "
        "place found. Green: right, red: wrong.",
        fill=INK,
    )
    for index, answer in enumerate(answers):
        line, column = divmod(index, columns)
        corner = (GAP + column * (cell[0] + GAP), TITLE + GAP + line * (cell[1] + GAP))
        _draw_pair(sheet, draw, corner, cell, gallery, queries, answer)
    save_picture(sheet, path)


def _draw_pair(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: tuple[int, int],
    gallery: Path,
    queries: Path,
    answer: Answer,
) -> None:
    x, y = corner
    colour = RIGHT if answer.right else WRONG
    draw.rectangle((x, y, x + cell[0] - 1, y + THUMB[1] + 2 * FRAME - 1), fill=colour)
    for offset, file in ((0, queries / answer.query), (THUMB[0] + FRAME, gallery / answer.found)):
        sheet.paste(open_rgb(file).resize(THUMB), (x + FRAME + offset, y + FRAME))
    verdict = "right" if answer.right else "wrong"
    caption = (
        f"{Path(answer.query).stem} -> {Path(answer.found).stem}  {answer.score:.2f} {verdict}"
    )
    draw.text((x, y + THUMB[1] + 2 * FRAME + 1), caption, fill=colour, font_size=10)


def save_picture(sheet: Image.Image, path: Path) -> None:
    """Write a PNG of few colours, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with replacing(path, mode=0o644) as sink:
            # A palette: a third of the bytes, and the difference cannot be seen.
            sheet.quantize(256).save(sink, format="PNG", optimize=True)
    except OSError as error:
        raise DataError(f"cannot write the picture {path}: {error.strerror or error}") from error

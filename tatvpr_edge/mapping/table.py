"""Tables beside frames, as spreadsheets, robots and scripts write them.

Accepted: commas, semicolons, tabs or bars between columns; UTF-8 with or without byte order mark,
UTF-16; spaces around names and numbers; a header that begins with ``#``; numbers with a decimal
comma where commas do not divide columns. Column names are compared without case.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.spec.documents import read_bytes
from tatvpr_edge.spec.errors import DataError

_MOST_BYTES = 1 << 30
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns.

    Attributes:
        path: for messages.
        columns: names as they are compared: lower case, no spaces around.
        rows: one dictionary a row.
        lines: the line of the file on which each row ends.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    decimal_comma: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def number(self, index: int, column: str) -> float:
        """The number in ``column`` of row ``index``; NaN where the cell is empty.

        Raises:
            DataError: another text, or infinity; it names the line.
        """
        text = self.rows[index][column]
        if self.decimal_comma and re.fullmatch(r"[-+]?\d*,\d+", text):
            text = text.replace(",", ".")
        try:
            value = float(text or "nan")
        except ValueError:
            raise DataError(
                f"{self.where(index)}: {column} is {text[:40]!r}, which is no number"
            ) from None
        if value in (float("inf"), float("-inf")):
            raise DataError(f"{self.where(index)}: {column} is infinite: leave unknown cells empty")
        return value

    def where(self, index: int) -> str:
        """``FILE, line N`` of a row."""
        return f"{self.path}, line {self.lines[index]}"


def read_table(path: str | Path, required: Collection[str] = ()) -> Table:
    """The table in the file ``path``, which must have the columns ``required``.

    Raises:
        DataError: it cannot be read, lacks a column, names one twice, has no rows, or a row has
            another number of columns than the header.
    """
    path = Path(os.path.expanduser(path))
    try:
        text = _text(read_bytes(path, _MOST_BYTES))
        header, delimiter, body = _header(text)
        columns = tuple(name.strip().lower() for name in header)
        lacking = sorted(set(required) - set(columns))
        if lacking:
            raise DataError(f"{path}: no column {', '.join(lacking)}")
        twice = sorted({name for name in columns if name and columns.count(name) > 1})
        if twice:
            raise DataError(f"{path}: two columns are called {twice[0]!r}: rename or remove one")
        cells = list(_rows(body, delimiter))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    if not cells:
        raise DataError(f"{path}: has no rows: expected a header and a row for each frame")
    for line, row in cells:
        if len(row) != len(columns):
            raise DataError(f"{path}, line {line}: has another number of columns than line 1")
    return Table(
        path,
        columns,
        tuple(dict(zip(columns, (c.strip() for c in row), strict=True)) for _, row in cells),
        tuple(line for line, _ in cells),
        decimal_comma=delimiter != ",",
    )


def _text(data: bytes) -> str:
    """The text of a file of any usual encoding."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding)
    # UTF-16 without its mark: every other byte of a header in Latin letters is zero.
    if len(data) >= 4 and (data[1:4:2] == b"\0\0" or data[0:4:2] == b"\0\0"):
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be")
    return data.decode("utf-8")


def _header(text: str) -> tuple[list[str], str, str]:
    """(column names, delimiter, whole text) of a table."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=lambda mark: (first.count(mark), mark == ","))
    # Excel's own hint to itself.
    if first.lower().startswith("sep=") and len(first) == 5:
        return _header(text.split("\n", 1)[1] if "\n" in text else "")
    header = next(csv.reader([first.lstrip("# ")], delimiter=delimiter), [])
    return header, delimiter, text


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row after the header; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    next(reader, None)
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row

"""How commands speak: one JSON document, plain text, or progress on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.lines import left_out
from tatvpr_edge.spec.text import printable, without_nan

if TYPE_CHECKING:
    from tatvpr_edge.mapping.describe import Skipped

#: Where output has no terminal to tell its width (a pipe, a file), lines are not broken at 80.
PIPE_WIDTH = 160

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)

pose_frame_option = click.option(
    "--pose-frame",
    type=click.Choice(["local", "utm", "geographic"]),
    help="What positions are: metres of yours, UTM, or degrees (default: what names and columns "
    "of a table say).",
)

views_option = click.option(
    "--views/--single-view",
    default=True,
    show_default=True,
    help="Describe a place from several views of its frame, with parts of its neighbours' along a "
    "drive (found by more), or from its frame alone.",
)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the command line, which ends with status 0; rich's own way is status 1."""
        raise


def console(stderr: bool = False) -> Console:
    """A console that never reads markup out of users' names."""
    made = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def print_json(document: Any) -> None:
    """One JSON document on standard output. NaN has no place in JSON and becomes null."""
    click.echo(json.dumps(without_nan(document), indent=2, allow_nan=False))


def json_line(document: Any) -> str:
    """``document`` as one line of JSON, for output that goes on. NaN becomes null."""
    return json.dumps(without_nan(document), allow_nan=False)


def print_table(columns: list[str], rows: list[list[str]], right: tuple[str, ...] = ()) -> None:
    """A plain table on standard output; columns named in ``right`` are set to the right.

    On a terminal the last column wraps; in a pipe every row is one line of any length.
    """
    table = Table(box=None, pad_edge=False)
    for column in columns:
        last = column is columns[-1]
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    print_grid(table)


def print_grid(table: Table) -> None:
    """``table`` on standard output; in a pipe every row is one line, without blanks at its end."""
    shown = console()
    if shown.is_terminal:
        shown.print(table)
        return
    shown.width = 10_000
    with shown.capture() as captured:
        shown.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


Step = Callable[[int], None]


@contextlib.contextmanager
def progress(label: str, total: int, quiet: bool = False) -> Iterator[Step]:
    """A bar on standard error; call what it gives with the number of steps done.

    Without a terminal one line says what was done, at the end. ``quiet`` says nothing.
    """
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        done = 0

        def count(steps: int) -> None:
            nonlocal done
            done += steps

        yield count
        if not quiet:
            print(f"{label}: {done} of {total}", file=sys.stderr)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown, transient=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


def say(text: str) -> None:
    """One line on standard output; whatever stands in it, no terminal obeys it."""
    click.echo(printable(text))


def note(text: str, quiet: bool = False) -> None:
    """One line on standard error, as :func:`say`."""
    if not quiet:
        print(printable(text), file=sys.stderr)


def note_left_out(
    skipped: Sequence[Skipped], given: int | None = None, strict: bool = False, quiet: bool = False
) -> None:
    """Frames left out, on standard error: the first by name, the rest as a number.

    Args:
        given: how many frames there were; None: unknown.
        strict: the command has ``--strict``.
    """
    stops = " (--strict stops)" if strict else ""
    for line in left_out([frame.reason for frame in skipped], given, stops):
        note(line, quiet)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing ``path``, as a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None


def write_file(path: Path, data: str | bytes) -> None:
    """``data`` at ``path``, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as sink:
        # A folder's name may be no text: Python marks such bytes as surrogates.
        sink.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


class _Fraction(click.ParamType):
    """A number in (0, 1]; ``auto`` too where that is offered."""

    def __init__(self, name: str, auto: bool = False) -> None:
        self.name = name
        self._auto = auto

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if self._auto and value == "auto":
            return "auto"
        try:
            return _number(value, self.name)
        except UsageError as error:
            self.fail(str(error), param, ctx)


K = _Fraction("k")
K_OR_AUTO = _Fraction("k", auto=True)
TOKENS = _Fraction("tokens")


def setting_text(k: float, tokens: float) -> str:
    """A setting as :class:`KList` reads it."""
    return f"{k:g}" if tokens == 1 else f"{k:g}:{tokens:g}"


class KList(click.ParamType):
    """``1,.6,.4,.2`` as floats, or with ``bands`` ``1,.2:.5`` as (k, tokens) pairs."""

    name = "list"

    def __init__(self, bands: bool = False, what: str = "k") -> None:
        self._bands, self._what = bands, what

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        if not isinstance(value, str):
            return list(value)
        made: list[Any] = []
        try:
            for part in value.split(","):
                k, _, tokens = part.partition(":")
                if not self._bands:
                    made.append(_number(part, self._what))
                else:
                    made.append((_number(k, "k"), _number(tokens or "1", "tokens")))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if len(set(made)) != len(made):
            self.fail(f"{value!r} names one value twice", param, ctx)
        return made


def _number(text: Any, name: str) -> float:
    try:
        return check_fraction(float(text), name)
    except ValueError:
        # A word: check_fraction refuses it with the range.
        return check_fraction(text, name)


class _Measure(click.ParamType):
    """A number that may have its unit behind it."""

    unit: str
    meaning: str
    zero = False

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(str(value).strip().removesuffix(self.unit))
        except ValueError:
            number = float("nan")
        if not (0 < number < float("inf") or (self.zero and number == 0)):
            self.fail(f"{value!r} is no {self.meaning}", param, ctx)
        return number


class Metres(_Measure):
    """A distance such as ``25m`` or ``0.5``, in metres."""

    name, unit, meaning = "DISTANCE", "m", "distance in metres, such as 25m or 0.5m"


class Seconds(_Measure):
    """A time such as ``0.5s`` or ``2``, in seconds; 0 too."""

    name, unit, meaning = "TIME", "s", "time in seconds, such as 0.5s"
    zero = True


class BuildProgress:
    """Progress of a build: what it does now and, in long steps, how far it is.

    A context manager to call with ``(what, done, of)``; on a terminal a bar, else one line a step
    and one for each tenth of a step of ``_MANY`` parts or more, which may take many minutes.
    """

    _MANY = 50

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._what = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> BuildProgress:
        shown = console(stderr=True)
        if not self._quiet and shown.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn())
            self._bar = Progress(*columns, TimeElapsedColumn(), console=shown, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        if self._bar is not None:
            total = of if of > 1 else None
            if self._task is None:
                self._task = self._bar.add_task(what, total=total)
            self._bar.update(self._task, description=what, completed=done, total=total)
        elif what != self._what:
            note(what, self._quiet)
        elif of >= self._MANY and done * 10 // of > (done - 1) * 10 // of:
            note(f"{what}: {done} of {of}", self._quiet)
        self._what = what


def refuse_given(options: tuple[str, ...], why: str) -> None:
    """Raise UsageError where one of them was given: it would be left aside, said by nobody."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.opts[0] in options
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {why}")

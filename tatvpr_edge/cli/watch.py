"""``tatvpr-edge watch SOURCE``: where is this camera, live."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli.asking import Asking, asking_options
from tatvpr_edge.cli.output import Seconds, console, json_line, note, say, writing
from tatvpr_edge.cli.paths import FilePath, OutputFile

if TYPE_CHECKING:
    from tatvpr_edge.cli.watched import Sink


@click.command("watch")
@click.argument("source")
@asking_options
@click.option(
    "--sequence", type=click.IntRange(1, 1000), default=1, show_default=True,
    help="Frames that an answer rests on: a camera that moves is followed.",
)  # fmt: skip
@click.option("--realtime", is_flag=True, help="Play a file or folder at its own speed.")
@click.option(
    "--every", "every_s", type=Seconds(), default="0", help="Ask once in so many seconds."
)
@click.option("--limit", type=click.IntRange(1), help="End after so many answers.")
@click.option(
    "--record", type=FilePath(dir_okay=False, path_type=Path),
    help="Append a JSON line for each answer to this file.",
)  # fmt: skip
@click.option(
    "--rerun", type=OutputFile(".rrd"),
    help="Write a Rerun recording (.rrd): frames, places, figures.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True,
    help="Print a JSON line for each answer (also where output is no terminal).",
)  # fmt: skip
def command(
    source: str,
    asking: Asking,
    sequence: int,
    every_s: float,
    limit: int | None,
    realtime: bool,
    record: Path | None,
    rerun: Path | None,
    as_json: bool,
) -> None:
    """Where is this camera? SOURCE is a device (0, /dev/video0), an address (rtsp://...), a
    GStreamer pipeline, a FIFO, a video, or a folder of frames.

    Of a camera the newest frame is asked for; of a file every one. Ctrl-C ends.
    """
    import tatvpr_edge
    from tatvpr_edge.cli.watched import watch
    from tatvpr_edge.spec.errors import UsageError

    if every_s and not realtime and os.path.isdir(source):
        raise UsageError(
            f"--every: pictures of a folder ({source}) have no times: play it with --realtime"
        )
    # What OpenCV and FFmpeg say of a camera that is not there yet, the stream says once.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    shown = console()
    live = shown.is_terminal and not as_json
    with asking.opened(sequence=sequence) as localizer, contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if rerun is not None:
            from tatvpr_edge.cli.watch_rerun import RerunLog

            sinks.append(stack.enter_context(RerunLog(rerun)))
        if record is not None:
            sinks.append(stack.enter_context(_recorded(record)))
        if not live:
            sinks.append(lambda answer: click.echo(json_line(answer.document())))
        ended = stack.enter_context(_signals())
        frames = stack.enter_context(tatvpr_edge.stream(source, realtime=realtime))
        if live:
            from tatvpr_edge.cli.watch_live import View

            view = stack.enter_context(View(shown, frames))
            sinks.append(view)
        tracker = localizer.track() if sequence > 1 else None
        asked = watch(localizer, frames, ended, every_s, limit, sinks, tracker)
        taken = (frames.frames, frames.dropped, frames.damaged, frames.opened)
    (say if live else note)(_summary(asked, *taken))


#: How a recording begins, whatever of its first line a power cut left.
_FIRST = b'{"time_s": '


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM, so that the command ends in order; a second Ctrl-C ends it at
    once."""
    ended = threading.Event()

    def end(number: int, _: Any) -> None:
        if ended.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _recorded(path: Path) -> Iterator[Sink]:
    """A line an answer, in the file when it was given: nothing waits to be written at the end. A
    new file comes with the first, so that a camera that gives none leaves no empty one.

    Raises:
        DataError: the file cannot be opened, lies in an artifact, holds something else (a map, say,
            which lines behind it would ruin), or an answer cannot be written (a full disk).
    """
    from tatvpr_edge.spec.atomic import write_all
    from tatvpr_edge.spec.errors import DataError
    from tatvpr_edge.spec.targets import check_target, refuse_in_artifact

    # What is there takes lines where its folder takes no file: a log in root's folder, a pipe.
    (refuse_in_artifact if os.path.lexists(path) else check_target)(path)
    with writing(path):
        before = _recorded_before(path)
        if before and not before.startswith(_FIRST):
            raise DataError(
                f"{path} holds something else than lines of 'watch --record': name another file"
            )
        opened = [path.open("ab", buffering=0)] if os.path.lexists(path) else []

    def write(line: str) -> None:
        with writing(path):
            if not opened:
                opened.append(path.open("ab", buffering=0))
            write_all(opened[0].fileno(), line.encode())

    try:
        if before and not before.endswith(b"\n"):  # a power cut ended the last line
            write("\n")
        yield lambda answer: write(json_line(answer.document()) + "\n")
    finally:
        for file in opened:
            file.close()


def _recorded_before(path: Path) -> bytes:
    """The first and the last bytes of a file that is there; empty: there is none."""
    if not path.is_file():  # a pipe, or a device, keeps nothing
        return b""
    with path.open("rb") as file:
        head = file.read(len(_FIRST))
        file.seek(max(0, path.stat().st_size - 1))
        return head + file.read(1)


def _summary(
    asked: tuple[int, int | None], frames: int, dropped: int, damaged: int, opened: int
) -> str:
    answers, accepted = asked
    verdict = "none judged" if accepted is None else f"{accepted} accepted"
    text = f"{answers} answers, {verdict}; {frames} frames, {dropped} dropped"
    if damaged:
        text += f", {damaged} damaged"
    return text + (f"; opened {opened} times" if opened > 1 else "")

"""Object files, kept between builds: the core is the same for every model.

An object is found again by what the compiler read for it: its command, and every file that it
opened (asked of the compiler itself, ``-MD``; a C file that another one includes is among them).
Where one of them cannot be read, or was written while the compiler ran, nothing is kept.
A kept object carries its SHA-256; one that does not match is made again, and one that no build used
for a season goes when another is kept. Nothing of this defends
against somebody who may write to the folder: builds that are signed take nothing that an earlier
run left, of ours or of a compiler (:func:`made_anew`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from tatvpr_edge.compilers.probe import first_line
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.spec.atomic import replacing, temporary_folder
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.text import parse_json

_TIMEOUT_S = 600
_UNUSED_S = 90 * 86400
_DIGEST_BYTES = 32
#: Where compilers keep what they made while nothing of earlier runs is taken; else None.
_APART: ContextVar[Path | None] = ContextVar("apart", default=None)


@contextlib.contextmanager
def made_anew() -> Iterator[None]:
    """Inside, nothing is taken from a cache: not what a model's drift was found to be, and for
    compilers that are found inside, no object of an earlier build."""
    with temporary_folder("anew") as folder:
        token = _APART.set(folder)
        try:
            yield
        finally:
            _APART.reset(token)


def is_made_anew() -> bool:
    """Whether this is inside of :func:`made_anew`."""
    return _APART.get() is not None


class Running:
    """Programs under way, in whatever threads. Once they were ended, none goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs: set[subprocess.Popen[str]] = set()
        self._ended = False

    @contextlib.contextmanager
    def counting(self, program: subprocess.Popen[str]) -> Iterator[None]:
        """Inside, ``program`` is one of them."""
        with self._lock:
            self._programs.add(program)
            if self._ended:
                _signal(program, signal.SIGTERM)
        try:
            yield
        finally:
            with self._lock:
                self._programs.discard(program)

    def end(self) -> None:
        """End them in order: GCC takes its own scratch files along."""
        with self._lock:
            self._ended = True
            for program in self._programs:
                _signal(program, signal.SIGTERM)


def _signal(program: subprocess.Popen[str], number: int) -> None:
    """To it and what it started: GCC works in programs that outlive it, and hold its errors."""
    if program.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)


@dataclass(frozen=True)
class Compiler:
    """A C compiler for one board."""

    command: tuple[str, ...]  # with the flags that choose the board's CPU
    version: str  # first line of --version: part of the cache's key
    apart: Path | None = field(default_factory=_APART.get)  # None: objects are remembered
    running: Running = field(default_factory=Running, compare=False, repr=False)

    @property
    def name(self) -> str:
        """For reports."""
        return self.version

    def run(self, arguments: Sequence[str], what: str) -> None:
        """Compile or link; see :func:`run_tool`."""
        environment = None
        if self.apart is not None:  # zig keeps objects by itself, and gcc may be ccache's link
            caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(self.apart))
            # not CCACHE_DIR: beside its folder ccache asks servers that its settings name
            environment = {**os.environ, **caches, "CCACHE_DISABLE": "1"}
        run_tool([*self.command, *arguments], what, environment, self.running)

    def stop(self) -> None:
        """End what it compiles, in other threads, and will."""
        self.running.end()


def compile_object(compiler: Compiler, source: Path, flags: Sequence[str], output: Path) -> Path:
    """Compile one C file to ``output``, or write the object there that the same text gave before.

    Raises:
        ToolError: the compiler refused the file.
    """
    if compiler.apart is not None or source.suffix == ".S":  # .incbin: files that no compiler names
        _compile(compiler, source, flags, output)
        return output
    folder = cache_folder("objects")
    command_key = _command_key(compiler, source, flags)
    names = folder / f"{command_key}.json"
    known = _read_names(names)
    key = None if known is None else _key(command_key, source, known)
    data = None if key is None else _read_kept(folder / f"{key}.object")
    if data is not None:
        output.write_bytes(data)
        for used in (names, folder / f"{key}.object"):
            with contextlib.suppress(OSError):
                os.utime(used)
        return output
    rule, began_ns = output.with_suffix(".d"), time.time_ns()
    _compile(compiler, source, [*flags, "-MD", "-MF", str(rule)], output)
    read = _files_of(os.fsdecode(rule.read_bytes()), source)
    rule.unlink()
    key = _key(command_key, source, read, began_ns)
    if key is None:
        return output
    data = output.read_bytes()
    with contextlib.suppress(OSError):  # a home that cannot be written costs time only
        folder.mkdir(parents=True, exist_ok=True)
        kept = hashlib.sha256(data).digest() + data
        _write_whole(folder / f"{key}.object", kept)
        _write_whole(names, json.dumps(read).encode())
        _forget_unused(folder)
    return output


def run_tool(
    command: Sequence[str],
    what: str,
    environment: Mapping[str, str] | None = None,
    running: Running | None = None,
) -> None:
    """Run a program of a toolchain, in this process's environment or another, ``running`` beside
    others. Its scratch files lie in a folder of its own, which goes however it ends.

    Raises:
        ToolError: it cannot be started, takes too long, or fails; with its first error line.
    """
    running = running or Running()
    try:
        with (
            temporary_folder("tool") as scratch,
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",  # a path in it need not be UTF-8
                env={**(environment or os.environ), "TMPDIR": str(scratch)},
                start_new_session=True,
            ) as program,
            running.counting(program),
        ):
            try:
                _, said = program.communicate(timeout=_TIMEOUT_S)
            except BaseException:
                _signal(program, signal.SIGKILL)
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{what} failed: {error}") from error
    if program.returncode != 0:
        raise ToolError(f"{what} failed: {first_line(said)}")


def _compile(compiler: Compiler, source: Path, flags: Sequence[str], output: Path) -> None:
    compiler.run([*flags, "-c", str(source), "-o", str(output)], f"compiling {source.name}")


def _command_key(compiler: Compiler, source: Path, flags: Sequence[str]) -> str:
    """Of the command and the source's own text."""
    state = hashlib.sha256()
    for text in (*compiler.command, compiler.version, *flags, source.suffix):
        state.update(text.encode() + b"\0")
    state.update(source.read_bytes())
    return state.hexdigest()


def _key(
    command_key: str, source: Path, names: Sequence[str], before_ns: int | None = None
) -> str | None:
    """Of the command and the text of every file that it reads; None where one cannot be read, or
    was not as it is ``before_ns``."""
    state = hashlib.sha256(command_key.encode())
    for path in (source, *(source.parent / name for name in names)):
        try:
            if before_ns is not None and path.stat().st_mtime_ns > before_ns:
                return None
            state.update(hashlib.sha256(path.read_bytes()).digest())
        except (OSError, ValueError):  # of a name that no file can have
            return None
    return state.hexdigest()


def _files_of(rule: str, source: Path) -> list[str]:
    """The files of a make rule "target: file file", without the source itself.

    What was found beside the source is named from its folder, so that the same text in another
    folder (a model's generated code) is looked for there.
    """
    words = re.findall(r"(?:\\[ #]|\S)+", rule.partition(": ")[2].replace("\\\n", " "))
    names = [re.sub(r"\\([ #])", r"\1", word).replace("$$", "$") for word in words]
    beside = f"{source.parent}/"
    return [
        name.removeprefix(beside) if name.startswith(beside) else os.path.abspath(name)
        for name in names
        if name != str(source)
    ]


@functools.cache
def _forget_unused(folder: Path) -> None:
    """Remove what was kept and not used since; once in a process."""
    before_s = time.time() - _UNUSED_S
    for kept in (*folder.glob("*.object"), *folder.glob("*.json")):
        with contextlib.suppress(OSError):  # another build removed it, or may not
            if kept.stat().st_mtime < before_s:
                kept.unlink()


def _read_names(path: Path) -> list[str] | None:
    try:
        names = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if whole else None


def _read_kept(path: Path) -> bytes | None:
    """An object whose SHA-256, which stands before it, is right."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    digest, data = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def _write_whole(path: Path, data: bytes) -> None:
    """The old file or the new one, whole, even after a power cut."""
    with replacing(path) as sink:
        sink.write(data)

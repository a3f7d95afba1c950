"""One command of the runtime on a board, over SSH: ``python -m tatvpr_edge.runtime WORDS``.

In: a transport and the command. Out: what it printed. The live release's own Python and runtime run
it where there is a release, else the board's. A board is believed for a limited time and a limited
number of bytes.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import time
from collections.abc import Callable, Sequence

from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.manifest import MANIFEST
from tatvpr_edge.spec.text import printable

from .naming import lead
from .session import READS, python_words, ran_nothing
from .transport import Link, Transport

_MAX_ANSWER_BYTES = 64 << 20
_MOST_SAID = 400
#: The board's Python where nobody says otherwise.
_PYTHON = "python3"
#: A user's home, which shells and Python's expanduser know.
_HOME = re.compile(r"~[A-Za-z0-9_.\-]*")
_NEEDED = (
    'if [ ! -e "$r/current/artifact" ]; then '
    'echo "error: nothing is deployed below $r" >&2; exit 1; fi; '
)
#: A command that ends when nobody listens any more: standard input ends with the connection.
_WHILE_HEARD = (
    "exec 3<&0; {{ {}; }} </dev/null 3<&- & p=$!; "
    "{{ read -r x; kill $p; }} <&3 >/dev/null 2>&1 & w=$!; "
    "wait $p; s=$?; kill $w; exit $s"
)
#: Logins print before what they run and after it, and a ForceCommand may lose its exit status.
_MARKED = "echo {mark}; ( {line} ); s=$?; echo {mark} $s; exit $s"


def run_on_board(
    transport: Transport,
    words: Sequence[str],
    root: str | None = None,
    python: str = _PYTHON,
    *,
    on_artifact: bool = False,
    limit_s: float = 120.0,
    tell: Callable[[str], None] = lambda line: None,
) -> str:
    """What the command printed on standard output.

    Args:
        words: the command and its options.
        root: the install root on the board; its own rule when None.
        python: the board's Python, for a board without a release that brings its own runtime.
        on_artifact: the live release's artifact is the last word; a board without one is an error.
        limit_s: how long it may take.
        tell: is given the lines of its standard error once it ended well.

    Raises:
        DeployError: the board cannot be reached, the command failed, or it exceeds its limits.
    """
    line = _line(words, transport.placed(root), python, on_artifact)
    first = deploy_line(transport, "ARTIFACT", root, python)
    return _run(transport, line, words[0], first, limit_s, tell)


def live_manifest(transport: Transport, root: str | None = None, python: str = _PYTHON) -> bytes:
    """The manifest of the live release's artifact, as it lies there.

    Raises:
        DeployError: the board cannot be reached, or nothing is deployed there.
    """
    line = f'r={_where(transport.placed(root))}; {_NEEDED}cat "$r/current/artifact/{MANIFEST}"'
    first = deploy_line(transport, "ARTIFACT", root, python)
    return _run(transport, line, f"reading {MANIFEST}", first, 60.0, lambda line: None).encode()


def _run(
    transport: Transport,
    line: str,
    what: str,
    first: str,
    limit_s: float,
    tell: Callable[[str], None],
) -> str:
    mark = secrets.token_hex(16)
    line = _MARKED.format(mark=mark, line=line)
    link = transport.start("sh -c " + shlex.quote(line))  # the login's shell may be no such one
    try:
        answer = _answer(transport, link, mark.encode(), limit_s)
    except BaseException:
        link.close(0)
        raise
    status = link.close(30)
    said = link.said()
    marked = re.search(f"{mark}\n(.*){mark} ([0-9]{{1,3}})\n".encode(), answer, re.DOTALL)
    if marked:
        answer, status = marked[1], int(marked[2])
    elif status == 0:
        raise DeployError(f"{lead(transport.name)} {ran_nothing(answer)}")
    if status != 0:
        said = said or answer[-_MOST_SAID:].decode("utf-8", "replace")  # as nologin does
        ended = None if marked else link.explained(status)
        raise DeployError(ended or _why(transport.name, what, status, said, first))
    for told in said.splitlines():
        tell(told)
    return answer.decode("utf-8", "replace")


def _answer(transport: Transport, link: Link, mark: bytes, limit_s: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    end = time.monotonic() + limit_s
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([link.receive], [], [], left)[0]:
            why = "" if mark in b"".join(pieces) else f": {READS}"
            raise DeployError(
                f"{lead(transport.name)} the board took more than {limit_s:.0f} s{why}"
            )
        piece = os.read(link.receive.fileno(), 65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_ANSWER_BYTES:
            raise DeployError(f"{lead(transport.name)} the board answers without end")


def _line(words: Sequence[str], root: str | None, python: str, on_artifact: bool) -> str:
    """One line for a POSIX shell on the board. The release's ``python`` is a script that the shell
    reads: on a file system that is mounted noexec it could not be started."""
    command = " ".join(["-m tatvpr_edge.runtime", *(shlex.quote(word) for word in words)])
    needed = ""
    if on_artifact:
        command += ' "$r/current/artifact"'
        needed = _NEEDED
    fallback = " ".join(shlex.quote(word) for word in python_words(python))
    return _WHILE_HEARD.format(
        f'r={_where(root)}; {needed}cd /; if [ -f "$r/current/python" ]; then '
        f'exec sh "$r/current/python" {command}; else exec {fallback} {command}; fi'
    )


def _where(root: str | None) -> str:
    """The install root as a shell on the board reads it, where the agent finds it, too."""
    if root is None:
        return '"${TATVPR_EDGE_ROOT:-$HOME/.local/share/tatvpr-edge}"'
    home, _, rest = root.partition("/")
    if _HOME.fullmatch(home):
        return f"{home}/{shlex.quote(rest)}"
    return shlex.quote(root) if root.startswith("/") else '"$HOME"/' + shlex.quote(root)


def deploy_line(
    transport: Transport, artifact: str, root: str | None = None, python: str = _PYTHON
) -> str:
    """The command that deploys ``artifact`` to where :func:`run_on_board` looks for a release."""
    words = ["tatvpr-edge", "deploy", artifact, transport.name, *transport.options]
    words += [] if root is None else ["--root", root]
    words += [] if python == _PYTHON else ["--python", python]
    return shlex.join(words)


def _why(name: str, command: str, status: int, said: str, first: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = printable((ours or lines or ["nothing said"])[-1][:_MOST_SAID])
    if "nothing is deployed" in last:
        return f"{lead(name)} {last}: run `{first}` first"
    if "No module named" in last and "tatvpr_edge" in last:
        return f"{lead(name)} the board has no tatvpr-edge: run `{first}` first"
    if status == 2:
        return (
            f"{lead(name)} the board's runtime does not know {command!r} as this one does: deploy "
            "again with --runtime always"
        )
    if ours:
        return f"{lead(name)} {last}"  # our own runtime's line, which names thing and remedy
    return f"{lead(name)} {command} failed with exit status {status}: {last}"

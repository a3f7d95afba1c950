"""What the commands that reach a board have in common: options, the way there, progress."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli.gathered import Command, gathered
from tatvpr_edge.cli.output import console, note
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.deploy.naming import lead

if TYPE_CHECKING:
    from tatvpr_edge.deploy.push import Options, Result
    from tatvpr_edge.deploy.transport import Transport

_STEPS = {
    "settle": "settling what an earlier deploy left",
    "hash": "syncing and hashing on the board",
    "signature": "checking the signature",
    "golden": "running the golden vectors",
    "install": "installing",
    "switch": "switching",
    "health": "checking health",
    "restart": "restarting your units",
    "back": "going back",
    "confirm": "confirming",
}


@dataclass(frozen=True)
class Way:
    """How to reach a board, and where our things are there, as a command's options say.

    Attributes:
        python: the board's Python, a command.
        root: install root on the board; None: its own.
    """

    port: int | None
    ssh_config: str | None
    python: str
    root: str | None = None

    def to(self, target: str) -> Transport:
        """The way to ``target``; ``local:`` is this machine."""
        from tatvpr_edge.deploy.transport import transport_to

        return transport_to(target, self.port, self.ssh_config, batch=not sys.stdin.isatty())

    def options(self, **others: Any) -> Options:
        """Options of the deploy package."""
        from tatvpr_edge.deploy.push import Options

        return Options(root=self.root, python=self.python, **others)


_WAY = (
    click.option(
        "--python", default="python3", show_default=True, help="The board's Python, a command."
    ),
    click.option("--ssh-config", type=FilePath(), help="Configuration file for ssh -F."),
    click.option("--port", "-p", type=click.IntRange(1, 65535), help="SSH port."),
)
_ROOT = click.option(
    "--root",
    help="Install root on the board (default: its own); a relative one lies in the login's home.",
)


def _seconds(option: str, name: str, least_s: float, usual_s: float, text: str) -> Any:
    kind = click.FloatRange(least_s)
    return click.option(option, name, type=kind, default=usual_s, show_default=True, help=text)


_LIMITS = (
    _seconds("--golden-seconds", "golden_s", 1, 300.0, "How long its golden vectors may take."),
    _seconds(
        "--watch-seconds", "settle_s", 0, 3.0, "How long it is watched before it is confirmed."
    ),
    _seconds("--health-seconds", "health_s", 1, 60.0, "How long the release may take to answer."),
    click.option(
        "--restart",
        "restart",
        metavar="UNIT",
        multiple=True,
        help="A systemd unit of yours to restart with the new release; again for more.",
    ),
)


def board_options(command: Command) -> Command:
    """Options that say how to reach a board, and where our things are there: the command gets
    ``way``."""
    return gathered(command, (*_WAY, _ROOT), "way", ("port", "ssh_config", "python", "root"), Way)


def way_options(command: Command) -> Command:
    """Options that say how to reach a board: the command gets ``way``."""
    return gathered(command, _WAY, "way", ("port", "ssh_config", "python"), Way)


def limit_options(command: Command) -> Command:
    """Options of the health check, and what is restarted after it: the command gets ``limits``,
    for :meth:`Way.options`."""
    names = ("restart", "health_s", "settle_s", "golden_s")
    return gathered(command, _LIMITS, "limits", names, dict)


class Report:
    """Events of a deploy on standard error: a bar per file on a terminal, a line per step else."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._console = console(stderr=True)
        self._bar = not quiet and self._console.is_terminal
        self._open = False

    def __call__(self, event: dict[str, Any]) -> None:
        if self._quiet:
            return
        kind = event.get("event")
        if kind == "file":
            self._file(event)
        elif kind == "step":
            self._end_line()
            note(_STEPS.get(str(event.get("name")), str(event.get("name"))) + " ...")
        elif kind == "warning":
            self._end_line()
            note(f"warning: {event.get('text')}")

    def _file(self, event: dict[str, Any]) -> None:
        done, total = int(event["bytes"]), int(event["total"])
        if self._bar:
            share = 100 * done // max(1, total)
            sys.stderr.write(f"\r\x1b[K{event['path']} {share} %, {done / 1e6:.1f} MB")
            sys.stderr.flush()
            self._open = True
        elif done == total and total >= 1 << 20:
            note(f"sent {event['path']}, {total / 1e6:.1f} MB")

    def _end_line(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            self._open = False


def result_line(result: Result) -> str:
    """One line about a finished deploy or rollback."""
    what = f"{result.release} is live" if result.changed else f"{result.release} was live already"
    parts = [f"{lead(result.board)} {what}"]
    if result.changed and result.before:
        parts.append(f"before: {result.before}")
    if result.signer:
        parts.append(f"signed by {result.signer}")
    if result.sent_bytes:
        parts.append(
            f"{result.sent_bytes / 1e6:.2f} MB sent in {result.transfer_s:.1f} s, "
            f"{result.reused_bytes / 1e6:.2f} MB were there"
        )
    parts.append(f"verified in {result.verify_s:.1f} s")
    latency_ms = result.health.get("latency_ms")
    if isinstance(latency_ms, (int, float)):
        parts.append(f"answers in {latency_ms:.1f} ms")
    if result.restarted:
        parts.append(f"restarted {', '.join(result.restarted)}")
    if result.service:
        parts.append(f"service {result.service}")
    return "; ".join(parts)


def enforcement(found: dict[str, Any]) -> str:
    """One line: who is held to signatures on a board."""
    fault, where = found.get("trust_fault"), found.get("trust")
    if fault:
        return f"signatures: NOTHING is accepted: {fault}"
    if found.get("enforced") == "machine":
        return f"signatures: enforced for the whole machine ({where})"
    if found.get("enforced") == "root":
        return f"signatures: enforced for programs that use {where}, not for the whole machine"
    return "signatures: not enforced, unsigned artifacts are accepted"

"""``serve``: a small process that keeps a ``Localizer`` warm and answers over a Unix socket.

``python -m tatvpr_edge.runtime serve [--root R | --artifact A --map M] [--socket PATH] [--k K]``.
In: frames (:mod:`tatvpr_edge.runtime.messages`; ``Client`` in :mod:`tatvpr_edge.runtime.client`
speaks it). Out: places or descriptors. Several programs can ask at once. Under systemd it says when
it is ready, and proves itself alive by its artifact's own golden frame, asked for through the very
socket that its clients use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from tatvpr_edge.runtime import deployed, messages
from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.server import Server
from tatvpr_edge.runtime.service import Service, resident_bytes
from tatvpr_edge.spec.errors import DeployError, UsageError
from tatvpr_edge.spec.text import printable

# ---- systemd ---------------------------------------------------------------------------------


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(text.encode("ascii"), address)


def _watchdog(path: str) -> None:
    """Prove this process alive, by a real answer through its socket, twice in each period that
    systemd allows. A service that is full answers too; one that hangs does not."""
    period_s = int(os.environ["WATCHDOG_USEC"]) / 1e6 / 2
    while True:
        fault = _fault(path, 2 * period_s)
        if fault is None:
            notify("WATCHDOG=1")
        else:
            print(f"error: self-test: {printable(fault)}", file=sys.stderr, flush=True)
        time.sleep(period_s)


def _fault(path: str, within_s: float) -> str | None:
    """Why the service at ``path`` fails its self-test; None where it passes or has no seat."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            with messages.short_path(path) as short:
                connection.connect(short)
            connection.sendall(messages.encode({"op": "selftest"}))
            reply = messages.decode_answer(messages.receiver(connection, within_s))
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    if reply is None:
        return "the connection ended"
    answer = reply[0]
    full = answer.get("kind") == "DeployError"
    return None if answer.get("ok") or full else str(answer.get("error"))


# ---- the command -----------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """``python -m tatvpr_edge.runtime serve``: as every command's ``main``."""
    parser = Parser("python -m tatvpr_edge.runtime serve")
    parser.add_argument("--root", help="install root whose live release is served")
    parser.add_argument("--artifact", help="serve this artifact instead of the live release")
    parser.add_argument("--map", help="with --artifact: the place map")
    parser.add_argument("--socket", help="where to listen (default: serve.sock in the root)")
    parser.add_settings()
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input is closed"
    )
    arguments = parser.parse_args(argv)
    return _run(arguments)


def k_from_text(text: str | None) -> float | str | None:
    """k as a text says it: of ``--k``, a parameter or a service's request.

    Raises:
        UsageError: neither a number nor "auto".
    """
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"k is {text!r}: a fraction such as 0.2, or auto") from None


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :meth:`Parser.add_settings` was given, by its names in ``Localizer``.

    Raises:
        UsageError: as :func:`k_from_text`.
    """
    governing = {"budget": arguments.budget, "preset": arguments.preset}
    return {"k": k_from_text(arguments.k), "tokens": arguments.tokens, **governing}


def _run(arguments: argparse.Namespace) -> int:
    before = resident_bytes()
    if arguments.root is not None:
        # Trust and the lowest serial are the root's too.
        os.environ[deployed.ROOT_VARIABLE] = arguments.root
    nothing = arguments.root is not None and deployed.live_release(arguments.root) is None
    if arguments.artifact is None and nothing:
        raise UsageError(f"nothing is deployed below {arguments.root}: tatvpr-edge deploy")
    with Localizer(arguments.artifact, arguments.map, **settings(arguments)) as localizer:
        service = Service(localizer, before)
        service.self_test()
        path = arguments.socket or os.path.join(deployed.install_root(), messages.SOCKET)
        with Server(path, service) as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.stop())
            if arguments.until_stdin_closes:
                threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
            if os.environ.get("WATCHDOG_USEC"):
                threading.Thread(target=_watchdog, args=(path,), daemon=True).start()
            notify("READY=1")
            print(f"serving {localizer.artifact.root} at {path}", flush=True)
            server.run()
            if server.replaced:
                raise DeployError(f"another service took {path}: one of the two is enough")
    return 0


def _end_with_stdin(server: Server) -> None:
    while os.read(0, 4096):
        pass
    server.stop()

"""The service's socket: who may connect, how many at once, and how a message becomes an answer.

One thread a client, started by the standard library's ``socketserver``. A client may stay idle as
long as it likes; a message that has begun has to end within ``MESSAGE_S``. Whatever a client does,
it costs its own connection at most.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import sys
import threading
from typing import Any

from tatvpr_edge.runtime import messages
from tatvpr_edge.runtime.service import Seat, Service, refusal
from tatvpr_edge.spec.errors import DeployError, UsageError
from tatvpr_edge.spec.text import printable

MAX_CLIENTS = 64
#: From the first byte of a message to its last.
MESSAGE_S = 60.0
#: Clients beyond MAX_CLIENTS that are being told so.
_MAX_REFUSED = 16
_REFUSED_S = 2.0
_POLL_S = 0.2


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A listening socket at ``path``, for its owner only.

    Raises:
        UsageError: another service answers there, or something else is in the way.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * MAX_CLIENTS

    def __init__(self, path: str, service: Service) -> None:
        self.service = service
        self._seats = threading.BoundedSemaphore(MAX_CLIENTS)
        self._refusals = threading.BoundedSemaphore(_MAX_REFUSED)
        self._inode: int | None = None  # until the name is ours: a refusal closes, too
        #: Another service took its name.
        self.replaced = False
        super().__init__(path, socketserver.BaseRequestHandler)
        self._inode = os.lstat(path).st_ino

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        self.serve_forever(_POLL_S)

    def stop(self) -> None:
        """End :meth:`run`, from any thread or signal handler; clients lose their connection."""
        # shutdown() waits for the loop, which a signal handler may have interrupted.
        threading.Thread(target=self.shutdown, daemon=True).start()

    def _named(self) -> int | None:
        """The inode that our name leads to."""
        with contextlib.suppress(OSError):
            return os.lstat(str(self.server_address)).st_ino
        return None

    # ---- what socketserver asks of us ----

    def service_actions(self) -> None:
        """Between clients: end where the name leads to another service, as to one that began in the
        same instant. (Where it is gone, those who are connected go on.)"""
        if not self.replaced and self._named() not in (self._inode, None):
            self.replaced = True
            self.stop()

    def server_bind(self) -> None:
        """Take the name, unless it is another's."""
        path = str(self.server_address)
        _make_room(path)
        mask = os.umask(0o177)
        try:
            with messages.short_path(path) as short:
                self.socket.bind(short)
        except OSError as error:
            raise UsageError(f"cannot listen at {path}: {error.strerror}") from None
        finally:
            os.umask(mask)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One client, in its own thread, from first to last message."""
        with request, contextlib.suppress(OSError):
            if self._seats.acquire(blocking=False):
                try:
                    _converse(request, self.service)
                finally:
                    self._seats.release()
            elif self._refusals.acquire(blocking=False):
                try:
                    _refuse(request)
                finally:
                    self._refusals.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line for the journal instead of a traceback."""
        print(f"error: a client: {printable(sys.exc_info()[1])}", file=sys.stderr, flush=True)

    def server_close(self) -> None:
        """Close the socket and remove its name, unless another service took that meanwhile."""
        super().server_close()
        with contextlib.suppress(OSError):
            if self._named() == self._inode:
                os.unlink(str(self.server_address))


def _converse(connection: socket.socket, service: Service) -> None:
    seat = Seat()
    while True:
        connection.settimeout(None)  # idle between messages is no fault; half a message is
        if not connection.recv(1, socket.MSG_PEEK):
            return
        try:
            request = messages.decode(messages.receiver(connection, MESSAGE_S))
        except ValueError as error:  # where the next message begins is not known any more
            connection.sendall(messages.encode(refusal(UsageError(str(error)))))
            return
        if request is None:
            return
        connection.settimeout(MESSAGE_S)
        connection.sendall(messages.encode(*service.answer(*request, seat)))


def _refuse(connection: socket.socket) -> None:
    """Tell a client that there is no seat: the answer to its first request, which is read away."""
    full = DeployError(f"{MAX_CLIENTS} programs are connected already: close one, or share it")
    with contextlib.suppress(ValueError):
        messages.decode(messages.receiver(connection, _REFUSED_S))
    connection.sendall(messages.encode(refusal(full)))


def _make_room(path: str) -> None:
    """Remove what a killed service left at ``path``."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise UsageError(f"{path} is there and no socket: remove it or name another --socket")
    with socket.socket(socket.AF_UNIX) as probe, messages.short_path(path) as short:
        probe.settimeout(_REFUSED_S)
        try:
            try:
                probe.connect(short)
            except ConnectionRefusedError:
                os.unlink(path)
                return
        except FileNotFoundError:
            return
        except OSError as error:  # somebody may well answer there, but not to us
            raise UsageError(
                f"{path} is another user's or program's ({error.strerror or error}): remove it or "
                "name another --socket"
            ) from None
    raise UsageError(f"another service answers at {path}: stop it first")

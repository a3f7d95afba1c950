"""``serve``: a small process that keeps a ``Localizer`` warm and answers over a Unix socket.

``python -m tatvpr_edge.runtime serve [--root R | --artifact A --map M] [--socket PATH] [--k K]``.
In: frames (:mod:`tatvpr_edge.runtime.messages`; ``Client`` in :mod:`tatvpr_edge.runtime.client`
speaks it). Out: places or descriptors. Several programs can ask at once. Under systemd it says when
it is ready, and proves itself alive by its artifact's own golden frame.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import stat
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from tatvpr_edge.runtime import deployed, messages
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.verify import check_backend
from tatvpr_edge.spec.errors import TatvprError, UsageError

MAX_CLIENTS = 64
#: A client that sends half a message and stops is dropped after this.
CLIENT_S = 60.0


class Service:
    """Answers requests with one shared ``Localizer``."""

    def __init__(self, localizer: Localizer, resident_before: int = 0) -> None:
        self.localizer = localizer
        self._resident_before = resident_before
        self._started = time.monotonic()
        self._answered = 0
        self._count = threading.Lock()

    def answer(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer to one request; every error becomes an answer."""
        try:
            operation = {
                "query": self._query,
                "describe": self._describe,
                "set": self._set,
                "info": self._info,
                "selftest": self._self_test,
            }.get(str(request.get("op")))
            if operation is None:
                raise UsageError("op is one of query, describe, set, info, selftest")
            answer, tail = operation(request, blob)
            with self._count:
                self._answered += 1
            return {"ok": True, **answer}, tail
        except (TatvprError, ValueError, TypeError) as error:
            return {"ok": False, "error": str(error), "kind": type(error).__name__}, b""
        except MemoryError:
            return {"ok": False, "error": "out of memory", "kind": "MemoryError"}, b""

    def _query(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        frame = _frame(request, blob)
        match = self.localizer.query(frame, bool(request.get("bgr")), request.get("top", 1))
        return {"match": asdict(match)}, b""

    def _describe(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        descriptor = self.localizer.describe(_frame(request, blob), bool(request.get("bgr")))
        return {"size": len(descriptor)}, descriptor.astype("<f4").tobytes()

    def _set(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        if "k" in request:
            self.localizer.k = request["k"]
        if "tokens" in request:
            self.localizer.tokens = request["tokens"]
        return {"k": self.localizer.k, "tokens": self.localizer.tokens}, b""

    def _info(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        manifest = self.localizer.artifact.manifest
        return {
            "artifact": str(self.localizer.artifact.root),
            "model": manifest.model.name,
            "model_hash": manifest.model.hash,
            "board": manifest.board,
            "backend": self.localizer.backend.name,
            "k": self.localizer.k,
            "tokens": self.localizer.tokens,
            "map": self.localizer.map is not None,
            "answered": self._answered,
            "up_s": time.monotonic() - self._started,
        }, b""

    def _self_test(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        return self.self_test(), b""

    def self_test(self) -> dict[str, Any]:
        """Run the golden point nearest to the present k through the live backend, and say what
        this process takes.

        Raises:
            ArtifactError: a descriptor differs from its golden vector.
        """
        artifact = self.localizer.artifact
        points = artifact.manifest.golden.points
        k = self.localizer.k if isinstance(self.localizer.k, float) else 0.2
        nearest = sorted(points, key=lambda point: (abs(point.k - k), -point.tokens))[:1]
        started = time.perf_counter()
        results = check_backend(artifact, self.localizer.backend, nearest)
        latency_ms = (time.perf_counter() - started) * 1e3
        frames = max(1, len(artifact.manifest.golden.frames))
        place_map = self.localizer.map
        resident = resident_bytes()
        promised = sum(artifact.manifest.memory.values())
        if place_map is not None:
            promised += place_map.path.stat().st_size
        return {
            "latency_ms": latency_ms / frames,
            "golden": [asdict(result) for result in results],
            "resident_bytes": resident,
            "grown_bytes": resident - self._resident_before,
            # What the manifest states is the CPU library's; a GPU's driver takes what it takes.
            "promised_bytes": promised if self.localizer.backend.name == "cpu" else None,
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as source:
        return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _frame(request: dict[str, Any], blob: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shape = request.get("shape")
    if not isinstance(shape, list) or not all(
        isinstance(side, int) and 0 < side <= 1 << 20 for side in shape
    ):
        raise UsageError("shape is [height, width, 3] or [height, width]")
    size = 1
    for side in shape:
        size *= side
    if size != len(blob):
        raise UsageError(f"a frame of shape {shape} has {size} bytes, {len(blob)} came")
    return np.frombuffer(blob, np.uint8).reshape(shape)


# ---- the socket ------------------------------------------------------------------------------


def listen(path: str) -> socket.socket:
    """A listening socket at ``path``, for its owner only.

    Raises:
        UsageError: another service answers there, or something else is in the way.
    """
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"{path} is there and no socket: remove it or name another --socket")
        with socket.socket(socket.AF_UNIX) as probe, messages.short_path(path) as short:
            try:
                probe.connect(short)
            except OSError:
                os.unlink(path)  # left by a process that was killed
            else:
                raise UsageError(f"another service answers at {path}: stop it first")
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        with messages.short_path(path) as short:
            listener.bind(short)
    except OSError as error:
        raise UsageError(f"cannot listen at {path}: {error.strerror}") from None
    finally:
        os.umask(mask)
    listener.listen(MAX_CLIENTS)
    return listener


def accept_forever(service: Service, listener: socket.socket) -> None:
    """Serve clients until the listener is closed."""
    room = threading.BoundedSemaphore(MAX_CLIENTS)
    while True:
        room.acquire()
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(service, connection, room), daemon=True).start()


def _serve_one(
    service: Service, connection: socket.socket, room: threading.BoundedSemaphore
) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(CLIENT_S)
        receive = messages.receiver(connection)
        while True:
            try:
                request = messages.decode(receive)
            except ValueError as error:
                refusal = {"ok": False, "error": str(error), "kind": "UsageError"}
                connection.sendall(messages.encode(refusal))
                break
            if request is None:
                break
            connection.sendall(messages.encode(*service.answer(*request)))
    room.release()


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


def _watchdog(service: Service) -> None:
    """Prove this process alive, with a real answer, twice in each period that systemd allows."""
    period_s = int(os.environ["WATCHDOG_USEC"]) / 1e6 / 2
    while True:
        try:
            service.self_test()
        except TatvprError as error:
            print(f"error: self-test: {error}", file=sys.stderr, flush=True)
        else:
            notify("WATCHDOG=1")
        time.sleep(period_s)


# ---- the command -----------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """``python -m tatvpr_edge.runtime serve``: exit status 0, 1 (refused) or 2 (usage)."""
    parser = argparse.ArgumentParser(prog="python -m tatvpr_edge.runtime serve")
    parser.add_argument("--root", help="install root whose live release is served")
    parser.add_argument("--artifact", help="serve this artifact instead of the live release")
    parser.add_argument("--map", help="with --artifact: the place map")
    parser.add_argument("--socket", help="where to listen (default: serve.sock in the root)")
    parser.add_argument("--k", default="0.2", help="fraction kept, or auto (default: 0.2)")
    parser.add_argument("--tokens", type=float, default=1.0, help="patch tokens kept (default: 1)")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input is closed"
    )
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except (TatvprError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    before = resident_bytes()
    if arguments.root is not None:
        # Trust and the lowest serial are the root's too.
        os.environ[deployed.ROOT_VARIABLE] = arguments.root
    artifact, place_map = arguments.artifact, arguments.map
    if artifact is None:
        live = deployed.live_release(arguments.root)
        if live is not None:
            artifact, place_map = live.artifact, place_map or live.map
        elif arguments.root is not None:
            raise UsageError(f"nothing is deployed below {arguments.root}: tatvpr-edge deploy")
    k: float | str = arguments.k if arguments.k == "auto" else float(arguments.k)
    with Localizer(artifact, place_map, k, arguments.tokens) as localizer:
        service = Service(localizer, before)
        service.self_test()
        path = arguments.socket or os.path.join(deployed.install_root(), messages.SOCKET)
        listener = listen(path)
        inode = os.lstat(path).st_ino
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            if arguments.until_stdin_closes:
                threading.Thread(target=_end_with_stdin, daemon=True).start()
            if os.environ.get("WATCHDOG_USEC"):
                threading.Thread(target=_watchdog, args=(service,), daemon=True).start()
            notify("READY=1")
            print(f"serving {localizer.artifact.root} at {path}", flush=True)
            accept_forever(service, listener)
        except KeyboardInterrupt:
            pass
        finally:
            listener.close()
            # Another service may have taken the name meanwhile.
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)
    return 0


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

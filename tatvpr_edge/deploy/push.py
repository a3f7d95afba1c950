"""Deploy, roll back, ask, and trust: the host's side, one board at a time.

In: a transport and what to send. Out: a result with times and bytes, or one clear error. The
command line and :mod:`tatvpr_edge.deploy.inventory` call this module.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tatvpr_edge
from tatvpr_edge.runtime.table import Row, make_table
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import ArtifactError, DeployError, MapError, UsageError
from tatvpr_edge.spec.values import between
from tatvpr_edge.spec.workers import in_order

from .admission import check_processor
from .health import LONGEST_STEP_S
from .naming import lead
from .protocol import CHUNK
from .release import (
    KeptMap,
    Release,
    Source,
    make_release,
    open_artifact,
    read_runtime,
    read_source,
    sign_release,
)
from .service import RESTART_S
from .session import ANSWER_S, BYTES_PER_S, Session
from .transport import Transport

#: Called with events: {"event": "step", "name"}, {"event": "file", "path", "bytes", "total"},
#: {"event": "warning", "text"}.
OnEvent = Callable[[dict[str, Any]], None]


#: A key may have a passphrase, and a person answers one question at a time.
_ASKS = threading.Lock()
#: Taken for the size of what a board has where that is not known here.
_LARGEST_BYTES = 1 << 30
_RELEASED = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


@dataclass(frozen=True)
class Options:
    """How to deploy. Times are limits in seconds."""

    #: The install root on the board; None: the board's own rule.
    root: str | None = None
    #: The board's Python, words of a command.
    python: str = "python3"
    #: "auto": the runtime travels along when the board has none, an older one, or either of the two
    #: is a checkout's.
    runtime: str = "auto"
    #: A wheel to take the runtime from; None: the package that is running.
    wheel: Path | None = None
    #: How many releases stay installed.
    keep: int = 3
    #: Accept an artifact with a lower serial than the installed one, where the board permits it.
    allow_older: bool = False
    #: Sign the release with this key: all that runs, for a board that accepts signed releases only.
    sign: Path | None = None
    #: With ``sign``: no board installs the release after so many days. None: it never expires.
    expires_days: float | None = None
    #: Install the systemd unit (True), remove it (False), or restart it where it is (None).
    service: bool | None = None
    #: With service=True: further words of ``serve``, such as ("--k", "auto", "--budget", "5W").
    serve: tuple[str, ...] = ()
    #: Units of the robot's own programs, restarted once the release is live and healthy; the board
    #: goes back where one does not start.
    restart: tuple[str, ...] = ()
    #: Without a map to send: the robot's stays behind, where it would else be kept.
    no_map: bool = False
    golden_s: float = 300.0
    finish_s: float = 1800.0
    health_s: float = 60.0
    #: How long the new release is watched before it is confirmed.
    settle_s: float = 3.0
    #: What is sent as the agent; tests add faults to it. None: the agent itself.
    modules: list[tuple[str, str]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.root == "":
            raise UsageError("root is empty: name a folder on the board, or none for its own rule")
        if self.runtime not in ("auto", "always", "never"):
            raise UsageError(f"runtime is {self.runtime!r}: auto, always or never")
        if not 2 <= self.keep <= 100:
            raise UsageError(f"keep is {self.keep}: 2 to 100 releases")
        if self.expires_days is not None and (self.sign is None or not 0 < self.expires_days < 1e5):
            raise UsageError("expires_days is a number of days above 0, and belongs to sign")
        for name in ("golden_s", "finish_s", "health_s", "settle_s"):
            meaning = f"seconds, 0 to {LONGEST_STEP_S:.0f}"
            between(getattr(self, name), 0, LONGEST_STEP_S, name, meaning)


@dataclass
class Result:
    """What a deploy did. Times in seconds."""

    board: str
    release: str = ""
    before: str | None = None
    changed: bool = False
    sent_bytes: int = 0
    reused_bytes: int = 0
    connect_s: float = 0.0
    transfer_s: float = 0.0
    verify_s: float = 0.0
    signer: str | None = None
    health: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    service: str | None = None
    restarted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def deploy(
    transport: Transport,
    artifact: str | Path | Artifact,
    place_map: str | Path | None = None,
    options: Options | None = None,
    on_event: OnEvent = lambda event: None,
) -> Result:
    """Bring an artifact (and its map) to a board and make it live, or leave the board as it was.

    Without ``place_map`` the new release keeps the live one's map, as the board has it by now and
    with the places that the board added to it, where the model is the same.

    Raises:
        ArtifactError, MapError: what is to be sent is not whole (nothing was sent).
        SignatureError: the board trusts keys, and none of them signed this.
        DeployError: the board cannot be reached, or it refused or took back the release.
    """
    options = options or Options()
    artifact = open_artifact(artifact, place_map)  # a map may change after it was checked for all
    result = Result(board=transport.name)
    sent: int | None = None
    arrived: list[float] = []  # when the board began to check what it was sent, all of it
    steps: set[str] = set()

    def event(message: dict[str, Any]) -> None:
        if message.get("event") == "warning":
            result.warnings.append(str(message.get("text")))
        if message.get("event") == "step" and sent is not None:
            arrived.append(time.monotonic())
            steps.add(str(message.get("name")))
        on_event(message)

    started = time.monotonic()
    with Session(transport, options.python, event, options.modules) as session:
        # Read while the board logs in and starts: it may turn out that it need not travel.
        own = None if options.runtime == "never" else read_runtime(options.wheel)
        keeps = place_map is None and not options.no_map
        hello = _hello(session, options, of_live=keeps)
        _check_processor(artifact, transport, str(hello["machine"]))
        result.connect_s = time.monotonic() - started
        started = time.monotonic()
        runtime = own if _runtime_travels(options, hello) else None
        its_map = _kept_map(artifact, hello.get("live"), options) if keeps else place_map
        release = make_release(artifact, its_map, runtime, session.python)
        made = None
        if options.sign is not None and not artifact.signed:
            text = (
                f"the release is signed, but {artifact.root} itself is not: a board that insists "
                "on signatures refuses it; sign it as it is built: 'tatvpr-edge build --sign KEY'"
            )
            event({"event": "warning", "text": text})
        if options.sign is not None:
            with _ASKS:
                release, made = sign_release(
                    release, options.sign, options.expires_days, hello.get("stamp")
                )
        limit_s = _limit_s(options, release.table.total_bytes, bool(artifact.manifest.backends))
        answer = session.ask(
            {
                "op": "begin",
                "table": json.loads(release.table.text()),
                "signature": None if made is None else made.decode("ascii"),
                **_settings(options),
            },
            limit_s,
        )
        sent = _send(session, release, answer["need"], event)
        result.reused_bytes = release.table.total_bytes - sent
        try:
            done = session.ask({"op": "commit", **_settings(options)}, limit_s)
        except DeployError as error:
            if runtime is not None or options.runtime != "auto" or "golden" not in steps:
                raise
            # Two builds of one version may differ, and an artifact tells what it was built with.
            raise DeployError(
                f"{error} (the board's own runtime {hello['runtime']} ran it: to send this one "
                "along, --runtime always)"
            ) from None
        ended = time.monotonic()
        result.transfer_s = min([*arrived, ended]) - started
        result.verify_s = ended - started - result.transfer_s
        result.sent_bytes = session.sent_bytes
    _take(result, done)
    return result


def rollback(
    transport: Transport,
    to: str | None = None,
    options: Options | None = None,
    on_event: OnEvent = lambda event: None,
) -> Result:
    """Make the previous release (or ``to``) live again, with the same checks as a deploy.

    Raises:
        DeployError: there is none, it is damaged, or it failed and the board went back.
    """
    options = options or Options()
    result = Result(board=transport.name)
    started = time.monotonic()
    with Session(transport, options.python, on_event, options.modules) as session:
        _hello(session, options)
        message = {"op": "rollback", "to": to, **_settings(options)}
        done = session.ask(message, _limit_s(options))
    result.verify_s = time.monotonic() - started
    _take(result, done)
    return result


def status(
    transport: Transport, options: Options | None = None, check: bool = False
) -> dict[str, Any]:
    """What is installed on a board; ``check`` reads and hashes every byte of it.

    Raises:
        DeployError: the board cannot be reached.
    """
    options = options or Options()
    with Session(transport, options.python, modules=options.modules) as session:
        hello = session.hello(options.root)
        limit_s = _limit_s(options) if check else ANSWER_S
        return {**hello, **session.ask({"op": "status", "check": check}, limit_s)}


def trust(
    transport: Transport,
    name: str,
    public_key: str,
    force: bool = False,
    options: Options | None = None,
    on_event: OnEvent = lambda event: None,
) -> dict[str, Any]:
    """Make a board trust a key and insist on signatures; what it says of its keys afterwards.

    Raises:
        SignatureError: the key is malformed or revoked, or the live release would be refused.
        DeployError: the board cannot be reached.
    """
    message = {"op": "trust", "name": name, "key": public_key, "force": force}
    return _keys(transport, message, options, on_event)


def revoke(
    transport: Transport,
    public_key: str,
    options: Options | None = None,
    force: bool = False,
    new_list: bool = False,
) -> dict[str, Any]:
    """Make a board refuse a key for ever; what it says of its keys afterwards.

    Args:
        force: even if the key signed the live release.
        new_list: begin a new list of revoked keys, because the board's is lost or damaged.

    Raises:
        SignatureError: the key signed the live release, or the list is lost.
    """
    message = {"op": "revoke", "key": public_key, "force": force, "new_list": new_list}
    return _keys(transport, message, options)


def accept_unsigned(transport: Transport, options: Options | None = None) -> dict[str, Any]:
    """Make a board accept unsigned artifacts again (``was``: the place that enforced).

    Raises:
        SignatureError: it enforces nothing, or the user there may not change it.
    """
    return _keys(transport, {"op": "accept_unsigned"}, options)


def downgrades(
    transport: Transport, permitted: bool, options: Options | None = None
) -> dict[str, Any]:
    """Make a board permit ``allow_older``, or no longer; what it says of its keys afterwards.

    Raises:
        SignatureError: it enforces nothing, or the user there may not change it.
    """
    return _keys(transport, {"op": "downgrades", "permitted": permitted}, options)


def _keys(
    transport: Transport,
    message: dict[str, Any],
    options: Options | None,
    on_event: OnEvent = lambda event: None,
) -> dict[str, Any]:
    options = options or Options()
    with Session(transport, options.python, on_event, options.modules) as session:
        session.hello(options.root)
        return session.ask({**message, **_settings(options)}, _limit_s(options))


def _hello(session: Session, options: Options, of_live: bool = False) -> dict[str, Any]:
    hello = session.hello(options.root, of_live)
    if not hello["numpy"]:
        raise DeployError(
            f"{lead(session.transport.name)} the board's Python {hello['python']} has no NumPy: "
            "install python3-numpy there, or name another Python with --python"
        )
    return hello


def _check_processor(artifact: Artifact, transport: Transport, machine: str) -> None:
    """Before anything is sent; the board looks for itself again."""
    try:
        check_processor(artifact.manifest, machine)
    except ArtifactError as error:
        raise ArtifactError(f"{lead(transport.name)} {error}") from None


def _kept_map(artifact: Artifact, live: Any, options: Options) -> KeptMap | None:
    """The map of the live release, if it has one that fits the new artifact.

    Raises:
        MapError: it has one that does not fit, cannot be read, or that nobody here has seen and
            would sign.
    """
    if isinstance(live, dict) and live.get("fault"):
        raise MapError(
            f"the map of the robot's live release {live.get('release')} cannot be kept "
            f"({live['fault']}): give --map, or --no-map to go without"
        )
    if not isinstance(live, dict) or not live.get("map"):
        return None
    try:
        path, size, digest = live["map"]
        name, model = str(live.get("map_name", "")), str(live["model_hash"])
        table = make_table("map", [Row(path, size, digest)], name)
    except (KeyError, TypeError, ValueError):
        raise DeployError("the board does not say which map it has: update tatvpr-edge") from None
    if model != artifact.manifest.model.hash or table.map is None:
        raise MapError(
            f"the robot's map {name or ''} was made with another model ({model[:12]}) than this "
            f"artifact's ({artifact.manifest.model.hash[:12]}): give --map with one made with this "
            "artifact, or --no-map to go without"
        )
    if options.sign is not None and live.get("rewritten"):
        raise MapError(
            f"the robot wrote its map {name or ''} anew since it was sent (compacted, pruned or "
            "calibrated it), and this release is signed: sign what is known, copy the map from "
            "there and give --map"
        )
    return KeptMap(table.map, name)


def _take(result: Result, done: dict[str, Any]) -> None:
    """What the board says of a switch that is done."""
    names = ("release", "before", "changed", "signer", "health", "removed", "service", "restarted")
    for name in names:
        setattr(result, name, done[name])


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _settings(options: Options) -> dict[str, Any]:
    return {
        "who": _who(),
        "keep": options.keep,
        "allow_older": options.allow_older,
        "service": options.service,
        "serve": list(options.serve),
        "restart": list(options.restart),
        "golden_s": options.golden_s,
        "finish_s": options.finish_s,
        "health_s": options.health_s,
        "settle_s": options.settle_s,
    }


def _limit_s(options: Options, release_bytes: int = _LARGEST_BYTES, finishes: bool = True) -> float:
    """How long a board may take for its longest answer: all of its own limits, each of which can
    come twice (an unfinished deploy is settled first), and its disk's time. ``finishes``: the
    artifact has an engine that only its board can build."""
    own_s = options.golden_s + 4 * options.health_s + options.settle_s
    own_s += options.finish_s if finishes else 0
    own_s += 2 * RESTART_S * (1 + len(options.restart))
    return ANSWER_S + 2 * own_s + 4 * release_bytes / BYTES_PER_S


def _runtime_travels(options: Options, hello: dict[str, Any]) -> bool:
    if options.runtime != "auto":
        return options.runtime == "always"
    there, ours = _numbers(hello["runtime"]), _numbers(tatvpr_edge.__version__)
    return options.wheel is not None or there is None or ours is None or there < ours


def _numbers(version: Any) -> tuple[int, ...] | None:
    """A version as its numbers. None: it is none, or one of a checkout ("0.2.0.dev0"), of which
    each day's wheel holds other bytes."""
    text = str(version)
    return tuple(map(int, text.split("."))) if _RELEASED.fullmatch(text) else None


def _send(
    session: Session, release: Release, needed: list[dict[str, Any]], on_event: OnEvent
) -> int:
    """Send what is needed; how many bytes of files that were."""
    sent = 0
    for need in needed:
        sent += _send_one(session, release, need, on_event)
    return sent


def _send_one(session: Session, release: Release, need: dict[str, Any], on_event: OnEvent) -> int:
    """Send one file; how many bytes of it that were."""
    try:
        index, have, part = int(need["index"]), int(need["have"]), str(need["sha256"])
        row, source = release.table.rows[index], release.sources[index]
    except (KeyError, TypeError, ValueError, IndexError):
        raise DeployError("the board asks for a file that nobody announced") from None
    offset, digest = _resume_at(source, have, part)
    session.tell({"op": "file", "index": index, "offset": offset})
    chunks = read_source(source, offset)
    session.send_file(_watched(row, chunks, offset, digest, on_event))
    if digest.hexdigest() != row.sha256:
        session.ask({"op": "drop", "index": index})
        raise DeployError(f"{row.path} changed while it was sent: run again")
    return row.bytes - offset


def _resume_at(source: Source, have: int, sha256: str) -> tuple[int, Any]:
    """Where to go on with a file of which the board has ``have`` bytes, and the hash up to there.
    When those bytes are not ours (the file changed since), at 0."""
    digest, left = hashlib.sha256(), have
    for chunk in read_source(source) if have else ():
        digest.update(chunk[:left])
        left -= min(left, len(chunk))
        if not left:
            break
    if have and not left and digest.hexdigest() == sha256:
        return have, digest
    return 0, hashlib.sha256()


def _watched(
    row: Row,
    chunks: Iterator[bytes],
    offset: int,
    digest: Any,
    on_event: OnEvent,
) -> Iterator[bytes]:
    """The chunks, hashed (by a thread, while those before are sent) and reported; exactly as many
    bytes as were announced, so that the two ends stay in step even when the file changed."""

    def hashed(chunk: bytes) -> bytes:
        digest.update(chunk)
        return chunk

    done = offset
    for chunk in in_order(hashed, chunks, workers=1):
        piece = chunk[: row.bytes - done]
        done += len(piece)
        if piece:
            yield piece
        on_event({"event": "file", "path": row.path, "bytes": done, "total": row.bytes})
    while done < row.bytes:
        piece = bytes(min(CHUNK, row.bytes - done))
        done += len(piece)
        yield piece

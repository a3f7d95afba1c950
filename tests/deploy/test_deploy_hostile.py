"""A board that is broken or somebody else's: one line, nothing that a terminal obeys, an end."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.board import inventory, live_content, local_transport, make_artifact, quick_options
from tatvpr_edge.cli import main
from tatvpr_edge.deploy import push, session, transport
from tatvpr_edge.deploy.answers import ANSWERS, check_answer, check_event
from tatvpr_edge.deploy.inventory import deploy_all, read_inventory
from tatvpr_edge.deploy.protocol import (
    JSON,
    MAX_FRAME,
    PACKED,
    ProtocolError,
    json_frame,
    read_frame,
)
from tatvpr_edge.deploy.push import Options, deploy, status
from tatvpr_edge.deploy.session import agent_modules
from tatvpr_edge.spec.errors import DeployError, TatvprError
from tatvpr_edge.spec.text import printable

#: Clears the screen, renames the window, hides what follows; ends with a mark that turns writing.
NASTY = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe"
#: A frame that says no more than that the board is there.
ALIVE = b'J\x00\x00\x00\x11{"event":"alive"}'


def board_that(program: str) -> list[tuple[str, str]]:
    """An agent whose every answer is made by ``program``: it has ``message``, the request, and
    ``answer``, the true answer, which it may change; ``send(dict)`` and ``raw(bytes)`` speak."""
    modules = agent_modules()
    place = [name for name, _ in modules].index("tatvpr_edge.deploy.agent")
    hostile = (
        "\n_true_answer = Agent._answer\n"
        "def _answer(self, message):\n"
        "    send, kept = self.channel.send, []\n"
        "    raw = lambda data: os.write(self.channel._send, data)\n"
        "    keep = lambda sent: kept.append(sent) if 'answer' in sent else send(sent)\n"
        "    self.channel.send = keep\n"
        "    try:\n"
        "        _true_answer(self, message)\n"
        "    finally:\n"
        "        self.channel.send = send\n"
        "    answer = kept[0]['answer'] if kept else {}\n"
        + "".join(f"    {line}\n" for line in program.splitlines())
        + "    if kept: send({'answer': answer})\n"
        "Agent._answer = _answer\n"
    )
    modules[place] = (modules[place][0], modules[place][1] + hostile)
    return modules


def in_the_command_line(
    monkeypatch: pytest.MonkeyPatch, program: str, words: list[str], root: Path
) -> int:
    """The exit status of a command whose board runs ``program``."""
    monkeypatch.setattr(session, "agent_modules", lambda: board_that(program))
    return main([*words, "local:", "--root", str(root), "--python", shlex.quote(sys.executable)])


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (f"raise DeployError({NASTY!r})", "status"),
        (f"send({{'error': {NASTY!r} * 1000, 'kind': 'annotations'}})", "status"),
        (f"answer['live'] = answer['root'] = {NASTY!r}", "status"),
        (f"answer['python'] = {NASTY!r}", "status"),
        # A year that no calendar has.
        (
            "if 'releases' in answer: answer['releases'] = [{'name': 'a', 'live': True, "
            "'previous': False, 'failed': None, 'signed': {'by': 'b', 'artifact_by': 'b', 'fault': "
            "None, 'serial': 1, 'expires': 2**62, 'present': True}}]",
            "status",
        ),
        (f"send({{'event': 'step', 'name': {NASTY!r}}})", "rollback"),
        (f"send({{'event': 'warning', 'text': {NASTY!r}}})", "rollback"),
        (f"send({{'event': 'file', 'path': {NASTY!r}, 'bytes': 1, 'total': 2}})", "rollback"),
        (f"os.write(2, {NASTY!r}.encode()); os._exit(1)", "status"),
        (f"import sys; sys.exit({NASTY!r})", "status"),
    ],
)
def test_nothing_that_a_board_says_is_obeyed_by_a_terminal(
    ram_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    program: str,
    command: str,
) -> None:
    in_the_command_line(monkeypatch, program, [command], ram_path / "root")
    said = capfd.readouterr()
    for text in (said.out, said.err):
        assert all(letter == "\n" or letter.isprintable() for letter in text), text
        assert len(text) < 9000
    assert "gnp.exe" in said.out + said.err or "malformed" in said.err
    assert "fault of tatvpr-edge" not in said.err


def test_tags_of_a_map_are_not_obeyed_either() -> None:
    assert printable(NASTY) == (r"\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe")
    assert printable("Küche ☃ 廊下") == "Küche ☃ 廊下" and printable("\ud800") == r"\ud800"


@given(st.text())
def test_whatever_is_printed_is_one_line(given_text: str) -> None:
    shown = printable(given_text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown


# ---- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["begin", "commit", "status", "hello"])
def test_an_answer_without_a_key_is_the_board_s_fault_and_says_which(
    ram_path: Path, wheel: Path, operation: str
) -> None:
    artifact = make_artifact(ram_path / "a")
    key = {"begin": "need", "commit": "health", "status": "keys", "hello": "numpy"}[operation]
    program = f"if message['op'] == {operation!r}: del answer[{key!r}]"
    options = quick_options(ram_path / "root", wheel, modules=board_that(program))
    with pytest.raises(DeployError, match=rf"answer to '{operation}' is malformed.*'{key}'"):
        if operation == "status":
            status(local_transport(), options)
        else:
            deploy(local_transport(), artifact, None, options)


_KEY = {"name": "ours", "key": "ssh-ed25519 AAAA", "revoked": False}
_KEYS = {"keys": [_KEY], "enforced": "root", "trust": "/r/trust", "trust_fault": None}
_DONE = {
    "release": "a-1",
    "before": None,
    "changed": True,
    "health": {"latency_ms": 1.5},
    "removed": ["b-2"],
    "service": "active",
    "restarted": [],
    "signer": None,
}
_RELEASE = {"name": "a-1", "live": True, "previous": False, "failed": None, "bytes": 7}
#: One whole answer to each request.
GOOD: dict[str, dict[str, Any]] = {
    "hello": {
        "version": 1,
        "root": "/r",
        "python": "3.11.2",
        "machine": "aarch64",
        "numpy": True,
        "runtime": None,
        "free_bytes": 10**12,
        "user": 0,
        "live": {"release": "a-1"},
    },
    "begin": {
        "release": "a-1",
        "installed": False,
        "need": [{"index": 0, "have": 7, "sha256": "ab"}],
    },
    "drop": {},
    "commit": _DONE,
    "rollback": _DONE,
    "status": {"root": "/r", "live": "a-1", "previous": None, "releases": [_RELEASE], **_KEYS},
    "trust": _KEYS,
    "revoke": _KEYS,
    "downgrades": _KEYS,
    "accept_unsigned": {"was": "/r", **_KEYS},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ANSWERS)), VALUES, st.data())
def test_any_json_is_an_answer_or_refused(operation: str, value: Any, data: st.DataObject) -> None:
    def everything_is_plain(made: Any) -> bool:
        if isinstance(made, dict):
            return all(key.isprintable() and everything_is_plain(v) for key, v in made.items())
        if isinstance(made, list):
            return all(map(everything_is_plain, made))
        return not isinstance(made, str) or made.isprintable()

    good = GOOD[operation]
    for answer in (value, {**good, data.draw(st.sampled_from([*good, "x"])): value}):
        try:
            assert everything_is_plain(check_answer("board", operation, answer))
        except DeployError as error:
            assert str(error).isprintable()
    assert check_answer("board", operation, good) == good
    if isinstance(value, dict):
        for event in (value, {**value, "event": "warning"}, {"event": "step", "name": value}):
            try:
                assert everything_is_plain(check_event("board", event))
            except DeployError as error:
                assert str(error).isprintable()


def test_a_broken_board_does_not_end_the_report_of_a_fleet(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = read_inventory(inventory(ram_path, wheel))
    options = quick_options(ram_path / "unused", wheel)
    true_deploy = push.deploy

    def one_is_broken(
        transport: Any, artifact: Any, place_map: Any, own: Options, on_event: Any
    ) -> Any:
        if Path(str(own.root)).name == "three":
            own = replace(own, modules=board_that("if message['op'] == 'commit': answer = {}"))
        return true_deploy(transport, artifact, place_map, own, on_event)

    monkeypatch.setattr("tatvpr_edge.deploy.inventory.deploy", one_is_broken)
    outcomes = list(deploy_all(boards, None, None, options, parallel=1))
    assert len(outcomes) == 5
    (failed,) = [outcome for outcome in outcomes if outcome.error is not None]
    assert Path(str(failed.board.root)).name == "three" and "malformed" in str(failed.error)

    def a_fault_of_ours(*_: Any) -> Any:
        raise KeyError("ours")

    monkeypatch.setattr("tatvpr_edge.deploy.inventory.deploy", a_fault_of_ours)
    outcomes = list(deploy_all(boards, None, None, options, parallel=1))
    assert len(outcomes) == 5 and "fault of tatvpr-edge" in str(outcomes[0].error)


# ---- boards without an end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("while True: send({'event': 'alive'}); time.sleep(0.01)", "did not answer within 2 s"),
        (f"while True: raw({ALIVE!r} * 3000)", "did not answer within 2 s"),
        ("time.sleep(600)", "did not answer within 2 s"),
        ("while True: send({'event': 'warning', 'text': 'x' * 9999})", "reports steps without end"),
        ("while True: raw(b'[' * 65536)", "unexpected bytes"),
        ("raw(b'J\\x00\\x01\\x86\\xa0' + b'[' * 100000); time.sleep(600)", "is not JSON"),
        ("raw(b'J\\xff\\xff\\xff\\xff'); time.sleep(600)", "unexpected bytes"),
    ],
)
def test_a_board_that_is_alive_for_ever_holds_nobody(
    ram_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    monkeypatch.setattr(push, "ANSWER_S", 2.0)
    monkeypatch.setattr(session, "MAX_EVENTS", 50)
    monkeypatch.setattr(transport, "_END_S", 0.1)  # none of them ends by itself
    modules = board_that(f"import time\nif message['op'] == 'status':\n    {program}")
    options = quick_options(ram_path / "root", modules=modules)
    with pytest.raises(DeployError, match=says):
        status(local_transport(), options)
    assert not [t for t in threading.enumerate() if t.name.startswith("tatvpr-session")]
    # Nor does a board's program go on here.
    assert not _agents_of(os.environ["PYTEST_CURRENT_TEST"])


def _agents_of(mark: str) -> list[str]:
    """Agents that a test started and that still run, by what their environment says."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if b"exec(open(0" in words and mark.encode() in (process / "environ").read_bytes():
                    found.append(process.name)
    return found


def test_a_board_that_takes_no_bytes_holds_nobody(
    ram_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENCE_S", 0.5)
    monkeypatch.setattr(session, "SLOWEST_BYTES_PER_S", 1e9)
    monkeypatch.setattr(transport, "_END_S", 0.1)  # it does not end by itself
    big = make_artifact(ram_path / "big", files={"data.bin": os.urandom(8_000_000)})
    program = (
        "import time\nif message['op'] == 'begin':\n    send({'answer': answer})\n"
        "    while True: send({'event': 'alive'}); time.sleep(0.05)"
    )
    options = quick_options(ram_path / "root", wheel, modules=board_that(program))
    with pytest.raises(DeployError, match="takes nothing that is sent"):
        deploy(local_transport(), big, None, options)
    assert live_content(ram_path / "root") is None


def frame_of(data: bytes) -> tuple[bytes, Any]:
    """What is read of ``data``, where the other end then is gone."""
    source = io.BytesIO(data)

    def exactly(count: int) -> bytes:
        piece = source.read(count)
        return piece if len(piece) == count else b""

    return read_frame(exactly)


@given(st.binary(max_size=64))
@example(PACKED + (8).to_bytes(4, "big") + zlib.compress(b""))
@example(PACKED + (2).to_bytes(4, "big") + b"[]")
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        kind, _ = frame_of(data)
        assert kind in (b"", b"J", b"D")
    except (ProtocolError, TatvprError):
        pass


@pytest.mark.parametrize("letters", [1, 4_000, 5_000, 1_000_000])
def test_a_long_message_travels_packed(letters: int) -> None:
    message = {"op": "a" * letters}
    sent = json_frame(message)
    assert frame_of(sent) == (JSON, message)
    assert len(sent) < 5_000


@pytest.mark.parametrize(
    "packed",
    [zlib.compress(b" " * (MAX_FRAME + 1)), zlib.compress(b"{}")[:-1], zlib.compress(b"{}") + b"x"],
    ids=["more than a message", "cut", "and more"],
)
def test_a_packed_message_is_no_longer_than_any(packed: bytes) -> None:
    with pytest.raises(ProtocolError, match="packed"):
        frame_of(PACKED + len(packed).to_bytes(4, "big") + packed)

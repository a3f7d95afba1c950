"""The Python targets: each takes bytes of an attacker and may raise nothing but a TatvprError.

A target is a function of the input alone; :data:`TARGETS` names them, with the modules whose
branches steer the fuzzer. ``tests/fuzz`` runs every seed and every input that once failed through
the same functions, without a fuzzer.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tatvpr_edge.spec.errors import MapError, TatvprError

Function = Callable[[bytes], None]


class BrokenProperty(Exception):
    """What may never happen, happened without an exception of its own."""


@dataclass(frozen=True)
class Target:
    """A parser under test, and the modules that are instrumented for it."""

    run: Function
    modules: tuple[str, ...]


TARGETS: dict[str, Target] = {}


def target(name: str, *modules: str) -> Callable[[Function], Function]:
    """Registers a target."""

    def register(function: Function) -> Function:
        TARGETS[name] = Target(function, modules)
        return function

    return register


def must(true: bool, what: str) -> None:
    """Raises BrokenProperty where ``true`` is not."""
    if not true:
        raise BrokenProperty(what)


@functools.cache
def scratch() -> Path:
    """A folder of this process, in memory where there is one; removed when it ends."""
    inside = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    holder = tempfile.TemporaryDirectory(prefix="tatvpr-fuzz-", dir=inside)
    scratch.holder = holder  # type: ignore[attr-defined]
    return Path(holder.name)


def written(name: str, data: bytes) -> Path:
    """``data`` as a file, for readers that open one themselves."""
    path = scratch() / name
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def refusal() -> Iterator[None]:
    """One of our errors is an answer: one line of text that a terminal may print."""
    try:
        yield
    except TatvprError as error:
        text = str(error)
        must(bool(text) and "\n" not in text, f"an error of other than one line: {text!r}")


# ---- maps ------------------------------------------------------------------------------------


@functools.cache
def core() -> Any:
    """The core as users' builds link it: a library for this machine."""
    from fuzz.clang import SMALL_MODEL
    from tatvpr_edge.boards.loader import load
    from tatvpr_edge.compilers.toolchains import build_library

    path = scratch() / "core.so"
    build_library(load("host"), SMALL_MODEL, [], path)
    return ctypes.CDLL(str(path))


def c_places(data: bytes) -> int | None:
    """Places of a map as the C reader counts them; None where it refuses it."""
    from support.journals import open_map_in_c

    opened = open_map_in_c(core(), data)
    return None if isinstance(opened, int) else opened.places


@target("map", "tatvpr_edge.spec.placemap", "tatvpr_edge.spec.maptypes")
def read_both(data: bytes) -> None:
    """A map has one verdict, in Python and in C, as it is and with its checksums made right."""
    from support.maps import reseal
    from tatvpr_edge.spec.placemap import parse_base

    for given in (data, reseal(data)):
        places: int | None = None
        with refusal():
            base = parse_base(np.frombuffer(given, np.uint8))
            for place in range(min(len(base), 64)):
                with contextlib.suppress(MapError):  # a tag that is not UTF-8
                    base.tag(place)
                base.pose(place)
            places = len(base)
        if len(given):
            found = c_places(given)
            must(found == places, f"Python reads {places} places, C {found}")


@functools.cache
def journalled_map() -> Path:
    """A small map on the disk, whose journal is the input."""
    from fuzz import seeds

    path = scratch() / "m.placemap"
    path.write_bytes(seeds.small_map("int8"))
    return path


_RECORDS = struct.Struct("<II")


def sealed_journal(data: bytes) -> bytes:
    """A journal of this map with right lengths and checksums, its records from ``data``: for each,
    8 bytes (places before it, bytes of its body and places in it) and the body."""
    from tatvpr_edge.runtime.mapjournal import journal_path
    from tatvpr_edge.spec.placemap import read_base

    base = read_base(journalled_map())
    binding = struct.pack(
        "<IIQ32s", base.payload_crc, 0, base.file_bytes, bytes.fromhex(base.info.model_hash)
    )
    assert journal_path(journalled_map()).name == "m.placemap.journal"
    made = struct.pack("<8sII48s", b"TVPRJRN1", 2, zlib.crc32(binding), binding)
    while len(data) >= _RECORDS.size:
        before, mixed = _RECORDS.unpack_from(data)
        length, count = mixed & 0xFFFF, mixed >> 16
        body, data = data[8 : 8 + length], data[8 + length :]
        record = struct.pack("<4sIII", b"PLCS", 24 + len(body), before, count) + body
        made += record + struct.pack("<II", zlib.crc32(record), 24 + len(body))
    return made


@target(
    "journal",
    "tatvpr_edge.runtime.mapjournal",
    "tatvpr_edge.runtime.journalrecords",
    "tatvpr_edge.spec.maptypes",
)
def read_journal(data: bytes) -> None:
    """A journal as it is, or records with right checksums: one verdict in Python and in C, and what
    is read can be folded in."""
    from support.journals import OpenedInC, open_in_c
    from tatvpr_edge.runtime.mapjournal import journal_path, read_map
    from tatvpr_edge.spec.placemap import parse_base, write_map

    path = journalled_map()
    for journal in (data, sealed_journal(data)):
        journal_path(path).write_bytes(journal)
        added: tuple[str, ...] | None = None
        with refusal():
            stored = read_map(path)
            added = stored.added.tags
            places = stored.places()
            folded = scratch() / "folded.placemap"
            write_map(folded, stored.base.info, [places])
            again = parse_base(np.frombuffer(folded.read_bytes(), np.uint8))
            must(len(again) == len(stored), "folding a journal changes how many places there are")
        opened = open_in_c(core(), path.read_bytes(), journal)
        found = tuple(t.decode() for t in opened.tags()) if isinstance(opened, OpenedInC) else None
        must(found == added, f"Python adds {added}, C {found}")


# ---- artifacts and releases ------------------------------------------------------------------


@target("manifest", "tatvpr_edge.spec.manifest", "tatvpr_edge.spec.text")
def read_manifest(data: bytes) -> None:
    """A manifest as it is, and any JSON object with a right seal."""
    from tatvpr_edge.spec.manifest import parse_manifest, seal
    from tatvpr_edge.spec.text import parse_json

    with refusal():
        parse_manifest(data)
    try:
        document = parse_json(data)
        sealed = seal(document) if isinstance(document, dict) else b""
    except (ValueError, TypeError):  # not JSON, or a number that JSON cannot say
        return
    with refusal():
        parse_manifest(sealed)


@target("release-list", "tatvpr_edge.runtime.table", "tatvpr_edge.runtime.whole")
def read_release_list(data: bytes) -> None:
    """A release's list; one that is read is written as the same bytes for ever."""
    from tatvpr_edge.runtime.table import parse_table
    from tatvpr_edge.runtime.whole import table_of
    from tatvpr_edge.spec.text import parse_json

    with refusal():
        table_of(data, "model-0123456789abcdef")
    try:
        document = parse_json(data)
    except ValueError:
        return
    with refusal():
        table = parse_table(document)
        again = table_of(table.text(), table.name)
        must(again == table, "a list that is written and read again is another")
        must(all(not row.path.startswith("/") for row in table.rows), "an absolute path")


_NONCE = re.compile(rb"main\(\\?'([0-9a-f]{32})\\?'\)")


class _Played:
    """A board that says the input, whatever it is asked. Stands where ssh would."""

    name = "board"

    def __init__(self, said: bytes) -> None:
        self._said = said

    def explain(self, said: str) -> None:
        """Nothing special."""

    def start(self, command: str) -> _PlayedLink:
        """What the session talks to."""
        return _PlayedLink(self._said)


class _PlayedLink:
    sent_bytes = 0

    def __init__(self, said: bytes) -> None:
        reading, self._speaking = os.pipe()
        self.receive = os.fdopen(reading, "rb", buffering=0)
        self._said = said[:32768]  # what a pipe takes without a reader

    def write(self, data: bytes, within_s: float | None = None) -> None:
        """The first line holds what the board greets with."""
        nonce = _NONCE.search(data)
        if nonce is not None and self._speaking >= 0:
            greeting = b"motd\n\ntatvpr-edge agent " + nonce[1] + b"\n"
            os.write(self._speaking, greeting + self._said)
            os.close(self._speaking)
            self._speaking = -1

    def said(self) -> str:
        """Standard error: nothing."""
        return ""

    def explained(self, status: int) -> str | None:
        """Nothing: what ends is the command on the board."""
        return None

    def close(self, seconds: float | None = None, leave: bool = False) -> int:
        """The program's exit status."""
        if self._speaking >= 0:
            os.close(self._speaking)
            self._speaking = -1
        if not self.receive.closed:
            self.receive.close()
        return 0


@target(
    "agent",
    "tatvpr_edge.deploy.answers",
    "tatvpr_edge.deploy.protocol",
    "tatvpr_edge.deploy.session",
)
def talk_to_a_board(data: bytes) -> None:
    """A whole conversation with a board that says anything; what is believed can be printed."""
    from tatvpr_edge.deploy.answers import ANSWERS
    from tatvpr_edge.deploy.session import Session

    operations = sorted(ANSWERS)
    first = data[0] % len(operations) if data else 0
    with refusal():
        session = Session(_Played(data[1:]), modules=[])  # type: ignore[arg-type]
        try:
            for number in range(4):
                answer = session.ask({"op": operations[(first + number) % len(operations)]}, 5, 5)
                shown = json.dumps(answer, ensure_ascii=False)
                must(shown.isprintable(), "an answer that a terminal could obey")
        finally:
            session.close()


# ---- what people and tools write --------------------------------------------------------------


@target(
    "onnx",
    "tatvpr_edge.compilers.loading",
    "tatvpr_edge.compilers.checks",
    "tatvpr_edge.compilers.graph",
    "tatvpr_edge.spec.modelfiles",
)
def read_onnx(data: bytes) -> None:
    """The importer's first stage: an ONNX file to a graph that was checked, and once more without a
    look at the bodies of our operators, which are compared by their hash."""
    from tatvpr_edge.compilers.checks import check_model, check_versions, checked_graph
    from tatvpr_edge.compilers.loading import load_model

    path = written("model.onnx", data)
    with refusal():
        checked_graph(path)
    with refusal():
        model = load_model(path)
        check_versions(model)
        check_model(model)


@target("telemetry", "tatvpr_edge.runtime.telemetry")
def read_telemetry(data: bytes) -> None:
    """Lines of every tool that is listened to: no error at all, and no number that is none."""
    from tatvpr_edge.runtime.telemetry.conditions import parse_nvpmodel, parse_throttled
    from tatvpr_edge.runtime.telemetry.plausible import Plausibility
    from tatvpr_edge.runtime.telemetry.pmic import parse_pmic
    from tatvpr_edge.runtime.telemetry.tegrastats import parse_tegrastats

    text = data.decode("utf-8", "replace")
    parse_nvpmodel(text)
    parse_throttled(text)
    believes = Plausibility()
    for second, line in enumerate(text.split("\n")):
        for reading in parse_tegrastats(line, float(second)):
            _check_reading(believes.judge(reading))
    for reading in parse_pmic(text, 0.0):
        _check_reading(believes.judge(reading))


def _check_reading(reading: Any) -> None:
    value = reading.value
    must(value is None or math.isfinite(value), f"{reading.name} is believed to be {value}")
    must("\n" not in reading.detail, "a reading's reason is one line")


@target("poses", "tatvpr_edge.mapping.poses", "tatvpr_edge.mapping.table",
        "tatvpr_edge.mapping.coordinates", "tatvpr_edge.mapping.rotation")  # fmt: skip
def read_poses(data: bytes) -> None:
    """A table of positions beside three frames; every pose that is given is finite or unknown."""
    from tatvpr_edge.mapping.files import FrameFile
    from tatvpr_edge.mapping.poses import find_poses

    path = written("poses.csv", data)
    frames = [FrameFile(path.parent / name, name) for name in ("a.jpg", "b.jpg", "sub/c.jpg")]
    for count in (1, 3):
        with refusal():
            poses = find_poses(path.parent, frames[:count], path)
            must(poses.values.shape == (count, 7), "a pose for each frame")
            must(not np.isinf(poses.values).any(), "a pose that is infinite")
            turns = poses.values[:, 3:]
            known = ~np.isnan(turns).any(axis=1)
            length = np.linalg.norm(turns[known], axis=1)
            must(bool(np.allclose(length, 1.0, atol=1e-6)), "a turn that is none")


@target(
    "training", "tatvpr_edge.models.train.training_file", "tatvpr_edge.spec.documents", "tomllib"
)
def read_training(data: bytes) -> None:
    """A training file."""
    from tatvpr_edge.models.train.training_file import read_config

    with refusal():
        read_config(written("run.toml", data))


@target("board", "tatvpr_edge.boards", "tatvpr_edge.spec.documents", "tomllib")
def read_board(data: bytes) -> None:
    """A board of the user's own."""
    from tatvpr_edge.boards.loader import load

    with refusal():
        load(str(written("my-board.toml", data)))

"""Several writers of one place at one moment, as two builds on a machine without a cache are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.spec.atomic import replacing, staging, take_place

WRITERS, ROUNDS = 8, 200


def folder(place: Path, content: str) -> None:
    with staging(place) as beside:
        made = beside / "new"
        made.mkdir()
        (made / "file").write_text(content)
        take_place(made, place)


def file(place: Path, content: str) -> None:
    with replacing(place) as sink:
        sink.write(content.encode())


@pytest.mark.parametrize("write", [folder, file])
def test_all_of_them_succeed_and_one_stays(
    ram_path: Path, write: Callable[[Path, str], None]
) -> None:
    at_once = threading.Barrier(WRITERS, timeout=60)
    faults: list[BaseException] = []

    def writer(number: int) -> None:
        try:
            for round_ in range(ROUNDS):
                at_once.wait()
                write(ram_path / f"{round_}", f"by {number}")
        except BaseException as error:
            faults.append(error)
            at_once.abort()

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [fault for fault in faults if not isinstance(fault, threading.BrokenBarrierError)]
    assert sorted(path.name for path in ram_path.iterdir()) == sorted(map(str, range(ROUNDS)))
    for path in ram_path.iterdir():
        kept = path / "file" if path.is_dir() else path
        assert kept.read_text() in {f"by {number}" for number in range(WRITERS)}

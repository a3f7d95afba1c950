"""Several writers of one place at one moment, as two builds on a machine without a cache are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.spec import atomic
from tatvpr_edge.spec.atomic import put_new, replacing, staging, take_place

WRITERS, ROUNDS = 8, 200


def folder(place: Path, content: str, put: Callable[[Path, Path], None] = take_place) -> None:
    with staging(place) as beside:
        made = beside / "new"
        made.mkdir()
        (made / "file").write_text(content)
        put(made, place)


def file(place: Path, content: str, new: bool = False) -> None:
    with replacing(place, new=new) as sink:
        sink.write(content.encode())


def new_folder(place: Path, content: str) -> None:
    folder(place, content, put_new)


def new_file(place: Path, content: str) -> None:
    file(place, content, new=True)


@pytest.mark.parametrize("write", [folder, file])
def test_all_of_them_succeed_and_one_stays(
    ram_path: Path, write: Callable[[Path, str], None]
) -> None:
    assert race(ram_path, write) == [WRITERS] * ROUNDS


@pytest.mark.parametrize("write", [new_folder, new_file])
def test_of_those_that_make_something_new_one_succeeds_and_it_stays(
    ram_path: Path, write: Callable[[Path, str], None]
) -> None:
    assert race(ram_path, write) == [1] * ROUNDS


@pytest.mark.parametrize("write", [new_folder, new_file])
@pytest.mark.parametrize("has", ["the step", "a look alone"])
def test_nothing_new_replaces_what_lies_there(
    tmp_path: Path, write: Callable[[Path, str], None], has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder neither, which rename(2) replaces; on disks that know renameat2 or not."""
    if has == "a look alone":
        monkeypatch.setattr(atomic, "_NOREPLACE", 1 << 20)  # a flag that no kernel knows
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(FileExistsError) as told:
            write(tmp_path / name, "new")
        assert told.value.filename == str(tmp_path / name)
    write(tmp_path / "none", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "none"]
    assert (tmp_path / "file").read_text() == "old" and not any((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("left", [False, True])
def test_a_folder_is_replaced_on_disks_that_cannot_exchange_two_names(
    tmp_path: Path, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    place, made = tmp_path / "place", tmp_path / "made"
    for path, content in ((place, "old"), (made, "new")):
        path.mkdir()
        (path / "file").write_text(content)
    if left:  # by a try that died between two steps
        (tmp_path / "made.old" / "more").mkdir(parents=True)
    take_place(made, place)
    assert (place / "file").read_text() == "new" and (made / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "place"]


def race(place: Path, write: Callable[[Path, str], None]) -> list[int]:
    """How many writers succeeded in each round; whatever stays is whole, and one's that did."""
    at_once = threading.Barrier(WRITERS, timeout=60)
    faults: list[BaseException] = []
    done: list[set[str]] = [set() for _ in range(ROUNDS)]

    def writer(number: int) -> None:
        try:
            for round_ in range(ROUNDS):
                at_once.wait()
                try:
                    write(place / f"{round_}", f"by {number}")
                except FileExistsError:
                    continue
                done[round_].add(f"by {number}")
        except BaseException as error:
            faults.append(error)
            at_once.abort()

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [fault for fault in faults if not isinstance(fault, threading.BrokenBarrierError)]
    assert sorted(path.name for path in place.iterdir()) == sorted(map(str, range(ROUNDS)))
    for path in place.iterdir():
        kept = path / "file" if path.is_dir() else path
        assert kept.read_text() in done[int(path.name)]
    return [len(one) for one in done]
